"""KeyFilter: which keys a list shows."""

from typing import NamedTuple

from gatekeeper.cli.output import USAGE, stop
from gatekeeper.cli.page_url import origin_at
from gatekeeper.errors import InvalidOrigin
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.matching.origins import Origin

__all__ = ("KeyFilter", "origin_of")


class KeyFilter(NamedTuple):
    """The conditions that a key has to meet. Each may be absent.

    Attributes:
        name: text in its name, in any case.
        allows: an origin that its allowlist allows.
        enabled: True for enabled keys, False for disabled ones.
        unused: whether it was never used.
    """

    name: str | None = None
    allows: Origin | None = None
    enabled: bool | None = None
    unused: bool = False

    def takes(self, row: WidgetKey) -> bool:
        """Whether a key meets all conditions."""
        return (
            (self.name is None or self.name.casefold() in (row.name or "").casefold())
            and (self.enabled is None or self.enabled is not row.disabled)
            and not (self.unused and row.last_used_at)
            and (self.allows is None or Allowlist.parse(row.domain_allowlist).allows(self.allows))
        )


def origin_of(page: str) -> Origin:
    """Read the origin of a page from its URL, or exit. A host alone is one of https."""
    try:
        return origin_at(page if "://" in page else f"https://{page}")
    except InvalidOrigin as error:
        stop(USAGE, f"--allows is {page!r}: expected the URL of a page, such as https://shop.acme.com ({error})")
