"""Faults of the network: a dead hub, cut and slow answers, certificates, names, proxies."""

import asyncio
import inspect
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from gatekeeper import Gatekeeper, GatekeeperMiddleware, HubSource, Reason
from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.certificates import Certificates
from tests.support.fault_proxy import Ending, FaultProxy, mute_address
from tests.support.guarded import guarded
from tests.support.namespaces import in_namespaces
from tests.support.rows import ORIGIN, TOKEN, as_json, client_key, row

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
LONG = 15.0  # seconds: a timeout for fast operations on a busy machine
LIST = as_json(*(row(number) for number in range(200)))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def app(scope: object, receive: object, send: Callable[..., object]) -> None:  # noqa: ARG001 - an ASGI app
    raise AssertionError("a request got through")


# Nothing answers


@pytest.mark.fault("hub down at start, without a snapshot")
@pytest.mark.parametrize("key", [None, client_key(1), "pk_live_other_12345678", "nonsense", "pk_live_acme_" + "x" * 5000])
async def test_without_a_list_every_request_gets_503_not_ready(
    key: str | None,
) -> None:
    async with guarded(f"http://127.0.0.1:{free_port()}") as it:
        transport = httpx.ASGITransport(GatekeeperMiddleware(app, gatekeeper=it.gate))
        async with httpx.AsyncClient(transport=transport, base_url="http://widgets.test") as browser:
            headers = {"origin": ORIGIN} if key is None else {"origin": ORIGIN, "data-client-key": key}
            answer = await browser.get("/", headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (503, "not_ready")
        assert int(answer.headers["retry-after"]) >= 1
        assert it.status.state == "never_loaded"


@pytest.mark.fault("hub down at start, without a snapshot")
async def test_without_a_list_the_hub_is_retried_within_two_seconds(hub: FakeHub, proxy: FaultProxy) -> None:
    proxy.refuse()
    async with guarded(proxy.url, jitter=1.0) as it:
        await it.time.advance(60)
        assert it.reason() is Reason.NOT_READY
        assert it.status.counters["refresh_failed"] >= 30
        proxy.heal()
        await it.time.advance(2)
        assert it.allows(1)
        assert len(hub.requests) == 1


@pytest.mark.fault("hub down later")
async def test_a_hub_that_is_gone_changes_no_decision(hub: FakeHub, proxy: FaultProxy) -> None:
    async with guarded(proxy.url) as it:
        proxy.refuse()
        for _ in range(3):
            assert "127.0.0.1" in await it.fail()
            assert it.allows(1)
        it.time.now += 61
        assert it.status.age == 61
        assert (it.status.state, it.allows(1)) == ("degraded", True)
        proxy.heal()
        hub.lists(row(1), row(2))
        await it.refresh()
        assert it.allows(1, 2)
        assert it.status.state == "fresh"


@pytest.mark.fault("hub down later")
async def test_an_unreachable_address_is_named(hub: FakeHub, proxy: FaultProxy) -> None:
    # An address for documentation (RFC 5737), from a socket bound to the loopback interface: no packet leaves the machine.
    def unroutable() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address="127.0.0.1"), timeout=2)

    async with guarded("http://192.0.2.1:9", source={"http": unroutable}) as it:
        assert it.reason() is Reason.NOT_READY
        assert "192.0.2.1" in it.last_error
        assert hub.requests == []
        assert proxy.connections == 0


@pytest.mark.fault("hub down later")
async def test_a_connection_that_hangs_times_out() -> None:
    with mute_address() as url:
        began = time.monotonic()
        async with guarded(url, source={"timeout": 0.5}) as it:
            assert 0.5 <= time.monotonic() - began < LONG
            assert "ConnectTimeout" in it.last_error
            assert it.reason() is Reason.NOT_READY


@pytest.mark.fault("hub down later")
def test_connections_time_out_after_5_s_and_fetches_after_30_s() -> None:
    assert inspect.signature(HubSource).parameters["timeout"].default == 5.0
    assert inspect.signature(Gatekeeper).parameters["fetch_timeout"].default == 30.0


@pytest.mark.fault("hub down later")
async def test_known_keys_do_not_wait_for_a_silent_hub(hub: FakeHub, proxy: FaultProxy) -> None:
    async with guarded(proxy.url) as it, anyio.create_task_group() as group:
        proxy.be_silent()
        asked = len(hub.requests)
        group.start_soon(it.gate.refresh)
        await hub.asked(asked + 1)
        with anyio.fail_after(LONG):
            for _ in range(100):
                assert (await it.gate.check(client_key(1), ORIGIN)).allowed
        assert it.status.last_error is None  # the fetch is still running
        group.cancel_scope.cancel()


