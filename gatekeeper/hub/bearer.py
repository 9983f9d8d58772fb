"""Authentication by the Authorization and X-Account-ID headers."""

import re
from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from gatekeeper.hub.problems import Problem
from gatekeeper.hub.tokens import Bearer, TokenStore, carries_account

__all__ = ("authenticate",)

# RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1).
_CREDENTIALS: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9\-._~+/]+=*)")
_CHALLENGE: Final = "WWW-Authenticate"
_ACCOUNT_HEADER: Final = "X-Account-ID"


async def authenticate(request: Request, tokens: TokenStore) -> Bearer:
    """Authenticate a request.

    Args:
        request: the request.
        tokens: the hub's tokens.

    Returns:
        The bearer of the token.

    Raises:
        Problem: 401 for a missing or unknown token, 400 if no account is named, 403 if the header names another account.
    """
    credentials = _CREDENTIALS.fullmatch(request.headers.get("Authorization", ""))
    if credentials is None:
        detail = "Send the hub's token: Authorization: Bearer sk_live_<account>_<random>."
        raise Problem(HTTPStatus.UNAUTHORIZED, "token_missing", detail, headers={_CHALLENGE: "Bearer"})
    named = {account for account in request.headers.getlist(_ACCOUNT_HEADER) if account}
    if not named and not carries_account(credentials[1]):
        raise Problem(HTTPStatus.BAD_REQUEST, "account_missing", f"Missing {_ACCOUNT_HEADER} header")
    bearer = await tokens.find(credentials[1])
    if bearer is None:
        challenge = {_CHALLENGE: 'Bearer error="invalid_token"'}
        raise Problem(HTTPStatus.UNAUTHORIZED, "token_unknown", "This hub does not know the token.", headers=challenge)
    if not named <= {bearer.account}:
        detail = f"The token does not belong to the account that {_ACCOUNT_HEADER} names."
        raise Problem(HTTPStatus.FORBIDDEN, "account_mismatch", detail)
    return bearer
