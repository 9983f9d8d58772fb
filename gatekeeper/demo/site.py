"""The customer's site, which embeds the widget with one script tag."""

from html import escape
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

__all__ = ("customer_site",)


def customer_site(*, widget_url: str, client_key: str, allowed_url: str, refused_url: str) -> Starlette:
    """Make a site with one page.

    Args:
        widget_url: the URL of the widget service.
        client_key: the key for the script tag.
        allowed_url: the page on a host that the key's allowlist has.
        refused_url: the same page on a host that the allowlist lacks.
    """
    page = files("gatekeeper.demo").joinpath("assets/page.html").read_text(encoding="utf-8")
    places = {
        "widget_url": widget_url,
        "client_key": client_key,
        "allowed_url": allowed_url,
        "refused_url": refused_url,
    }
    for place, value in places.items():
        page = page.replace(f"{{{{{place}}}}}", escape(value))

    async def home(_request: Request) -> HTMLResponse:
        return HTMLResponse(page)

    return Starlette(routes=[Route("/", home)])
