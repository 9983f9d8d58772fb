"""The JSON bodies of requests: creates, updates, and the reports of gates."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

import msgspec
from starlette.requests import Request

from gatekeeper.hub.problems import EntryError, Problem
from gatekeeper.hub.rows import CreatedKeyRow
from gatekeeper.matching.allowlist import MAX_ENTRIES, Allowlist
from gatekeeper.matching.origins import MAX_ORIGIN_LENGTH
from gatekeeper.quoting import quoted

__all__ = (
    "MAX_REPORTED",
    "SET_BY_HUB",
    "KeyChange",
    "KeyDraft",
    "KeyUse",
    "ReportedGate",
    "ReportedPage",
    "read_body",
    "read_gate",
    "read_refused",
    "read_usage",
)

MAX_BODY_LENGTH: Final = 1_000_000  # Bytes; a name and 100 of the longest entries take a tenth of it.

MAX_ANSWERED: Final = 1000  # Entries; an answer lists up to this many bad ones. A key has at most 100.
MAX_UNKNOWN: Final = 5  # Unknown fields that an answer names.
MAX_FIELD: Final = 40  # Characters of an unknown field in an answer.
MAX_COUNT: Final = 1_000_000_000  # Requests in one entry of a report.
MAX_REPORTED: Final = 1000  # Refused pages in one report.
MAX_AGE: Final = 10_000_000_000  # Seconds, as the age of a list.

# PostgreSQL cannot store NUL in text, so the hub refuses it on every database.
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
_Entry = Annotated[str, msgspec.Meta(extra_json_schema={"format": "gatekeeper-allowlist-entry"})]
_Entries = Annotated[list[_Entry], msgspec.Meta(extra_json_schema={"maxItems": MAX_ENTRIES})]
_Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
# A pattern finds "$" before a line break at the end, too. Of an origin it checks the characters only: a newer gate may
# accept origins that this hub does not know.
_SentOrigin = Annotated[
    str,
    msgspec.Meta(max_length=MAX_ORIGIN_LENGTH, pattern=r"""^(null|[a-z][a-z0-9+.-]*://[!"$-.0->A-\[\]-~]+)(?!\n)$"""),
]
_Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}(?!\n)$")]
_AdvisedEntry = Annotated[str, msgspec.Meta(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")]
_GateId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?!\n)$")]
_Version = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,40}(?!\n)$")]
_Age = Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE)]
_KeyCount = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
_Host = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,255}(?!\n)$")]


class KeyDraft(msgspec.Struct, frozen=True):
    """The body of a create.

    Attributes:
        name: the name that the owner gives the key.
        domain_allowlist: entries as written; an empty list blocks the key.
        agent_id: the agent to pin the key to, or None.
    """

    name: _Text
    domain_allowlist: _Entries = []
    agent_id: _Text | None = None


class KeyChange(msgspec.Struct, frozen=True):
    """The body of an update; absent fields stay as they are.

    Attributes:
        name: the new name.
        domain_allowlist: the entries that replace all present ones.
        agent_id: the agent to pin the key to; None unpins it.
        disabled: True revokes the key, False enables it again.
    """

    name: _Text | msgspec.UnsetType = msgspec.UNSET
    domain_allowlist: _Entries | msgspec.UnsetType = msgspec.UNSET
    agent_id: _Text | msgspec.UnsetType | None = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET


# Fields of an answered row that no body sets. They are ignored, so that a client may change a row and send it back.
SET_BY_HUB: Final = tuple(field for field in CreatedKeyRow.__struct_fields__ if field not in KeyChange.__struct_fields__)


class KeyUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The use of one key in a usage report.

    Attributes:
        count: the number of uses since the last report.
        last_used_at: the time of the last use, with a time zone.
    """

    count: _Count
    last_used_at: _Moment


class ReportedPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A refused page in the report of a gate.

    Attributes:
        key_id: the key's id.
        origin: the origin of the page, "null" included; None for none.
        reason: why it was refused, as a word for programs.
        count: the number of refused requests since the last report.
        first_at: the time of the first one, with a time zone.
        last_at: the time of the last one, with a time zone, not before the first.
        entry: the entry that would allow the page, or None.
    """

    key_id: str
    origin: _SentOrigin | None
    reason: _Word
    count: _Count
    first_at: _Moment
    last_at: _Moment
    entry: _AdvisedEntry | None = None

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        if self.last_at < self.first_at:
            problem = "Expected `last_at` at or after `first_at`"
            raise ValueError(problem)


class ReportedGate(msgspec.Struct, frozen=True):
    """The report of a gate on itself. Other fields are ignored, as a newer gate may send more.

    Attributes:
        id: random, and the same for as long as the gate's process runs.
        version: of gatekeeper.
        is_live: whether the gate is answered as soon as the list changes; otherwise it polls.
        state: of its list, as a word for programs.
        list_age: seconds since its list was asked for; None before the first one.
        keys: the number of keys in its list.
        host: the name of its machine, or None.
    """

    id: _GateId
    version: _Version
    is_live: bool
    state: _Word
    list_age: _Age | None = None
    keys: _KeyCount = 0
    host: _Host | None = None


Keys = TypeVar("Keys", KeyDraft, KeyChange)
Reported = TypeVar("Reported", KeyUse, ReportedPage)
Body = TypeVar("Body")


