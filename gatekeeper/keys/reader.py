"""RowReader: decodes the rows of the hub's list."""

import re
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, get_origin

import msgspec

from gatekeeper.errors import ConfigError, InvalidRow, RowReason
from gatekeeper.keys.client_key import SUFFIX_LENGTH
from gatekeeper.keys.salvage import decode_leniently, is_encodable, outline, replace_surrogates
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.quoting import quoted

__all__ = ("RowReader", "as_widget_key")

MAX_ACCOUNT = 63  # characters; the hub's documentation gives the pattern of accounts
ACCOUNT_NAME = rf"[a-z0-9][a-z0-9_-]{{0,{MAX_ACCOUNT - 1}}}"

DIGEST_LENGTH = 64  # hexadecimal digits of SHA-256
MAX_NAMES = 12  # of a row's fields, in a message; the rows of the reference hub have at most 12
MAX_NAME = 40  # characters

_EXPECTED_SUFFIX = f"Expected {SUFFIX_LENGTH} characters of a-z, A-Z, 0-9, '_' and '-'"
_EXPECTED_TEXT = {
    "key_sha256": f"Expected {DIGEST_LENGTH} hexadecimal digits in lower case",
    "id": "Expected at least 1 character",
    "account": f"Expected an account, {MAX_ACCOUNT} characters at most of a-z, 0-9, '_' and '-',",
}
_EXPECTED_UNICODE = "Expected Unicode text, got a lone surrogate in a field that decisions need"


