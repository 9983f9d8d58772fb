"""Find keys by id, last 8 characters, or the whole key."""

from collections.abc import Iterable

from gatekeeper.cli.connection import with_options
from gatekeeper.cli.output import REFUSED, USAGE, plain, stop, warn
from gatekeeper.client import HubClient
from gatekeeper.errors import InvalidClientKey
from gatekeeper.keys.client_key import ClientKey, mask
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.quoting import quoted

__all__ = ("fetch_keys", "find", "find_one", "require_key", "require_one", "whole_key")


def fetch_keys(client: HubClient) -> list[WidgetKey]:
    """List the keys of the token, and warn of malformed rows."""
    rows = client.widget_keys.list()
    for problem in rows.rejected:
        warn(f"left out: {with_options(problem)}")
    return rows


def whole_key(named: str) -> ClientKey | None:
    """The client key, if this is a whole one."""
    try:
        return ClientKey.parse(named)
    except InvalidClientKey:
        return None


def find(rows: Iterable[WidgetKey], named: str, *, account: str | None) -> list[WidgetKey]:
    """Find the row with this id, otherwise those with this end.

    Args:
        rows: the rows of the account, or of all accounts.
        named: an id, the last 8 characters of a key, or a whole key.
        account: the account of the rows, whatever they say; None if it is not known. Then a row that names its account is
            found only by a whole key that may be of that account.

    Returns:
        The rows; several only if their keys have the same last 8 characters.
    """
    key = whole_key(named)
    last8 = named.removeprefix(mask("")) if key is None else key.last8
    digests = None if key is None else (None, key.sha256())
    by_last8 = []
    for row in rows:
        if row.id == named:
            return [row]
        is_theirs = key is None or account is not None or row.account is None or key.may_be_of(row.account)
        if row.last8 == last8 and is_theirs and (digests is None or row.key_sha256 in digests):
            by_last8.append(row)
    return by_last8


def find_one(rows: Iterable[WidgetKey], named: str, *, account: str | None) -> WidgetKey | None:
    """Find a row as `find` does, or exit if there are several."""
    found = find(rows, named, account=account)
    if len(found) > 1:
        ids = ", ".join(plain(row.id) for row in found)
        stop(USAGE, f"{len(found)} keys end in {found[0].last8}; name one by its id: {ids}")
    return found[0] if found else None


def require_key(client: HubClient, named: str) -> WidgetKey:
    """Find one key of the client's account as `find` does, or exit."""
    return require_one(fetch_keys(client), named, account=client.account)


def require_one(rows: Iterable[WidgetKey], named: str, *, account: str | None) -> WidgetKey:
    """Find one row as `find` does, or exit."""
    found = find_one(rows, named, account=account)
    if found is None:
        where = "no account has a" if account is None else "the account has no"
        stop(REFUSED, f"{where} key with the id or the last 8 characters {quoted(named)}")
    return found