async def read_body(request: Request, kind: type[Keys]) -> Keys:
    """Read the body of a create or an update.

    Args:
        request: a request whose body has not been read yet.
        kind: the type of the body.

    Returns:
        The body, whose allowlist entries are all valid.

    Raises:
        Problem: 415 for a content type other than JSON, 413 above 1 MB, 400 for malformed JSON, an invalid body or a field
            that is unknown. Fields that the hub sets are ignored.
        starlette.requests.ClientDisconnect: the client disconnected before the end of the body.
    """
    content = await _read(request)
    unknown = _describe_unknown(_decode(content, dict[str, msgspec.Raw]), kind, SET_BY_HUB)
    if unknown:
        raise Problem(HTTPStatus.BAD_REQUEST, "unknown_field", unknown)
    body = _decode(content, kind)
    if body.domain_allowlist is not msgspec.UNSET:
        _require_entries(body.domain_allowlist)
    return body


async def read_usage(request: Request) -> dict[str, KeyUse]:
    """Read the body of a usage report.

    Args:
        request: a request whose body has not been read yet.

    Returns:
        The reported use by key id.

    Raises:
        Problem: 415, 413 or 400 as for `read_body`; the 400 lists the first 1,000 invalid entries.
        starlette.requests.ClientDisconnect: the client disconnected before the end of the body.
    """
    body = await _read(request)
    # A report of 10,000 keys takes 2 ms this way, and 16 ms in the other, which names what is wrong.
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(body.decode(), type=dict[str, KeyUse])
    return _convert_each(_decode(body, dict[str, Any]), KeyUse, "usage_invalid")


async def read_refused(request: Request) -> list[ReportedPage]:
    """Read the body of a report on refused pages.

    Args:
        request: a request whose body has not been read yet.

    Returns:
        The reported pages, at most 1,000.

    Raises:
        Problem: 415, 413 or 400 as for `read_body`; the 400 lists the invalid pages by their positions.
        starlette.requests.ClientDisconnect: the client disconnected before the end of the body.
    """
    pages = _decode(await _read(request), list[Any])
    if len(pages) > MAX_REPORTED:
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_request", f"Expected `array` of length <= {MAX_REPORTED}.")
    numbered = {str(position): page for position, page in enumerate(pages)}
    return list(_convert_each(numbered, ReportedPage, "refused_invalid").values())


async def read_gate(request: Request) -> ReportedGate:
    """Read the body of a gate's report on itself.

    Args:
        request: a request whose body has not been read yet.

    Returns:
        The report.

    Raises:
        Problem: 415, 413 or 400 as for `read_body`, but no 400 for an unknown field.
        starlette.requests.ClientDisconnect: the client disconnected before the end of the body.
    """
    return _decode(await _read(request), ReportedGate)


def _convert_each(entries: Mapping[str, Any], kind: type[Reported], code: str) -> dict[str, Reported]:
    """Convert the entries of a report, or raise a Problem with this code that lists the first invalid ones."""
    converted: dict[str, Reported] = {}
    errors: list[EntryError] = []
    for name, entry in entries.items():
        try:
            converted[name] = msgspec.convert(entry, kind)
        except msgspec.ValidationError as error:
            if len(errors) < MAX_ANSWERED:
                unknown = _describe_unknown(entry, kind) if isinstance(entry, dict) else None
                errors.append(EntryError(name, "unknown_field" if unknown else "malformed", unknown or f"{error}."))
    if errors:
        bad = len(entries) - len(converted)
        detail = f"{bad} of the {len(entries)} entries are invalid; `errors` lists them with the reasons."
        raise Problem(HTTPStatus.BAD_REQUEST, code, detail, errors=errors)
    return converted


def _describe_unknown(fields: Iterable[str], kind: type[msgspec.Struct], ignored: Collection[str] = ()) -> str | None:
    """Name the unknown fields of an object, with the nearest known ones; None if there are none."""
    known = kind.__struct_fields__
    unknown = [field for field in fields if field not in known and field not in ignored]
    if not unknown:
        return None
    named = ", ".join(quoted(field, MAX_FIELD) + _nearest(field, known) for field in unknown[:MAX_UNKNOWN])
    more = f" and {len(unknown) - MAX_UNKNOWN} more" if len(unknown) > MAX_UNKNOWN else ""
    return f"Unknown fields: {named}{more}. The known ones are {', '.join(known)}."


def _nearest(field: str, known: Sequence[str]) -> str:
    near = get_close_matches(field[:MAX_FIELD].lower(), known, 1)
    return f" (did you mean '{near[0]}'?)" if near else ""


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
        # msgspec does not check the encoding of fields that it skips, so decode the body first.
        return msgspec.json.decode(body.decode(), type=kind)
    except msgspec.ValidationError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_request", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed_json", _describe_malformed(error, len(body))) from None


def _describe_malformed(error: Exception, length: int) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"The body is not UTF-8 (byte {error.start})."
    if isinstance(error, RecursionError):
        return "The body's arrays and objects are nested too deeply."
    # msgspec gives the position in its message, except where the body ends early.
    return f"{error}." if "(byte " in str(error) else f"{error} (byte {length})."


def _require_entries(entries: Sequence[str]) -> None:
    if len(entries) > MAX_ANSWERED:
        detail = f"Expected `array` of length <= {MAX_ENTRIES} - at `$.domain_allowlist`."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_request", detail)
    rejected = Allowlist.parse(entries).rejected
    if rejected:
        errors = [EntryError(bad.entry, bad.reason, bad.hint) for bad in rejected]
        detail = (
            f"{len(rejected)} of the {len(entries)} allowlist entries are invalid; `errors` lists them with the reasons."
        )
        raise Problem(HTTPStatus.BAD_REQUEST, "allowlist_invalid", detail, errors=errors)
