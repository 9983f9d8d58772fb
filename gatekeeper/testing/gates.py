"""Gates for tests, which need neither a hub nor a start."""

import logging
from collections.abc import Collection
from typing import Final

from gatekeeper.errors import ConfigError
from gatekeeper.gate.decisions import Conflict, Decision
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.gate.page import Page, RequestIdentity, read_page
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.testing.rows import DEFAULT_KEY, client_key, row

__all__ = ("allow_all", "gate_for")

logger = logging.getLogger("gatekeeper")

GRANT_SECRETS: Final = ("gatekeeper.testing: not a secret",)
DISABLED_AT: Final = "2026-01-02T03:04:05Z"
ALLOWED_PAGE: Final = b"https://customer.example"


def gate_for(
    allow: Collection[str] = (),
    *,
    key: str = DEFAULT_KEY,
    agent_id: str | None = None,
    disabled: bool = False,
    https_only: bool = False,
) -> Gatekeeper:
    """Make a gate with one key.

    `headers(origin)` makes the headers of its requests. For several keys, use `Gatekeeper.from_rows([row(…), row(…)])`.

    Args:
        allow: the key's allowed domains, such as ["https://shop.acme.com"].
        key: the name of its row, which decides the client key.
        agent_id: the agent that the key is pinned to.
        disabled: whether the key is revoked.
        https_only: as for Gatekeeper.

    Returns:
        The gate. It decides as any other, and can sign the grants of frames.

    Raises:
        ConfigError: with one sentence for each entry that no gate accepts.
    """
    if isinstance(allow, str):
        raise ConfigError([f"allow is one string, {allow!r}: expected a list of entries, such as [{allow!r}]"])
    if rejected := Allowlist.parse(allow).rejected:
        raise ConfigError([f"allow has {each.entry!r}: {each.hint}" for each in rejected])
    rows = [row(key, *allow, agent_id=agent_id, disabled_at=DISABLED_AT if disabled else None)]
    return Gatekeeper.from_rows(rows, https_only=https_only, grant_secrets=GRANT_SECRETS)


def allow_all(*, agent_id: str | None = None, https_only: bool = False) -> Gatekeeper:
    """Make a gate that lets every request through.

    It decides each request as if it came from one allowed page with one valid key, whatever key, page or grant the request
    names, and if it names none. So handlers get an allowed decision with a key. Never use it outside of tests: it guards
    nothing, and says so in a warning in the log of `gatekeeper`.

    Args:
        agent_id: the agent that the key is pinned to.
        https_only: as for Gatekeeper. A CorsPolicy with credentials needs it.

    Returns:
        The gate.
    """
    logger.warning("gatekeeper.testing.allow_all() lets every request through: this gate is for tests only")
    allowed = row(DEFAULT_KEY, ALLOWED_PAGE.decode("ascii"), agent_id=agent_id)
    return _AllowAll.from_rows([allowed], https_only=https_only, grant_secrets=GRANT_SECRETS)


class _AllowAll(Gatekeeper):
    """Replaces what a request names before it is decided."""

    _identity: RequestIdentity = (client_key().encode("ascii"), ALLOWED_PAGE)

    def decide(
        self,
        client_key: str | bytes | Conflict | None,  # noqa: ARG002 - replaced
        origin: str | bytes | Conflict | None,  # noqa: ARG002 - replaced
        *,
        referer: str | bytes | Conflict | None = None,  # noqa: ARG002 - replaced
        grant: str | bytes | Conflict | None = None,  # noqa: ARG002 - replaced
    ) -> Decision:
        """See Gatekeeper."""
        return super().decide(*self._identity)

    async def check_request(self, identity: RequestIdentity) -> Decision:  # noqa: ARG002 - replaced
        """See Gatekeeper."""
        return await super().check_request(self._identity)

    async def grant(self, client_key: bytes | Conflict | None, page: Page) -> Decision:  # noqa: ARG002 - replaced
        """See Gatekeeper."""
        key, origin = self._identity
        return await super().grant(key, read_page(origin, None))
