"""The table of `gatekeeper keys list`."""

from collections.abc import Iterable

from gatekeeper.cli.output import as_moment, plain
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("LEAST", "key_table")

TITLES = ("KEY", "NAME", "ALLOWLIST", "STATE")
WIDE_TITLES = ("ID", "AGENT", "LAST USED")
ACCOUNT_TITLE = "ACCOUNT"
NAME, ALLOWLIST = 1, 2
# The columns that may be folded, with their least widths. Names come first: a domain in one piece can be copied.
LEAST = {NAME: 12, ALLOWLIST: 20}


def key_table(rows: Iterable[WidgetKey], *, wide: bool, accounts: bool = False) -> list[tuple[str, ...]]:
    """Describe each key in cells, one entry of its allowlist a line.

    Args:
        rows: the keys.
        wide: whether to show ids, agents and times, too.
        accounts: whether to show the account of each key, too.

    Returns:
        The titles, and the cells of each key without control characters.
    """
    titles = (*TITLES, *WIDE_TITLES) if wide else TITLES
    if not accounts:
        return [titles, *(_cells(row, wide=wide) for row in rows)]
    return [(*titles, ACCOUNT_TITLE), *((*_cells(row, wide=wide), plain(row.account or "")) for row in rows)]


def _cells(row: WidgetKey, *, wide: bool) -> tuple[str, ...]:
    entries = "\n".join(map(plain, row.domain_allowlist)) or "none: blocked"
    state = "disabled" if row.disabled else "enabled"
    cells = (mask(row.last8), plain(row.name or ""), entries, state)
    if not wide:
        return cells
    if row.disabled:
        state = f"disabled since {plain(as_moment(str(row.disabled_at)))}"
    return (*cells[:-1], state, plain(row.id), plain(row.agent_id or ""), plain(as_moment(row.last_used_at or "never")))
