"""The app with Sentry, whose events stay in the process."""

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from starlette.routing import Route

from tests.frameworks.apps.starlette_routes import crash
from tests.frameworks.serving import STATE, Outer, names_of

STATE["errors"] = []


class Kept(Transport):
    """Keeps the errors for the test."""

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            STATE["errors"] += [error["type"] for error in event["exception"]["values"]]


names = names_of("Sentry", transport=Kept)
names["guarded"].router.routes.append(Route("/crash", crash))
app = Outer(names["app"], names["gate"])
