"""AccountLogger: a logger whose lines name an account."""

import logging
from typing import Any

__all__ = ("AccountLogger", "Logger")

_PREFIX = "gatekeeper: "


class AccountLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs "gatekeeper: acme: …" in place of "gatekeeper: …".

    Args:
        logger: where it is logged.
        account: the account.
    """

    def __init__(self, logger: logging.Logger, account: str) -> None:
        super().__init__(logger, {})
        self._account = account

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line of the account."""
        if self.isEnabledFor(level):
            text = str(msg).removeprefix(_PREFIX)
            text = f"{_PREFIX}%s: {text}"
            self.logger.log(level, text, self._account, *args, **kwargs)


Logger = logging.Logger | AccountLogger
