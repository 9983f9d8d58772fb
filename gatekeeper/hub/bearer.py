"""Authentication by the Authorization and X-Account-ID headers, and the scope of tokens."""

import re
from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from gatekeeper.hub.problems import Problem
from gatekeeper.hub.tokens import Bearer, TokenScope, TokenStore, needs_account

__all__ = ("authenticate", "require_one_account", "require_scope", "unknown_token")

# RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1).
_CREDENTIALS: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9\-._~+/]+=*)")
_CHALLENGE: Final = "WWW-Authenticate"
_ACCOUNT_HEADER: Final = "X-Account-ID"
_MINT: Final = "Mint such a token: gatekeeper hub token create"


async def authenticate(request: Request, tokens: TokenStore) -> Bearer:
    """Authenticate a request.

    Args:
        request: the request.
        tokens: the hub's tokens.

    Returns:
        The bearer of the token.

    Raises:
        Problem: 401 for a missing or unknown token, 400 if no account is named, 403 if the header names another account, or
            one beside a token for all accounts.
    """
    credentials = _CREDENTIALS.fullmatch(request.headers.get("Authorization", ""))
    if credentials is None:
        detail = "Send the hub's token: Authorization: Bearer sk_live_<account>_<random>."
        raise Problem(HTTPStatus.UNAUTHORIZED, "token_missing", detail, headers={_CHALLENGE: "Bearer"})
    named = {account for account in request.headers.getlist(_ACCOUNT_HEADER) if account}
    if not named and needs_account(credentials[1]):
        raise Problem(HTTPStatus.BAD_REQUEST, "account_missing", f"Missing {_ACCOUNT_HEADER} header")
    bearer = await tokens.find(credentials[1])
    if bearer is None:
        raise unknown_token()
    if named and bearer.is_for_all:
        detail = f"The token is for all accounts, not for the one that {_ACCOUNT_HEADER} names. Leave the header out."
        raise Problem(HTTPStatus.FORBIDDEN, "account_mismatch", detail)
    if not named <= {bearer.account}:
        detail = f"The token does not belong to the account that {_ACCOUNT_HEADER} names."
        raise Problem(HTTPStatus.FORBIDDEN, "account_mismatch", detail)
    return bearer


def unknown_token() -> Problem:
    """Make the refusal of a token that is unknown, or was revoked.

    Returns:
        A 401, to raise.
    """
    challenge = {_CHALLENGE: 'Bearer error="invalid_token"'}
    return Problem(HTTPStatus.UNAUTHORIZED, "token_unknown", "This hub does not know the token.", headers=challenge)


def require_scope(bearer: Bearer, scope: TokenScope) -> None:
    """Refuse a bearer whose token may not do this.

    Args:
        bearer: the bearer of the token.
        scope: the scope that the request needs. The scope admin includes the others.

    Raises:
        Problem: 403 that names the scope, with the challenge of RFC 6750 section 3.1.
    """
    if bearer.scope not in {scope, "admin"}:
        detail = f"The token has the scope {bearer.scope}, and this request needs {scope}. {_MINT} --scope {scope}."
        raise _insufficient(detail, scope)


def require_one_account(bearer: Bearer, scope: TokenScope) -> None:
    """Refuse a bearer whose token is for all accounts, whatever its scope.

    Args:
        bearer: the bearer of the token.
        scope: the scope that the request needs of a token of one account.

    Raises:
        Problem: as of `require_scope`.
    """
    if bearer.is_for_all:
        # Clients show 200 characters of it, which have to include the command.
        detail = "The token is for all accounts, whose keys it reads and reports on. This needs one of a single account. "
        raise _insufficient(f"{detail}{_MINT} --account … --scope {scope}.", scope)


def _insufficient(detail: str, scope: TokenScope) -> Problem:
    challenge = {_CHALLENGE: f'Bearer error="insufficient_scope", scope="{scope}"'}
    return Problem(HTTPStatus.FORBIDDEN, "scope_insufficient", detail, headers=challenge)
