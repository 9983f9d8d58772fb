"""An app of Django, which has neither WebSockets nor background tasks of its own."""

import asyncio

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from gatekeeper import decision_from
from tests.frameworks.serving import CRASH, EVENTS, Outer, background, events, names_of, pieces, seen

tasks: set[asyncio.Task[None]] = set()


async def config(request: ASGIRequest) -> JsonResponse:
    return JsonResponse({"agent_id": decision_from(request.scope).agent_id})


async def see(request: ASGIRequest) -> JsonResponse:
    return JsonResponse(seen(request.scope))


async def stream(_request: ASGIRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(pieces())


async def watch(_request: ASGIRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(events(), content_type=EVENTS)


async def crash(_request: ASGIRequest) -> HttpResponse:
    raise ValueError(CRASH)


async def later(_request: ASGIRequest) -> HttpResponse:
    task = asyncio.create_task(background())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return HttpResponse("later")


async def post(_request: ASGIRequest) -> HttpResponse:
    return HttpResponse("posted")


handlers = {"config": config, "seen": see, "stream": stream, "events": watch, "crash": crash, "background": later}
urlpatterns = [path(name, handler) for name, handler in handlers.items()]
urlpatterns += [path("form", post), path("exempt", csrf_exempt(post))]
settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
)
names = names_of("Django")
app = Outer(names["application"], names["gate"])
