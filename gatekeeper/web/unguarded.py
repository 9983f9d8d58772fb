"""Unguarded: requests that are not decided before they reach the app."""

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper.web.cors import as_public
from gatekeeper.web.loader import loader_files
from gatekeeper.web.request import Paths, route_path

__all__ = ("Unguarded", "public")


class Unguarded:
    """Answers requests that are not decided before they reach the app.

    Args:
        app: the guarded app, which answers on exempt paths.
        exempt: as for GatekeeperMiddleware.
        loader_path: as for GatekeeperMiddleware.
        key_in_body: as for GatekeeperMiddleware.
        checked: the same app where its endpoints find the key.

    Attributes:
        covers: whether a request is for one of these paths.
        needs_no_key: whether a request or a WebSocket, which has no body, is for one of those without a key.
    """

    def __init__(
        self, app: ASGIApp, exempt: Collection[str], loader_path: str | None, key_in_body: Collection[str], checked: ASGIApp
    ) -> None:
        self._app = app
        self._checked = checked
        self._files = loader_files(loader_path)
        self.covers = Paths((*exempt, *self._files, *key_in_body)).covers
        self.needs_no_key = Paths((*exempt, *self._files)).covers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a connection that is covered."""
        app = self._files.get(route_path(scope), self._app) if self.needs_no_key(scope) else self._checked
        await app(scope, receive, send)


def public(app: ASGIApp) -> ASGIApp:
    """Let any page read the answers of an app.

    Preflights are left to the app: an answer to one would allow more than to read.

    Args:
        app: the app.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_public(message: Message) -> None:
            await send(as_public(message) if message["type"] == "http.response.start" else message)

        is_read = scope["type"] == "http" and scope["method"] != "OPTIONS"
        await app(scope, receive, send_public if is_read else send)

    return answer
