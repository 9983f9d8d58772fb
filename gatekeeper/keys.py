"""WidgetKey, a row of the hub's list; ClientKey, the key that a widget sends.

The hub never lists a client key, only its last 8 characters, so the two meet in the index.
"""

import hashlib
import json
import string
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, Self

import msgspec

from gatekeeper.errors import ConfigError, InvalidClientKey, InvalidList, InvalidRow

__all__ = ("ClientKey", "RowReader", "WidgetKey", "mask")

MAX_CLIENT_KEY_LENGTH = 128
SUFFIX_LENGTH = 8

_REMOVE_CLIENT_KEY_CHARACTERS = str.maketrans("", "", string.ascii_letters + string.digits + "_-")
_BOM = b"\xef\xbb\xbf"
_EXPECTED_SUFFIX = f"Expected {SUFFIX_LENGTH} characters of a-z, A-Z, 0-9, '_' and '-'"
_EXPECTED_TEXT = {"key_sha256": "Expected 64 hexadecimal digits in lower case", "id": "Expected at least 1 character"}


class WidgetKey(msgspec.Struct, frozen=True):
    """A widget key as the hub lists it.

    Attributes:
        id: the hub's name for the row.
        name: what its owner calls it.
        last8: the last 8 characters of the client key.
        domain_allowlist: the entries as written; without any, no page may use the key.
        agent_id: the agent that the key is pinned to; it overrides the one that the page names.
        disabled_at: when the key was revoked. Whatever stands here but None means that it is.
        created_at, updated_at, last_used_at: ISO 8601, as the hub has them.
        key_sha256: the hexadecimal SHA-256 of the whole client key, where the hub tells it.
    """

    id: str
    name: str | None
    last8: str
    domain_allowlist: tuple[str, ...]
    agent_id: str | None = None
    disabled_at: Any = None
    created_at: str | None = None
    updated_at: str | None = None
    last_used_at: str | None = None
    key_sha256: str | None = None

    @property
    def disabled(self) -> bool:
        """Whether the key is revoked."""
        return self.disabled_at is not None


class ClientKey(msgspec.Struct, frozen=True):
    """The key that a page carries, such as pk_live_acme_Zb3….

    Attributes:
        value: the whole key.
        account: what stands between the prefix and the last underscore.
    """

    value: str
    account: str

    @classmethod
    def parse(cls, value: str | bytes, *, prefix: str = "pk_live_") -> Self:
        """Read a client key.

        Args:
            value: the key; bytes as they came.
            prefix: what every client key of this hub begins with.

        Returns:
            The key and the account that it names.

        Raises:
            InvalidClientKey: saying what is wrong, without the key.
        """
        # The length comes first, so that a long key costs no more than a short one.
        if len(value) > MAX_CLIENT_KEY_LENGTH:
            raise InvalidClientKey(f"it has {len(value)} characters, and a client key at most {MAX_CLIENT_KEY_LENGTH}")
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not text.startswith(prefix):
            raise InvalidClientKey(f"it does not begin with {prefix!r}")
        if text.translate(_REMOVE_CLIENT_KEY_CHARACTERS):
            raise InvalidClientKey("it holds characters other than letters, digits, '_' and '-'")
        account, _, random = text[len(prefix) :].rpartition("_")
        if not account or not random or len(text) < SUFFIX_LENGTH:
            raise InvalidClientKey(f"it is not of the form {prefix}<account>_<random>")
        return cls(text, account)

    @property
    def last8(self) -> str:
        """The last 8 characters, by which the hub lists the key."""
        return self.value[-SUFFIX_LENGTH:]

    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the whole key."""
        return hashlib.sha256(self.value.encode("ascii")).hexdigest()

    def __repr__(self) -> str:
        return f"ClientKey({mask(self.last8)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As `repr`, for tracebacks by rich: msgspec would show every field."""
        return [("last8", mask(self.last8))]


def mask(last8: str) -> str:
    """A client key as people may see it: "…" and its last 8 characters."""
    return f"…{last8}"


