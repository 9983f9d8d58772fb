"""The demo's self-test, over real sockets, passing and failing."""

import pytest

from gatekeeper.demo import Demo, running_demo, self_test


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.asyncio
async def test_every_check_of_a_healthy_demo_passes(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    async with running_demo(fixed_ports=False, refresh_interval=0.1) as demo:
        assert await self_test(demo, lines.append), lines
        assert not demo.headers_file.stat().st_mode & 0o077
        directory = demo.headers_file.parent
    assert len(lines) == 23
    assert all(line.startswith("ok ") for line in lines)
    assert not directory.exists()
    assert "scope admin" not in caplog.text


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_failed_check_is_named_and_does_not_stop_the_others() -> None:
    lines: list[str] = []
    async with running_demo(fixed_ports=False, refresh_interval=0.1) as demo:
        crossed: Demo = demo._replace(widget_url=demo.allowed_url)
        assert not await self_test(crossed, lines.append)
    assert len(lines) == 23
    assert any(line.startswith("FAILED  An allowed page") for line in lines)
    assert any(line.startswith("ok      The customer's page") for line in lines)
