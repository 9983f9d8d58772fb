"""guard: puts the gate around a Starlette or FastAPI app."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from functools import partial
from inspect import unwrap
from typing import Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from gatekeeper.errors import ConfigError
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.web.asgi import GatekeeperMiddleware
from gatekeeper.web.cors import CorsPolicy
from gatekeeper.web.openapi import Documented, GateDescription, GuardedSchema, documentation_paths
from gatekeeper.web.request import Paths, path_problems
from gatekeeper.web.unguarded import public

__all__ = ("guard",)

App = TypeVar("App", bound=Starlette)

_READS: Final = frozenset({"GET", "HEAD"})


def guard(
    app: App,
    gate: Gatekeeper,
    *,
    key_header: str = "data-client-key",
    key_query: str = "client_key",
    cors: CorsPolicy | None = None,
    exempt: Collection[str] = (),
    exempt_cors: bool = False,
    key_in_body: Collection[str] = (),
    exempt_docs: bool = True,
    readable_denials: bool = True,
    frames: Collection[str] = (),
    grant_path: str | None = None,
    own_origins: Collection[str] = (),
    frame_ancestors: bool = False,
    loader_path: str | None = None,
) -> App:
    """Put the gate around a Starlette or FastAPI app.

    Every server and every tool that is given the app then serves the guarded one. The gate stands outside of all middleware
    of the app, also of what is added later, and outside of the handler of crashes. It starts and stops with the app; a
    lifespan of the app's own runs inside.

    Args:
        app: the app. It must not have started.
        gate: the gate that decides.
        key_header: as for GatekeeperMiddleware, like all options but `exempt_docs`.
        key_query: as for GatekeeperMiddleware.
        cors: as for GatekeeperMiddleware.
        exempt: as for GatekeeperMiddleware.
        exempt_cors: as for GatekeeperMiddleware.
        key_in_body: as for GatekeeperMiddleware.
        exempt_docs: whether a GET or HEAD of FastAPI's documentation and its schema needs no key.
        readable_denials: as for GatekeeperMiddleware.
        frames: as for GatekeeperMiddleware.
        grant_path: as for GatekeeperMiddleware.
        own_origins: as for GatekeeperMiddleware.
        frame_ancestors: as for GatekeeperMiddleware.
        loader_path: as for GatekeeperMiddleware.

    Returns:
        The same app.

    Raises:
        ConfigError: listing everything that is wrong with the arguments; the app is guarded already, or has started.
    """
    middleware = partial(
        GatekeeperMiddleware,
        gatekeeper=gate,
        key_header=key_header,
        key_query=key_query,
        cors=cors,
        exempt=exempt,
        exempt_cors=exempt_cors,
        key_in_body=key_in_body,
        readable_denials=readable_denials,
        frames=frames,
        grant_path=grant_path,
        own_origins=own_origins,
        frame_ancestors=frame_ancestors,
        loader_path=loader_path,
    )
    problems = tuple(_problems(app))
    documentation = _documentation(app) if exempt_docs else ()
    has_paths = not any(path_problems("exempt", exempt))  # problems are reported for what was given
    try:
        # The stack is built at the first request, which is too late for a ConfigError.
        middleware(app, exempt=(*exempt, *documentation) if has_paths else exempt)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    description = GateDescription(
        key_header,
        key_query,
        exempt=exempt,
        key_in_body=key_in_body,
        frames=frames,
        takes_grants=bool(frames or grant_path or own_origins),
    )
    _describe(app, description)
    guarded: Callable[[ASGIApp], ASGIApp] = middleware
    if documentation:
        guarded = partial(_with_documentation, middleware, documentation, exempt_cors=exempt_cors)
    # Starlette calls it once, when the app starts, and so after the last add_middleware. It hides the method of the class.
    vars(app)["build_middleware_stack"] = _GuardedStack(app, guarded, description)
    app.router.lifespan_context = _lifespan(gate, app.router.lifespan_context)
    return app


class _GuardedStack:
    """Builds the middleware stack of an app, inside the gate."""

    def __init__(self, app: Starlette, middleware: Callable[[ASGIApp], ASGIApp], description: GateDescription) -> None:
        self._app = app
        self._build = app.build_middleware_stack
        self._middleware = middleware
        self._description = description

    def __call__(self) -> ASGIApp:
        _describe(self._app, self._description)  # once more: the app may have been given another `openapi` since
        return self._middleware(self._build())


def _describe(app: Starlette, description: GateDescription) -> None:
    if isinstance(app, Documented) and not isinstance(app.openapi, GuardedSchema):
        app.openapi = GuardedSchema(app.openapi, description)


def _lifespan(gate: Gatekeeper, own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The lifespan of an app whose gate runs as long as the app. The state is that of the app's own lifespan."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[Any]:
        async with gate, own(app) as state:
            yield state

    return lifespan


def _documentation(app: object) -> tuple[str, ...]:
    return documentation_paths(app) if isinstance(app, Documented) else ()


def _with_documentation(
    guarded: Callable[[ASGIApp], ASGIApp], ends: tuple[str, ...], app: ASGIApp, *, exempt_cors: bool
) -> ASGIApp:
    """Guard an app, except for its documentation. The app may use the same paths with other methods and WebSockets."""
    gate, documentation, paths = guarded(app), public(app) if exempt_cors else app, Paths(ends)

    # Not a coroutine function, which would cost every request one more coroutine.
    def served(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # The end of the path is looked at first because it costs the least, and tells nearly all other requests apart.
        if scope["type"] == "http" and scope["path"].endswith(ends) and scope["method"] in _READS and paths.covers(scope):
            return documentation(scope, receive, send)
        return gate(scope, receive, send)

    return served


def _problems(app: object) -> Iterator[str]:
    if not isinstance(app, Starlette):
        yield f"app is {app!r}: expected a Starlette or FastAPI app; for another one use GatekeeperMiddleware(app, gate)"
        return
    # Others wrap the method, too (OpenTelemetry does).
    if isinstance(unwrap(app.build_middleware_stack), _GuardedStack):
        yield "app is guarded already: call guard() once for each app"
    if any(isinstance(each.cls, type) and issubclass(each.cls, GatekeeperMiddleware) for each in app.user_middleware):
        yield "app has GatekeeperMiddleware already: remove add_middleware(GatekeeperMiddleware, …), which guard() replaces"
    if app.middleware_stack is not None:
        yield "app has started already: call guard() where the app is made, before its first request"