class RowReader:
    """Reads the hub's list, row by row, so that a bad row never disturbs its neighbours.

    Args:
        suffix_field: the field that holds the last 8 characters of a key; the hub's documentation does not name it.

    Raises:
        ConfigError: if another field of a row has that name.
    """

    def __init__(self, suffix_field: str = "last8") -> None:
        self._names = tuple(suffix_field if field == "last8" else field for field, *_ in _ROW_FIELDS)
        if not suffix_field or len(set(self._names)) < len(self._names):
            taken = ", ".join(repr(name) for name in self._names if name != suffix_field)
            raise ConfigError([f"suffix_field is {suffix_field!r}: expected a name, and none of {taken}"])
        self._suffix_field = suffix_field
        row_type = msgspec.defstruct("Row", _ROW_FIELDS, rename={"last8": suffix_field})
        self._decoder = msgspec.json.Decoder(row_type)
        self._row_type = row_type

    def split(self, body: bytes) -> list[msgspec.Raw]:
        """Cut a list into its rows, without looking into them.

        Args:
            body: JSON in UTF-8.

        Returns:
            The rows' own bytes, for `read`.

        Raises:
            InvalidList: if the body is not a JSON array.
        """
        body = body.removeprefix(_BOM)
        try:
            return msgspec.json.decode(body, type=list[msgspec.Raw])
        except msgspec.ValidationError as error:
            raise InvalidList(f"expected a JSON array of rows: {error}") from error
        except (msgspec.DecodeError, RecursionError) as error:
            return _split_leniently(body, error)

    def read(self, index: int, raw: msgspec.Raw | bytes) -> WidgetKey:
        """Read one row of a list.

        Args:
            index: the row's place in the list, from 0, for the message.
            raw: the row as `split` gave it.

        Returns:
            The row.

        Raises:
            InvalidRow: saying which row, which field and why.
        """
        try:
            return _widget_key(self._decoder.decode(raw))
        except msgspec.ValidationError as error:
            raise self._invalid(index, _leniently(bytes(raw)), error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            row = _leniently(bytes(raw))
            # What people read may be garbled; what the gate decides by may not.
            if not isinstance(row, dict) or not all(_is_clean(row.get(name)) for name in self._names[:_DECIDING]):
                raise self._invalid(index, row, error) from error
            return self.convert(index, {name: _legible(value) for name, value in row.items()})

    def convert(self, index: int, row: WidgetKey | Mapping[str, Any]) -> WidgetKey:
        """Read one row that is a Python object already.

        Args:
            index: the row's place among its neighbours, from 0, for the message.
            row: the row, or a mapping with the fields that the hub's JSON has.

        Returns:
            The row.

        Raises:
            InvalidRow: saying which row, which field and why.
        """
        if isinstance(row, WidgetKey):
            return row
        try:
            known = {name: row[name] for name in self._names if name in row}
            return _widget_key(msgspec.convert(known, self._row_type))
        except (msgspec.ValidationError, TypeError) as error:
            raise self._invalid(index, row, error) from error

    def read_all(self, body: bytes) -> tuple[list[WidgetKey], list[InvalidRow]]:
        """Read a whole list at once.

        Args:
            body: JSON in UTF-8.

        Returns:
            The rows, and what is wrong with those that are none.

        Raises:
            InvalidList: if the body is not a JSON array.
        """
        rows, rejected = [], []
        for index, raw in enumerate(self.split(body)):
            try:
                rows.append(self.read(index, raw))
            except InvalidRow as error:
                rejected.append(error)
        return rows, rejected

    def _invalid(self, index: int, row: object, error: Exception) -> InvalidRow:
        if not isinstance(row, Mapping):
            return InvalidRow(index, f"expected an object with the fields of a widget key: {error}")
        fields = tuple(str(name) for name in row)
        row_id = row.get("id")
        return InvalidRow(
            index,
            self._problem(row, fields, str(error)),
            row_id=row_id if isinstance(row_id, str) else None,
            fields=fields,
            disabled_at=row.get("disabled_at"),
        )

    def _problem(self, row: Mapping[str, Any], fields: tuple[str, ...], error: str) -> str:
        if self._suffix_field not in fields:
            return (
                f"there is no field {self._suffix_field!r}, only {', '.join(map(repr, fields)) or 'none at all'}; "
                "name the one with the key's last 8 characters by suffix_field="
            )
        expected, _, path = error.partition(" - at `$.")
        field = path.rstrip("`").partition("[")[0]
        value = row.get(field)
        if isinstance(value, str) and field in {self._suffix_field, "key_sha256", "id"}:
            # Never the value itself: a secret may stand in the wrong field.
            return f"{_EXPECTED_TEXT.get(field, _EXPECTED_SUFFIX)} in {field!r}, got text of {len(value)} characters"
        return f"{expected} in {field!r}" if path else error


# What the gate decides by is typed, and a row that has it otherwise is refused; the rest is for people to read.
_ROW_FIELDS: tuple[tuple[str, Any] | tuple[str, Any, Any], ...] = (
    ("id", Annotated[str, msgspec.Meta(min_length=1)]),
    ("last8", Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{{SUFFIX_LENGTH}}}\Z")]),
    ("domain_allowlist", tuple[str, ...] | None, None),
    ("agent_id", str | None, None),
    ("key_sha256", Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")] | None, None),
    ("disabled_at", Any, None),  # whatever it is: its presence decides
    ("name", Any, None),
    ("created_at", Any, None),
    ("updated_at", Any, None),
    ("last_used_at", Any, None),
)
_DECIDING = 5  # of them have to be what they should


def _widget_key(row: Any) -> WidgetKey:
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
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _split_leniently(body: bytes, error: Exception) -> list[msgspec.Raw]:
    """Cut a list with a row that is not quite JSON, such as half of a surrogate pair where a hub has cut a name short."""
    rows = _leniently(body)
    if not isinstance(rows, list):
        raise InvalidList(f"expected a JSON array of rows, got something that is not JSON: {error}") from error
    return [msgspec.Raw(json.dumps(row).encode("ascii")) for row in rows]


def _leniently(text: bytes) -> object:
    """What the standard library reads, which takes more for JSON than msgspec does; None where not even that can."""
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _is_clean(value: object) -> bool:
    try:
        msgspec.json.encode(value)
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _legible(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