# Cut and slow answers


@pytest.mark.fault("list cut off")
@pytest.mark.parametrize("ending", ["fin", "reset"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
async def test_a_list_that_is_cut_changes_nothing(hub: FakeHub, proxy: FaultProxy, ending: Ending, share: float) -> None:
    async with guarded(proxy.url) as it:
        hub.always(HubAnswer(200, LIST))
        proxy.cut(int(share * len(LIST)), ending)
        assert await it.fail()
        assert (it.status.keys, it.allows(1)) == (1, True)
        proxy.heal()
        await it.refresh()
        assert it.allows(*range(200))


@pytest.mark.fault("list cut off")
@pytest.mark.parametrize(
    "answer",
    [
        HubAnswer(200, LIST[:-100]),
        HubAnswer(200, LIST[: LIST.index(b"},") + 1] + b"]", {"content-length": str(len(LIST))}, hang_up=True),
        HubAnswer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[{}, \r\n", hang_up=True),
        HubAnswer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n", hang_up=True),
        HubAnswer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n[]", hang_up=True),
        HubAnswer(raw=b"HTTP/1.1 200 OK\r\n\r\n" + LIST[:-3], hang_up=True),
        HubAnswer(raw=b"HTTP/1.1 200", hang_up=True),
    ],
    ids=["truncated", "Content-Length too long", "chunks end", "no chunk", "length", "no length", "head"],
)
async def test_a_list_that_lacks_bytes_changes_nothing(hub: FakeHub, answer: HubAnswer) -> None:
    async with guarded(hub) as it:
        hub.then(answer)
        assert await it.fail()
        assert (it.status.keys, it.allows(1)) == (1, True)


@pytest.mark.fault("slow answer")
async def test_a_dripping_list_is_cut_and_its_connection_dropped(hub: FakeHub) -> None:
    async with guarded(hub, fetch_timeout=1.0) as it:
        hub.then(HubAnswer(200, LIST, drip=0.05))
        began = time.monotonic()
        assert "within 1 s" in await it.fail()
        assert time.monotonic() - began < LONG
        await it.refresh()
        dripping, after = hub.requests[-2:]
        assert dripping.port != after.port
        assert it.allows(1)


@pytest.mark.fault("slow answer")
async def test_dripping_headers_are_cut_at_the_deadline(hub: FakeHub, proxy: FaultProxy) -> None:
    async with guarded(proxy.url, fetch_timeout=1.0) as it:
        proxy.drip(0.25)
        assert "within 1 s" in await it.fail()
        proxy.heal()
        await it.refresh()
        assert hub.requests[-2].port != hub.requests[-1].port
        assert it.allows(1)


# Certificates


@contextmanager
def served(tls: ssl.SSLContext) -> Iterator[FakeHub]:
    with FakeHub(tls=tls) as hub:
        hub.lists(row(1))
        yield hub


@pytest.mark.fault("TLS error")
async def test_a_private_certificate_authority_can_be_trusted() -> None:
    certificates = Certificates()
    with served(certificates.right()) as hub:
        async with guarded(hub.url, source={"http": certificates.client}) as it:
            assert it.allows(1)


@pytest.mark.fault("TLS error")
@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("expired", "certificate has expired"),
        ("of_tomorrow", "not yet valid"),
        ("of_another_host", "IP address mismatch"),
        ("of_an_unknown_authority", "unable to get local issuer certificate|self.signed certificate"),
        ("of_old", "(?i)ConnectError|protocol|version"),
    ],
)
async def test_a_bad_certificate_is_named_and_nothing_is_sent(mistake: str, said: str) -> None:
    certificates = Certificates()
    with served(getattr(certificates, mistake)()) as hub:
        async with guarded(hub.url, source={"http": certificates.client}) as it:
            assert it.reason() is Reason.NOT_READY
            assert re.search(said, it.last_error), it.last_error
            assert await it.fail()
        assert hub.requests == []


@pytest.mark.fault("TLS error")
async def test_a_list_outlives_the_expiry_of_the_hubs_certificate() -> None:
    certificates = Certificates()
    good, expired = certificates.right(), certificates.expired()
    with served(good) as first, served(expired) as second, FaultProxy(first.url) as proxy:
        async with guarded(proxy.url, source={"http": certificates.client}) as it:
            assert it.allows(1)
            proxy.lead_to(second.url)
            assert "expired" in await it.fail()
            assert it.allows(1)
            assert second.requests == []


@pytest.mark.fault("TLS error")
async def test_https_never_falls_back_to_plain_http(hub: FakeHub) -> None:
    async with guarded(hub.url.replace("http://", "https://"), source={"timeout": 1.0}) as it:
        assert it.reason() is Reason.NOT_READY
        assert "https://" in it.last_error
        assert hub.requests == []


# Name resolution


@pytest.mark.process
@pytest.mark.fault("name resolution")
@pytest.mark.parametrize("fault", ["unknown", "silent", "moved", "ipv6_only", "never_there"])
def test_name_resolution_failures_change_no_decision(fault: str) -> None:
    assert in_namespaces("tests.faults.names", fault) == "well"


# Proxies


@pytest.mark.fault("proxy error")
async def test_a_failing_proxy_is_named_and_changes_nothing(hub: FakeHub) -> None:
    with FakeHub() as proxy:
        proxy.lists(row(1))
        used = {"url": proxy.url}

        def client() -> httpx.AsyncClient:
            return httpx.AsyncClient(proxy=used["url"], timeout=60)

        async with guarded(hub.url, source={"http": client}) as it:
            assert it.allows(1)
            proxy.always(HubAnswer(407, b"who are you?"))
            assert "407" in await it.fail()
            assert it.allows(1)
            proxy.always(HubAnswer(raw=b"", hang_up=True))
            assert await it.fail()
            assert it.allows(1)
        assert hub.requests == []


@pytest.mark.fault("proxy error")
async def test_a_refused_tunnel_is_named() -> None:
    with FakeHub() as proxy:
        proxy.always(HubAnswer(407, b"", {"proxy-authenticate": "Basic"}, hang_up=True))

        def client() -> httpx.AsyncClient:
            return httpx.AsyncClient(proxy=proxy.url, timeout=60)

        async with guarded("https://hub.example", source={"http": client}) as it:
            assert "407" in it.last_error
            assert [request.method for request in proxy.requests] == ["CONNECT"]
            assert TOKEN not in str(proxy.requests)


@pytest.mark.fault("proxy error")
async def test_a_proxy_that_is_down_is_named() -> None:
    port = free_port()

    def client() -> httpx.AsyncClient:
        return httpx.AsyncClient(proxy=f"http://127.0.0.1:{port}", timeout=60)

    async with guarded("http://hub.example", source={"http": client}) as it:
        assert "ConnectError" in it.last_error
        assert it.reason() is Reason.NOT_READY


@pytest.mark.fault("proxy error")
async def test_proxies_of_the_environment_are_not_used(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with guarded(HubSource(hub.url, TOKEN)) as it:
        assert it.allows(1)


# Shutdown during a fetch


@pytest.mark.promise("shutdown is prompt")
@pytest.mark.parametrize("fault", ["silent", "dripping", "mute"])
async def test_a_gate_stops_within_a_second_during_a_fetch(hub: FakeHub, proxy: FaultProxy, fault: str) -> None:
    hub.always(HubAnswer(200, LIST))
    with mute_address() as mute:
        if fault == "silent":
            proxy.be_silent()
        else:
            proxy.drip(0.05)
        gate = Gatekeeper(HubSource(mute if fault == "mute" else proxy.url, TOKEN, timeout=60), start_timeout=0.3)
        before = asyncio.all_tasks()
        async with gate:
            assert gate.status.state == "never_loaded"
            began = time.monotonic()
        assert time.monotonic() - began < 30
        assert asyncio.all_tasks() == before
        assert gate.status.keys == 0


def run_until_asked(script: Path, how: str, hub: FakeHub) -> str:
    """Run a script until it has asked the hub, then let it end; return its output."""
    asked = len(hub.requests)
    command = [sys.executable, "-W", "error", str(script), how]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        hub.wait_for_requests(asked + 1)
        said, _ = process.communicate("\n", timeout=LONG)
        assert process.returncode == 0, said
        return said


@pytest.mark.process
@pytest.mark.promise("shutdown is prompt")
def test_a_process_that_ends_during_a_fetch_prints_nothing(hub: FakeHub, tmp_path: Path) -> None:
    script = tmp_path / "ending.py"
    script.write_text(
        f"""
import asyncio, sys
from gatekeeper import Gatekeeper, HubSource
gate = Gatekeeper(HubSource({hub.url!r}, {TOKEN!r}, timeout=60), start_timeout=0.1)
async def entered():
    async with gate:
        await asyncio.to_thread(sys.stdin.readline)
async def left_running():
    await gate.check("pk_live_acme_00000001", "https://acme.com")
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(globals()[sys.argv[1]]())
""",
        encoding="utf-8",
    )
    for how in ("entered", "left_running"):
        with hub.held():
            said = run_until_asked(script, how, hub)
        assert said == ""
