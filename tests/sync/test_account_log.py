"""AccountLogger: lines that name an account."""

import logging

import pytest

from gatekeeper.sync.account_log import AccountLogger


def test_lines_name_the_account(caplog: pytest.LogCaptureFixture) -> None:
    log = AccountLogger(logging.getLogger("gatekeeper"), "100%")
    with caplog.at_level(logging.INFO, "gatekeeper"):
        log.info("gatekeeper: %d keys", 5)
        log.log(logging.ERROR, "another line")
        log.debug("gatekeeper: below the level")
        log.warning("gatekeeper: it has failed", exc_info=OSError("down"))
    said = [each.getMessage() for each in caplog.records]
    assert said == ["gatekeeper: 100%: 5 keys", "gatekeeper: 100%: another line", "gatekeeper: 100%: it has failed"]
    assert caplog.records[-1].exc_info is not None
