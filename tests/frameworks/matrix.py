"""The table of frameworks and servers: what the tests try, what they find, and its text for the README."""

from typing import NamedTuple

__all__ = (
    "APPS",
    "BEHAVIOURS",
    "CONTEXT_OF_ITS_OWN",
    "CRASH_OUTSIDE",
    "MOUNTED",
    "NOTES",
    "NO_LIFESPAN",
    "NO_WEBSOCKETS",
    "OTHER_CLOSE_CODE",
    "SERVERS",
    "Mounted",
    "Note",
    "rendered",
)


class Mounted(NamedTuple):
    """A way to mount the gate.

    Attributes:
        name: its name in the table.
        heading: the heading of its example in the README.
        app: the module that serves it.
        prefix: the path of its mount point.
    """

    name: str
    heading: str
    app: str
    prefix: str = ""


class Note(NamedTuple):
    """A difference from what the table says, and where it applies.

    Attributes:
        text: the difference.
        mounted: the names of the ways to mount; empty for all.
        servers: the names of the servers; empty for all.
    """

    text: str
    mounted: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()

    def applies(self, mounted: str, server: str) -> bool:
        """Whether it applies to a cell of the table."""
        return (not self.mounted or mounted in self.mounted) and (not self.servers or server in self.servers)


MOUNTED = (
    Mounted("Starlette", "Starlette", "starlette_whole"),
    Mounted("Starlette, `Mount` of an app", "Starlette in parts", "starlette_parts", "/chat"),
    Mounted("Starlette, `Mount` of a `Router`", "Starlette in parts", "starlette_parts", "/router"),
    Mounted("FastAPI", "FastAPI", "fastapi_whole"),
    Mounted("FastAPI, sub-app", "FastAPI in parts", "fastapi_parts", "/chat"),
    Mounted("FastAPI, mounted `APIRouter`", "FastAPI in parts", "fastapi_parts", "/router"),
    Mounted("Litestar", "Litestar", "litestar_app"),
    Mounted("Quart", "Quart", "quart_app"),
    Mounted("Falcon", "Falcon", "falcon_app"),
    Mounted("BlackSheep", "BlackSheep", "blacksheep_app"),
    Mounted("Django", "Django", "django_app"),
)
APPS = tuple(dict.fromkeys(mounted.app for mounted in MOUNTED))
SERVERS = ("uvicorn", "hypercorn", "granian", "daphne", "gunicorn")

DAPHNE = "https://github.com/django/daphne/issues"
NO_LIFESPAN = (
    Note(
        "Django runs no lifespan ([ticket 31508](https://code.djangoproject.com/ticket/31508)): the gate starts at the "
        "first request, and ends with the process.",
        mounted=("Django",),
    ),
    Note(
        "daphne runs no lifespan: hooks of the app do not run, and the gate starts at the first request.",
        servers=("daphne",),
    ),
)
NO_WEBSOCKETS = (
    Note("Django has no WebSockets without Channels. The gate refuses those of foreign pages all the same.", ("Django",)),
    Note(
        f"Quart fails at every WebSocket, because daphne leaves out the `scheme` ([daphne#538]({DAPHNE}/538)).",
        mounted=("Quart",),
        servers=("daphne",),
    ),
)
CRASH_OUTSIDE = Note(
    "A router has no answer of its own to a crash. The app around it sends the 500, outside of the gate and without CORS "
    "headers.",
    mounted=("Starlette, `Mount` of a `Router`", "FastAPI, mounted `APIRouter`"),
)
CONTEXT_OF_ITS_OWN = Note(
    "The handler runs in a task of its own: it sees the variables of the middleware, and the middleware does not see its.",
    mounted=("Quart", "Django"),
)
OTHER_CLOSE_CODE = Note(
    f"daphne sends neither the code 1008 nor a reason ([daphne#374]({DAPHNE}/374)): a revoked WebSocket is closed with "
    "3003, and a refused one gets a 403 without a body of the gate's.",
    servers=("daphne",),
)
NOTES = (*NO_LIFESPAN, *NO_WEBSOCKETS, CRASH_OUTSIDE, CONTEXT_OF_ITS_OWN, OTHER_CLOSE_CODE)

BEHAVIOURS = {
    "allow": "an allowed page gets the app's answer, with CORS headers and one `Vary`",
    "refuse": "a foreign page gets the reason, and the app sees nothing of its request",
    "preflight": "the gate answers `OPTIONS`",
    "stream": "a streaming response arrives piece by piece",
    "events": "server-sent events arrive, with the key in the query",
    "websocket": "a WebSocket opens for an allowed page only",
    "crash": "the 500 of a handler that raises carries CORS headers",
    "revocation": "a revocation ends open streams and WebSockets, and the app notices",
    "context": "context variables that middleware outside of the gate sets reach the handler, and those of the handler "
    "reach the middleware",
    "background": "background tasks run after the answer",
    "lifespan": "the gate has its list before the first request, and ends with the server",
}


def rendered() -> str:
    """The list of behaviours, the table and its notes, in Markdown."""
    lines = [f"- {text}" for text in BEHAVIOURS.values()]
    lines += ["", f"| | {' | '.join(SERVERS)} |", "|---" * (len(SERVERS) + 1) + "|"]
    lines += [f"| {each.name} | {' | '.join(_cell(each.name, server) for server in SERVERS)} |" for each in MOUNTED]
    lines += ["", *(f"{number}. {note.text}" for number, note in enumerate(NOTES, start=1))]
    return "\n".join(lines)


def _cell(mounted: str, server: str) -> str:
    numbers = [str(number) for number, note in enumerate(NOTES, start=1) if note.applies(mounted, server)]
    return f"yes ({', '.join(numbers)})" if numbers else "yes"
