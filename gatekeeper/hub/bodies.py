"""What a request asks for: the JSON bodies of create, update and usage."""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

import msgspec
from starlette.requests import Request

from gatekeeper.hub.problems import EntryError, Problem
from gatekeeper.matching.allowlist import MAX_ENTRIES, Allowlist

__all__ = ("KeyChange", "KeyDraft", "KeyUse", "read_body", "read_usage")

MAX_BODY_LENGTH: Final = 1_000_000  # Bytes; a name and 100 of the longest entries are a tenth of it.

MAX_ANSWERED: Final = 1000  # Entries that are answered one by one, although a key has 100 at most.
MAX_COUNT: Final = 1_000_000_000  # Uses in one report; 9 billion reports of that many still fit into 64 bits.

# PostgreSQL has no NUL in its texts, and a name that only some databases can hold is no name.
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
_Entry = Annotated[str, msgspec.Meta(extra_json_schema={"format": "gatekeeper-allowlist-entry"})]
_Entries = Annotated[list[_Entry], msgspec.Meta(extra_json_schema={"maxItems": MAX_ENTRIES})]


class KeyDraft(msgspec.Struct, frozen=True):
    """The body of a create.

    Attributes:
        name: what its owner calls the key.
        domain_allowlist: entries as written; none of them blocks the key.
        agent_id: the agent that the key is pinned to, or None.
    """

    name: _Text
    domain_allowlist: _Entries = []
    agent_id: _Text | None = None


class KeyChange(msgspec.Struct, frozen=True):
    """The body of an update: what is absent stays as it is.

    Attributes:
        name: the new name.
        domain_allowlist: the entries that replace all the present ones.
        agent_id: the agent to pin the key to; None unpins it.
        disabled: True revokes the key, False enables it again.
    """

    name: _Text | msgspec.UnsetType = msgspec.UNSET
    domain_allowlist: _Entries | msgspec.UnsetType = msgspec.UNSET
    agent_id: _Text | msgspec.UnsetType | None = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET


class KeyUse(msgspec.Struct, frozen=True):
    """What a usage report says about one key.

    Attributes:
        count: how often it was used since the last report.
        last_used_at: when it was last used, with a time zone.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
    last_used_at: Annotated[datetime, msgspec.Meta(tz=True)]


Keys = TypeVar("Keys", KeyDraft, KeyChange)
Body = TypeVar("Body")


async def read_body(request: Request, kind: type[Keys]) -> Keys:
    """Read the body of a create or an update.

    Args:
        request: whose body has not been read yet.
        kind: what it should be.

    Returns:
        The body, with every allowlist entry accepted.

    Raises:
        Problem: 415 for another type than JSON, 413 above 1 MB, 400 for what is not JSON or not what was expected.
        starlette.requests.ClientDisconnect: the client left before the end.
    """
    body = _decode(await _read(request), kind)
    if body.domain_allowlist is not msgspec.UNSET:
        _require_entries(body.domain_allowlist)
    return body


async def read_usage(request: Request) -> dict[str, KeyUse]:
    """Read the body of a usage report.

    Args:
        request: whose body has not been read yet.

    Returns:
        What it says about each key, by the key's id.

    Raises:
        Problem: 415, 413 and 400 as for `read_body`; the last lists every entry that is not as expected.
        starlette.requests.ClientDisconnect: the client left before the end.
    """
    entries = _decode(await _read(request), dict[str, Any])
    uses, errors = {}, []
    for key_id, entry in entries.items():
        try:
            uses[key_id] = msgspec.convert(entry, KeyUse)
        except msgspec.ValidationError as error:
            errors.append(EntryError(key_id, "malformed", f"{error}."))
    if errors:
        detail = f"{len(errors)} of the {len(entries)} entries are not as expected; `errors` says which and why."
        raise Problem(HTTPStatus.BAD_REQUEST, "usage_invalid", detail, errors=errors)
    return uses


async def _read(request: Request) -> bytearray:
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        detail = "Send the body as JSON, with the header Content-Type: application/json."
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_LENGTH:
            detail = f"The body is longer than {MAX_BODY_LENGTH:,} bytes."
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", detail)
    return body


def _decode(body: bytearray, kind: type[Body]) -> Body:
    try:
        # msgspec does not look at the text of fields that it skips, so the encoding is checked here.
        return msgspec.json.decode(body.decode(), type=kind)
    except msgspec.ValidationError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_request", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed_json", _what_is_malformed(error, len(body))) from None


def _what_is_malformed(error: Exception, length: int) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"The body is not UTF-8 (byte {error.start})."
    if isinstance(error, RecursionError):
        return "The body's arrays and objects are nested too deeply."
    # Only the end of the text has no position of its own in the message.
    return f"{error}." if "(byte " in str(error) else f"{error} (byte {length})."


def _require_entries(entries: Sequence[str]) -> None:
    if len(entries) > MAX_ANSWERED:
        detail = f"Expected `array` of length <= {MAX_ENTRIES} - at `$.domain_allowlist`."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_request", detail)
    rejected = Allowlist.parse(entries).rejected
    if rejected:
        errors = [EntryError(bad.entry, bad.reason, bad.hint) for bad in rejected]
        detail = f"{len(rejected)} of the {len(entries)} allowlist entries cannot be used; `errors` says which and why."
        raise Problem(HTTPStatus.BAD_REQUEST, "allowlist_invalid", detail, errors=errors)
