"""The loader: JavaScript that puts a widget into a customer's page."""

import hashlib
import re
from collections.abc import Collection, Iterator
from importlib.resources import files
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gatekeeper.web.answers import KEY_HEADER, Answer, send_answer
from gatekeeper.web.cors import PUBLIC
from gatekeeper.web.request import Header, Paths, path_problems

__all__ = ("LOADER_FILES", "loader_files", "loader_problems")

LOADER_FILES: Final = ("widget.js", "widget.mjs", "frame.js")
KEY_NAMES: Final = (KEY_HEADER, "client_key")  # the header and the query parameter that they send
MAX_AGE: Final = 300  # seconds for which browsers use a file without asking, so that an update reaches pages soon

_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[\w.~-]+)+", re.ASCII)
_HEADERS: Final[tuple[Header, ...]] = (
    PUBLIC,  # modules are fetched in cors mode
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"cache-control", f"public, max-age={MAX_AGE}".encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
)


def loader_files(loader_path: str | None) -> dict[str, ASGIApp]:
    """What serves the files of the loader, by their paths.

    Args:
        loader_path: as for GatekeeperMiddleware.
    """
    return {} if loader_path is None else {f"{loader_path}/{name}": _LoaderFile(name) for name in LOADER_FILES}


class _LoaderFile:
    """Serves one file of the loader to any page."""

    def __init__(self, name: str) -> None:
        self._content = files("gatekeeper.web").joinpath("assets", name).read_bytes()
        self._etag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'.encode("ascii")

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send_answer(send, self._answer(scope))
        else:
            await send({"type": "websocket.close", "code": 1000})  # refuses the handshake

    def _answer(self, scope: Scope) -> Answer:
        method = scope["method"]
        if method not in {"GET", "HEAD"}:
            return Answer(405, [(b"allow", b"GET, HEAD"), (b"content-length", b"0")], b"")
        headers = [*_HEADERS, (b"etag", self._etag)]
        if _has_validator(scope, self._etag):
            return Answer(304, headers, b"")
        content = (
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"content-length", str(len(self._content)).encode("ascii")),
        )
        return Answer(200, [*headers, *content], b"" if method == "HEAD" else self._content)


def _has_validator(scope: Scope, etag: bytes) -> bool:
    """Whether If-None-Match names an ETag. They are compared weakly: proxies that compress make it weak."""
    given = b",".join(value for name, value in scope.get("headers") or () if name == b"if-none-match")
    return any(each.strip().removeprefix(b"W/") in {etag, b"*"} for each in given.split(b","))


def loader_problems(loader_path: object, key_names: tuple[object, object], **others: Collection[str]) -> Iterator[str]:
    """Yield one sentence for each mistake in the option `loader_path`.

    Args:
        loader_path: as for GatekeeperMiddleware.
        key_names: `key_header` and `key_query` of GatekeeperMiddleware.
        others: the paths of its other options, by their names.
    """
    if loader_path is None:
        return
    if not isinstance(loader_path, str) or _PATH.fullmatch(loader_path) is None:
        yield (
            f"loader_path is {loader_path!r}: expected a path such as '/gatekeeper', without '/' at the end, "
            "of letters, digits, '-', '.', '_', '~'"
        )
        return
    header, query = key_names
    if (str(header).lower(), query) != KEY_NAMES:
        yield f"loader_path needs the default key_header and key_query: its files send {' and '.join(map(repr, KEY_NAMES))}"
    for option, paths in others.items():
        if any(path_problems(option, paths)):
            continue  # these are reported
        covered = [path for name in LOADER_FILES if Paths(paths).covers({"path": (path := f"{loader_path}/{name}")})]
        if covered:
            yield f"loader_path is {loader_path!r}, but {option} covers {covered[0]!r} too: choose another path for one"
