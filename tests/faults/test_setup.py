"""A mistake in the set-up is explained in a sentence within five seconds, without secrets."""

import logging
import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gatekeeper import ConfigError, Gatekeeper, HubSource, Reason
from gatekeeper.health import health
from gatekeeper.testing import FakeHub, HubAnswer, json_answer
from tests.support.certificates import Certificates
from tests.support.rows import ORIGIN, TOKEN, client_key, row

pytestmark = pytest.mark.anyio

WITHIN = 5.0
LOGIN = "https://login.example/sso?next=%2Fapi"
RENAMED = [{("key_suffix" if name == "last8" else name): value for name, value in row(1).items()}]


@dataclass(frozen=True)
class Mistake:
    """A mistake in the set-up, and words of its sentence."""

    said: tuple[str, ...]
    answer: HubAnswer | None = None
    url: Callable[[], str] | None = None
    certificate: str | None = None


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return "http://127.0.0.1:{1}".format(*listener.getsockname())


MISTAKES = {
    "401": Mistake(("401", "the token is unknown or revoked"), json_answer(f"bad token {TOKEN}", 401)),
    "403": Mistake(("403", "may not do this"), json_answer("forbidden", 403)),
    "404": Mistake(("404", "/api/v1/widget-keys"), json_answer("Not Found", 404)),
    "account": Mistake(("400", "X-Account-ID", "account="), json_answer("Missing X-Account-ID header", 400)),
    "TLS name": Mistake(("certificate", "127.0.0.1"), certificate="of_another_host"),
    "TLS authority": Mistake(("certificate", "verify failed"), certificate="of_an_unknown_authority"),
    "refused": Mistake(("refused", "127.0.0.1"), url=dead_address),
    "DNS": Mistake(("hub.invalid",), url=lambda: "http://hub.invalid"),
    "redirect": Mistake(("302", LOGIN), HubAnswer(302, headers={"location": LOGIN})),
    "HTML": Mistake(("HTML",), HubAnswer(200, b"<!doctype html><h1>Welcome</h1>", {"content-type": "text/html"})),
    "object": Mistake(("array", "object"), json_answer({"data": [row(1)]})),
    "suffix field": Mistake(("'last8'", "'key_suffix'", "suffix_field="), json_answer(RENAMED)),
}


async def sentence_about(mistake: Mistake, caplog: pytest.LogCaptureFixture) -> str:
    """Start a gate with this mistake; return what it says."""
    certificates = Certificates()
    tls = getattr(certificates, mistake.certificate)() if mistake.certificate else None
    with ExitStack() as stack:
        hub = stack.enter_context(FakeHub(tls=tls))
        if mistake.answer is not None:
            hub.always(mistake.answer)
        url = mistake.url() if mistake.url else hub.url
        options: dict[str, Any] = {"http": certificates.client} if mistake.certificate else {}
        gate = Gatekeeper(HubSource(url, TOKEN, **options), start_timeout=0.05)
        began = time.monotonic()
        async with gate:
            while gate.status.last_error is None and time.monotonic() - began < WITHIN:
                await gate.refresh()
            said = gate.status.last_error
            assert said is not None
            assert gate.decide(client_key(1), ORIGIN).reason is Reason.NOT_READY
    assert time.monotonic() - began < WITHIN
    assert said in caplog.text
    return said


@pytest.mark.promise("mistakes are explained")
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_a_sentence_in_log_and_status_within_5_s(mistake: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = await sentence_about(MISTAKES[mistake], caplog)
    for word in MISTAKES[mistake].said:
        assert word.lower() in said.lower(), said
    assert TOKEN not in said + caplog.text
    assert TOKEN.rpartition("_")[2] not in said + caplog.text
    assert "\n" not in said


@pytest.mark.promise("mistakes are explained")
async def test_each_mistake_has_a_sentence_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    said = [await sentence_about(mistake, caplog) for mistake in MISTAKES.values()]
    shapes = {sentence.replace("127.0.0.1", "").translate(str.maketrans("", "", "0123456789")) for sentence in said}
    assert len(shapes) == len(MISTAKES)


@pytest.mark.fault("wrong path or account")
@pytest.mark.promise("mistakes are explained")
async def test_a_404_names_both_documented_paths(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.always(json_answer("Not Found", 404))
    gate = Gatekeeper(HubSource(hub.url, TOKEN), start_timeout=0.05)
    async with gate:
        await gate.refresh()
    assert re.search(r"/api/v1/widget-keys", caplog.text)
    assert re.search(r"(?<!/api)/v1/widget-keys", caplog.text)


FORGED = "\x1b[31m\nWARNING forged \u202e\x00"
ESCAPED_TOKEN = TOKEN.replace("_", r"\u005f")
ANSWERS = {
    "an escaped token": HubAnswer(401, f'{{"detail": "no such token: {ESCAPED_TOKEN}"}}'.encode()),
    "an escaped token in HTML": HubAnswer(502, f'<script>let was = "{ESCAPED_TOKEN}"</script>'.encode()),
    "control characters": json_answer({"detail": FORGED * 1000}, 500),
    "a foreign 304": HubAnswer(304, headers={"etag": f'"\x1b[31m\x9b{TOKEN}{"x" * 5000}"'}),
    "a redirect": HubAnswer(302, headers={"location": f"/\x1b[31m?token={TOKEN}&next={'x' * 5000}"}),
    "an encoding": HubAnswer(200, b"[]", {"content-encoding": f"\x1b[31m{TOKEN}{'x' * 5000}"}),
    "a phrase": HubAnswer(raw=b"HTTP/1.1 200 OK\x1b[31m\x00" + TOKEN.encode() + b"x" * 5000 + b"\r\n\r\n", hang_up=True),
    "names of fields": json_answer([{f"{FORGED}{TOKEN}{number}": 1 for number in range(1000)}]),
    "an id": json_answer([{"id": f"{FORGED}{TOKEN}{'x' * 5000}", "last8": 1}]),
    "an object": json_answer({TOKEN: 1}),
}


@pytest.mark.promise("mistakes are explained")
@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_a_hub_says_is_escaped_cut_and_masked(
    hub: FakeHub, caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    caplog.set_level(logging.DEBUG, "gatekeeper")
    hub.always(ANSWERS[answer])
    gate = Gatekeeper(HubSource(hub.url, TOKEN), start_timeout=0.05)
    async with gate, httpx.AsyncClient(transport=httpx.ASGITransport(health(gate)), base_url="http://test") as client:
        await gate.refresh()
        told = (gate.status.last_error, (await client.get("/")).json()["detail"], *gate.status.rejected, *caplog.messages)
    for said in told:
        assert said is not None
        assert said.isprintable()
        assert len(said) < 2500
        assert TOKEN not in said
        assert ESCAPED_TOKEN not in said


@pytest.mark.promise("mistakes are explained")
def test_mistakes_in_arguments_are_raised_before_the_start() -> None:
    with pytest.raises(ConfigError) as caught:
        HubSource("hub.example", "opaque token")
    assert len(caught.value.problems) >= 2
    with pytest.raises(ConfigError, match="account="):
        HubSource("https://hub.example", "opaque-token")
    assert "opaque-token" not in str(caught.value)