class RowReader:
    """Decodes rows of the hub's list, one by one or in bulk.

    Args:
        suffix_field: the name of the field with the last 8 characters of a key. The hub's documentation does not give it.
        needs_account: whether each row must name its account, as in a list of the keys of all accounts. Otherwise an account
            that is no text is ignored.

    Attributes:
        suffix_field: as given.

    Raises:
        ConfigError: if the name is empty or belongs to another field.
    """

    def __init__(self, suffix_field: str = "last8", *, needs_account: bool = False) -> None:
        self._names = tuple(suffix_field if field == "last8" else field for field in WidgetKey.__struct_fields__)
        if not suffix_field or len(set(self._names)) < len(self._names):
            taken = ", ".join(repr(name) for name in self._names if name != suffix_field)
            raise ConfigError([f"suffix_field is {suffix_field!r}: expected a name, and none of {taken}"])
        self.suffix_field = suffix_field
        self._account_field = ("account",) if needs_account else ()
        deciding = _DECIDING | _ACCOUNT if needs_account else _DECIDING
        self._deciding = tuple(suffix_field if field == "last8" else field for field in deciding)
        self._decoders = _decoders(suffix_field, needs_account)

    def read(self, index: int, raw: msgspec.Raw | bytes) -> WidgetKey:
        """Decode one row of a list.

        Args:
            index: the row's index in the list, from 0, for the message.
            raw: the row's bytes.

        Returns:
            The row.

        Raises:
            InvalidRow: with the row's index, the field and the problem.
        """
        try:
            return as_widget_key(self._decoders.row.decode(raw))
        except msgspec.ValidationError as error:
            raise self.invalid(index, decode_leniently(bytes(raw)), error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            row = decode_leniently(bytes(raw))
            if row is None:
                problem = f"expected an object with the fields of a widget key: {error}"
                found = outline(bytes(raw), self.suffix_field)
                found["last8"] = _suffix(found.get("last8"))
                raise InvalidRow(index, problem, reason="not_an_object", **found) from error
            if not isinstance(row, dict) or not self._can_decide(row):
                raise self.invalid(index, row, error) from error
            return self.convert(index, row)

    def convert(self, index: int, row: WidgetKey | Mapping[str, Any]) -> WidgetKey:
        """Validate one row that is a Python object already.

        Args:
            index: the row's index in its list, from 0, for the message.
            row: the row, or a mapping with the fields of the hub's JSON.

        Returns:
            The row.

        Raises:
            InvalidRow: with the row's index, the field and the problem.
        """
        fields = dict(zip(self._names, msgspec.structs.astuple(row), strict=True)) if isinstance(row, WidgetKey) else row
        try:
            known = {name: fields[name] for name in self._names if name in fields}
            if not self._can_decide(known):
                raise msgspec.ValidationError(_EXPECTED_UNICODE)
            legible = {name: replace_surrogates(value) for name, value in known.items()}
            key = as_widget_key(msgspec.convert(legible, self._decoders.row_type))
        except (msgspec.ValidationError, TypeError) as error:
            raise self.invalid(index, fields, error) from error
        return row if isinstance(row, WidgetKey) and row == key else key

    def tidy(self, array: bytes) -> list[Any] | None:
        """Decode an array of well-formed rows in one step.

        This is by far the fastest way.

        Args:
            array: JSON in UTF-8.

        Returns:
            Rows with the attributes of a WidgetKey, in its order; None if some row is not well formed.
        """
        rows = _decoded(self._decoders.tidy, array)
        if rows is None and self._decoders.odd is not None:
            rows = _decoded(self._decoders.odd, array)
            for row in rows or ():
                row.account = _text(row.account)
        if rows is None or (self._account_field and not _have_accounts(rows)):
            return None
        suffixes = "".join([row.last8 for row in rows])
        digests = "".join([row.key_sha256 for row in rows if row.key_sha256])
        return rows if _SUFFIXES.fullmatch(suffixes) and _DIGESTS.fullmatch(digests) else None

    def split(self, array: bytes) -> list[msgspec.Raw] | None:
        """Split an array into its elements without decoding them.

        Args:
            array: JSON in UTF-8.

        Returns:
            The bytes of each element; None if this is not valid JSON.
        """
        try:
            return self._decoders.elements.decode(array)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def invalid(self, index: int, row: object, error: Exception) -> InvalidRow:
        """Make the error for a row.

        Args:
            index: the row's index in its list, from 0.
            row: the decoded row; None if it cannot be decoded.
            error: what msgspec says about it.

        Returns:
            The error, which names the field and the problem.
        """
        if not isinstance(row, Mapping):
            problem = f"expected an object with the fields of a widget key: {error}"
            return InvalidRow(index, problem, reason="not_an_object")
        fields = tuple(str(name) for name in row)
        row_id = row.get("id")
        return InvalidRow(
            index,
            self._problem(row, fields, str(error)),
            row_id=row_id if isinstance(row_id, str) else None,
            last8=_suffix(row.get(self.suffix_field)),
            fields=fields,
            disabled_at=row.get("disabled_at"),
            reason=self._reason(fields, str(error)),
        )

    def _can_decide(self, row: Mapping[str, Any]) -> bool:
        """Whether the fields that decisions need are valid Unicode. Others may be garbled."""
        return all(is_encodable(row.get(name)) for name in self._deciding)

    def _reason(self, fields: tuple[str, ...], error: str) -> RowReason:
        missing = [field for field in (self.suffix_field, "id", *self._account_field) if field not in fields]
        field = missing[0] if missing else _split_error(error)[1]
        return _REASONS.get("last8" if field == self.suffix_field else field, "other")

    def _problem(self, row: Mapping[str, Any], fields: tuple[str, ...], error: str) -> str:
        if self.suffix_field not in fields:
            named = ", ".join(quoted(field, MAX_NAME) for field in fields[:MAX_NAMES])
            more = f" and {len(fields) - MAX_NAMES} more" if len(fields) > MAX_NAMES else ""
            return (
                f"expected the key's last 8 characters in {self.suffix_field!r}, got "
                f"{f'only the fields {named}{more}' if fields else 'no fields'}; "
                "if another field has them, pass its name as suffix_field="
            )
        if self._account_field and "id" in fields and "account" not in fields:
            return f"{_EXPECTED_TEXT['account']} in 'account', as in each row of all accounts; got no such field"
        expected, field = _split_error(error)
        value = row.get(field)
        if isinstance(value, str) and field in {self.suffix_field, "key_sha256", "id", "account"}:
            # Never show the value itself: a secret may be in the wrong field.
            return f"{_EXPECTED_TEXT.get(field, _EXPECTED_SUFFIX)} in {field!r}, got text of {len(value)} characters"
        return f"{expected} in {field!r}" if field else error


# The types of the fields that decisions need. A row with other types is refused. The remaining fields are informative.
_DECIDING = {
    "id": Annotated[str, msgspec.Meta(min_length=1)],
    "last8": Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{{SUFFIX_LENGTH}}}\Z")],
    "domain_allowlist": tuple[str, ...] | None,
    "agent_id": str | None,
    "key_sha256": Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{DIGEST_LENGTH}}}\Z")] | None,
}
# That of a list of all accounts, besides.
_ACCOUNT = {"account": Annotated[str, msgspec.Meta(pattern=rf"^{ACCOUNT_NAME}\Z")]}
# The same without the patterns of suffixes and digests: matching a pattern in each row would double the time of a list.
_TIDY = _DECIDING | {
    "last8": Annotated[str, msgspec.Meta(min_length=SUFFIX_LENGTH, max_length=SUFFIX_LENGTH)],
    "key_sha256": Annotated[str, msgspec.Meta(min_length=DIGEST_LENGTH, max_length=DIGEST_LENGTH)] | None,
}
_TIDY_ACCOUNT = {"account": Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ACCOUNT)]}
_ACCOUNTS = re.compile(r"[a-z0-9_-]*")
_FIRST_OF_ACCOUNTS = re.compile(r"[a-z0-9]*")
_SUFFIXES = re.compile(r"[A-Za-z0-9_-]*")
_DIGESTS = re.compile(r"[0-9a-f]*")
_REASONS: dict[str, RowReason] = {
    "id": "id",
    "last8": "suffix",
    "domain_allowlist": "allowlist",
    "agent_id": "agent",
    "key_sha256": "digest",
    "account": "account",
}


