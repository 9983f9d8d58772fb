"""The hub's base URL, and the token and account of a client."""

from collections.abc import Iterator

import httpx

from gatekeeper.errors import ConfigError
from gatekeeper.matching.hosts import MAX_PORT
from gatekeeper.quoting import quoted

__all__ = (
    "ALL_ACCOUNTS_PREFIX",
    "TOKEN_PREFIX",
    "account_of",
    "address_problems",
    "collection_url",
    "covers_all_accounts",
    "require_hub",
)

TOKEN_PREFIX = "sk_live_"  # noqa: S105 - the public prefix of a token of one account
ALL_ACCOUNTS_PREFIX = "sk_all_"  # that of a token that reads the keys of all accounts


def account_of(token: str) -> str | None:
    """The account that a bearer token carries, or None. It ends at the last underscore."""
    account, _, random = token.removeprefix(TOKEN_PREFIX).rpartition("_")
    return account if token.startswith(TOKEN_PREFIX) and account and random else None


def covers_all_accounts(token: str) -> bool:
    """Whether a bearer token reads the keys of all accounts: `sk_all_…`."""
    return token.startswith(ALL_ACCOUNTS_PREFIX) and token != ALL_ACCOUNTS_PREFIX


def require_hub(base_url: str, token: str, account: str | None) -> None:
    """Check the arguments of a client before creating it.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """
    problems = tuple(address_problems(base_url, token, account))
    if problems:
        raise ConfigError(problems)


def address_problems(base_url: str, token: str, account: str | None) -> Iterator[str]:
    """Yield one sentence for each mistake in the arguments of a client."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        yield f"base_url is not a URL ({error}): expected something like 'https://hub.example'"
    else:
        if url.userinfo or "?" in base_url or "#" in base_url:
            yield "base_url has a user name, a query or a fragment: expected only scheme, host, port and path"
        elif url.scheme not in ("https", "http") or not url.host or (url.port or 0) > MAX_PORT:
            yield f"base_url is {quoted(base_url)}: expected something like 'https://hub.example'"
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        yield "token is empty or has characters that no header can carry: expected 'sk_live_<account>_…' or 'sk_all_…'"
    elif covers_all_accounts(token):
        if account is not None:
            yield f"account is {quoted(account)}, and the token is for all accounts (sk_all_…): pass one or the other"
    elif account is None and account_of(token) is None:
        yield "token carries no account (it is neither sk_live_<account>_… nor sk_all_…, for all accounts): pass account="
    if account is not None and not (account.isascii() and account.isprintable() and account.strip() == account != ""):
        yield f"account is {quoted(account)}: expected a name such as 'acme'"


def collection_url(base_url: str, name: str) -> str:
    """The URL of a hub's "widget-keys" or "gates". The base URL may include /api and /v1."""
    url = httpx.URL(base_url)
    path = url.path.rstrip("/")
    if not path.endswith("/v1"):
        path += "/v1" if path.endswith("/api") else "/api/v1"
    return str(url.copy_with(path=f"{path}/{name}"))
