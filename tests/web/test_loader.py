"""The files of the loader: who gets them, with which headers, and which paths they cannot have."""

import gzip
from importlib.resources import files
from typing import Any

import pytest

from gatekeeper import ConfigError, Gatekeeper, GatekeeperMiddleware
from gatekeeper.web.loader import LOADER_FILES
from tests.web.test_asgi import OTHER_PAGE, STRANGE_PAGE, Answer, App, ask, headers, shake_hands
from tests.web.test_frames import QUERY, guard

PATHS = [f"/gatekeeper/{name}" for name in LOADER_FILES]
MAX_SIZE = 4096  # bytes, compressed


def load(path: str = PATHS[0], *fields: tuple[str, str], loader_path: str = "/gatekeeper", **parts: Any) -> Answer:
    """Ask for a file of the loader."""
    return ask(guard(loader_path=loader_path), headers(*fields), path=path, **parts)


@pytest.mark.parametrize("name", LOADER_FILES)
def test_any_page_gets_a_file_without_a_key(name: str) -> None:
    app = App()
    answer = ask(guard(app, loader_path="/gatekeeper"), headers(("origin", STRANGE_PAGE)), path=f"/gatekeeper/{name}")
    content = files("gatekeeper.web").joinpath("assets", name).read_bytes()
    assert (answer.status, answer.body, app.scopes) == (200, content, [])
    etag = answer.value("etag") or b""
    assert etag.startswith(b'"')
    assert dict(answer.headers) == {
        b"access-control-allow-origin": b"*",
        b"cross-origin-resource-policy": b"cross-origin",
        b"cache-control": b"public, max-age=300",
        b"x-content-type-options": b"nosniff",
        b"etag": etag,
        b"content-type": b"text/javascript; charset=utf-8",
        b"content-length": str(len(content)).encode(),
    }


@pytest.mark.parametrize("name", LOADER_FILES)
def test_a_file_has_less_than_4_kb_compressed(name: str) -> None:
    assert len(gzip.compress(files("gatekeeper.web").joinpath("assets", name).read_bytes())) < MAX_SIZE


def test_every_file_has_an_etag_of_its_own() -> None:
    assert len({load(path).value("etag") for path in PATHS}) == len(PATHS)


@pytest.mark.parametrize("shape", ["{}", "W/{}", '"other", {}', '"other",W/{} ', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_a_browser_has_is_not_sent_again(shape: str, method: str) -> None:
    etag = (load().value("etag") or b"").decode()
    answer = load(PATHS[0], ("if-none-match", shape.format(etag)), method=method)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.value("etag") == etag.encode()
    assert answer.value("cache-control") == b"public, max-age=300"
    assert answer.value("access-control-allow-origin") == b"*"
    assert answer.value("content-type") is None


@pytest.mark.parametrize("validator", ["", '"other"', "W/", "nonsense", '"*"'])
def test_another_validator_gets_the_file(validator: str) -> None:
    assert load(PATHS[0], ("if-none-match", validator)).status == 200


def test_a_validator_may_stand_in_any_line() -> None:
    etag = (load().value("etag") or b"").decode()
    assert load(PATHS[0], ("if-none-match", '"other"'), ("if-none-match", etag)).status == 304


def test_head_gets_the_headers_of_a_file_alone() -> None:
    got, head = load(), load(method="HEAD")
    assert (head.status, head.headers, head.body) == (200, got.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_not_allowed(method: str) -> None:
    answer = load(method=method)
    assert (answer.status, answer.value("allow"), answer.body) == (405, b"GET, HEAD", b"")


def test_a_websocket_at_the_path_of_a_file_is_refused() -> None:
    app = App()
    messages = shake_hands(guard(app, loader_path="/gatekeeper"), extension=True, path=PATHS[0], query=QUERY)
    assert [message["type"] for message in messages] == ["websocket.close"]
    assert app.scopes == []


@pytest.mark.parametrize(
    "path",
    [
        "/gatekeeper",
        "/gatekeeper/",
        "/gatekeeper/widget",
        "/gatekeeper/widget.js/",
        "/gatekeeper/Widget.js",
        "/gatekeeper/../gatekeeper/widget.js",
        "/gatekeeper//widget.js",
        "/widget.js",
        "/gatekeeper/__init__.py",
    ],
)
def test_other_paths_are_guarded_as_before(path: str) -> None:
    assert load(path).reason == "key_missing"


def test_without_the_option_nothing_is_served() -> None:
    for path in PATHS:
        assert ask(guard(), path=path).reason == "key_missing"


def test_the_path_is_relative_to_the_mount_point() -> None:
    assert load("/w/gatekeeper/widget.js", root_path="/w").status == 200
    assert load("/gatekeeper/widget.js", root_path="/gatekeeper").reason == "key_missing"
    assert load("/a/b/widget.js", loader_path="/a/b").status == 200


def test_exempt_paths_stay_exempt_beside_the_loader() -> None:
    app = App()
    guarded = guard(app, loader_path="/gatekeeper", exempt=("/healthz",))
    assert ask(guarded, path="/healthz").reason == "allowed"
    assert shake_hands(guarded, extension=False, path="/healthz")[0]["type"] == "websocket.accept"
    assert ask(guarded, headers(("origin", OTHER_PAGE)), path="/").reason == "key_missing"


def test_the_loader_needs_no_secret() -> None:
    guarded = GatekeeperMiddleware(App(), Gatekeeper.from_rows([]), loader_path="/gatekeeper")
    assert ask(guarded, path=PATHS[0]).status == 200


@pytest.mark.parametrize(
    "path", ["", "/", "gatekeeper", "/gatekeeper/", "/gatekeeper/*", "/a//b", "/g?x", "/g%20", b"/g", 7]
)
def test_a_wrong_path_is_a_config_error(path: Any) -> None:
    with pytest.raises(ConfigError) as error:
        guard(loader_path=path)
    (problem,) = error.value.problems
    assert problem.startswith(f"loader_path is {path!r}: expected a path such as '/gatekeeper'")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exempt": ("/gatekeeper/*",)}, "exempt covers '/gatekeeper/widget.js'"),
        ({"exempt": ("/x", "/gatekeeper/frame.js")}, "exempt covers '/gatekeeper/frame.js'"),
        ({"frames": ("/gatekeeper/widget.mjs",)}, "frames covers '/gatekeeper/widget.mjs'"),
        ({"grant_path": "/gatekeeper/widget.js"}, "grant_path covers '/gatekeeper/widget.js'"),
    ],
)
def test_a_path_of_another_option_is_a_config_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        guard(loader_path="/gatekeeper", **options)
    (problem,) = error.value.problems
    assert said in problem


@pytest.mark.parametrize(
    "options", [{"exempt": ("gatekeeper/*",)}, {"frames": "/gatekeeper/widget.js"}, {"grant_path": "g"}]
)
def test_a_mistake_in_another_option_is_reported_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        guard(loader_path="/gatekeeper", **options)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("options", [{"key_header": "x-key"}, {"key_query": "key"}])
def test_the_loader_needs_the_default_names_of_the_key(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        guard(loader_path="/gatekeeper", **options)
    (problem,) = error.value.problems
    assert problem.startswith("loader_path needs the default key_header and key_query")
    assert guard(loader_path="/gatekeeper", key_header="Data-Client-Key")
