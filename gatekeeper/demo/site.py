"""The sites of two customers, which embed the widget with one tag."""

from html import escape
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

__all__ = ("acme_site", "globex_site")


def acme_site(*, widget_url: str, client_key: str, allowed_url: str, refused_url: str) -> Starlette:
    """Make Acme's site: a page with the widget, or with its frame.

    Args:
        widget_url: the URL of the widget service.
        client_key: the key for the script tag.
        allowed_url: the page on a host that the key's allowlist has.
        refused_url: the same page on a host that the allowlist lacks.
    """
    template = _asset("page.html")
    key = f'data-client-key="{escape(client_key)}"'
    tags = {
        "": f'<script src="{escape(widget_url)}/widget.js" {key} defer></script>',
        "?mode=frame": f'<script src="{escape(widget_url)}/gatekeeper/widget.js" {key} data-mode="frame" defer></script>',
    }

    def page(query: str) -> str:
        tag = tags[query]
        urls = {"allowed_url": f"{allowed_url}/{query}", "refused_url": f"{refused_url}/{query}"}
        written = template.replace("{{tag}}", tag).replace("{{shown_tag}}", escape(tag))
        for place, url in urls.items():
            written = written.replace(f"{{{{{place}}}}}", escape(url))
        return written

    pages = {query: page(query) for query in tags}

    async def home(request: Request) -> HTMLResponse:
        return HTMLResponse(pages["?mode=frame" if request.query_params.get("mode") == "frame" else ""])

    return Starlette(routes=[Route("/", home)])


def globex_site(*, widget_url: str, client_key: str) -> Starlette:
    """Make Globex's site: the same widget with another account's key.

    Args:
        widget_url: the URL of the widget service.
        client_key: the key for the script tag.
    """
    tag = f'<script src="{escape(widget_url)}/widget.js" data-client-key="{escape(client_key)}" defer></script>'
    page = _asset("globex.html").replace("{{tag}}", tag)

    async def home(_request: Request) -> HTMLResponse:
        return HTMLResponse(page)

    return Starlette(routes=[Route("/", home)])


def _asset(name: str) -> str:
    return files("gatekeeper.demo").joinpath(f"assets/{name}").read_text(encoding="utf-8")