def _fields(informative: Any, deciding: Mapping[str, Any]) -> list[tuple[str, Any] | tuple[str, Any, Any]]:
    """Define the fields of a row, in the order of WidgetKey."""
    # A disabled_at of any type disables the key.
    kinds = {**dict.fromkeys(WidgetKey.__struct_fields__, informative), "disabled_at": Any, **deciding}
    return [(field, kind) if _is_required(kind) else (field, kind, None) for field, kind in kinds.items()]


def _is_required(kind: Any) -> bool:
    """Whether a field with this type must be there. All others may be null."""
    return get_origin(kind) is Annotated


class _Decoders(NamedTuple):
    """The decoders of one kind of list.

    Attributes:
        row_type: the type of a row.
        row: decodes one row.
        tidy: decodes an array of well-formed rows.
        odd: decodes one whose accounts may have any type, as other hubs have them; None if rows need an account.
        elements: splits an array.
    """

    row_type: type
    row: msgspec.json.Decoder[Any]
    tidy: msgspec.json.Decoder[Any]
    odd: msgspec.json.Decoder[Any] | None
    elements: msgspec.json.Decoder[list[msgspec.Raw]]


@lru_cache(maxsize=16)  # they take 12 KB and 0.2 ms, and a gate may have hundreds of sources
def _decoders(suffix_field: str, needs_account: bool) -> _Decoders:  # noqa: FBT001 - for the cache
    deciding, tidy = (_DECIDING | _ACCOUNT, _TIDY | _TIDY_ACCOUNT) if needs_account else (_DECIDING, _TIDY)
    row_type = msgspec.defstruct("Row", _fields(Any, deciding), rename={"last8": suffix_field}, kw_only=True)
    return _Decoders(
        row_type,
        msgspec.json.Decoder(row_type),
        _list_decoder(suffix_field, tidy),
        None if needs_account else _list_decoder(suffix_field, tidy | {"account": Any}),
        msgspec.json.Decoder(list[msgspec.Raw]),
    )


def _list_decoder(suffix_field: str, deciding: Mapping[str, Any]) -> msgspec.json.Decoder[Any]:
    fields, rename = _fields(str | None, deciding), {"last8": suffix_field}
    row_type = msgspec.defstruct("TidyRow", fields, rename=rename, kw_only=True, gc=False)
    return msgspec.json.Decoder(types.GenericAlias(list, row_type))


def _decoded(decoder: msgspec.json.Decoder[Any], array: bytes) -> list[Any] | None:
    try:
        rows: list[Any] = decoder.decode(array)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return rows


def _have_accounts(rows: list[Any]) -> bool:
    """Whether all rows have names of accounts. None is empty or too long."""
    accounts = [row.account for row in rows]
    firsts = "".join([account[0] for account in accounts])
    return bool(_ACCOUNTS.fullmatch("".join(accounts)) and _FIRST_OF_ACCOUNTS.fullmatch(firsts))


def as_widget_key(row: Any) -> WidgetKey:
    """Convert a decoded row. Informative fields that are not text become None."""
    return WidgetKey(
        row.id,
        _text(row.name),
        row.last8,
        row.domain_allowlist or (),
        row.agent_id,
        row.disabled_at,
        _text(row.created_at),
        _text(row.updated_at),
        _text(row.last_used_at),
        row.key_sha256,
        _text(row.account),
    )


def _suffix(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) == SUFFIX_LENGTH and _SUFFIXES.fullmatch(value) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _split_error(error: str) -> tuple[str, str]:
    """Split a message of msgspec into its expectation and its field."""
    expected, _, path = error.partition(" - at `$.")
    return expected, path.rstrip("`").partition("[")[0]
