"""Calls: the requests of both clients on widget keys."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from msgspec import UNSET, UnsetType

from gatekeeper.client.address import address_problems, collection_url
from gatekeeper.client.collection import Call, Collection
from gatekeeper.client.records import CreatedWidgetKey, KeyEvent, KeyUsage, VersionedWidgetKey, WidgetKeyList
from gatekeeper.client.retries import if_it_may_pass, if_nothing_was_sent, never
from gatekeeper.errors import ConfigError, HubProtocolError, InvalidList, InvalidRow
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.slices import read_list
from gatekeeper.quoting import quoted

__all__ = ("WHOLE", "Calls", "KeyEvents", "RefusedPages", "etag_of")

# Statuses of a whole list: 203 if a proxy has altered it. The other successes are part of a list, changes, or nothing.
WHOLE = (httpx.codes.OK, httpx.codes.NON_AUTHORITATIVE_INFORMATION)

# A proxy that compresses a row makes its ETag weak, and a weak one matches no row.
_UNCOMPRESSED = {"accept-encoding": "identity"}
_STRONG = re.compile(r"\"[\x21\x23-\x7e\x80-\xff]*\"")  # RFC 9110 section 8.8.3

# Aliases, because `list` is a method in the classes that use them.
KeyEvents = list[KeyEvent]
RefusedPages = list[RefusedPage]


class Calls(Collection):
    """The hub's methods on widget keys as calls.

    Args:
        base_url: the hub's address.
        token: a bearer token.
        account: the account, if the token does not carry one.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        other_problems: mistakes in the other options of a client.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """

    def __init__(
        self, base_url: str, token: str, account: str | None, suffix_field: str, *, other_problems: Iterable[str]
    ) -> None:
        problems = (*address_problems(base_url, token, account), *other_problems)
        if problems:
            raise ConfigError(problems)
        super().__init__(collection_url(base_url, "widget-keys"), token, account)
        self._suffix_field = suffix_field
        self._rows = RowReader(suffix_field)

    def list(self) -> Call[WidgetKeyList]:
        """List every key of the account."""
        return Call("GET", "", self._read_list, if_it_may_pass)

    def get(self, key_id: str) -> Call[VersionedWidgetKey]:
        """Read one key."""
        return Call("GET", _path(key_id), self._read_row, if_it_may_pass, headers=_UNCOMPRESSED)

    def create(self, name: str, domain_allowlist: Iterable[str], agent_id: str | None) -> Call[CreatedWidgetKey]:
        """Create a key. Entries given as one string are a ConfigError."""
        body = {"name": name, "domain_allowlist": _entries(domain_allowlist), "agent_id": agent_id}
        return Call("POST", "", self._read_created, if_nothing_was_sent, body, _UNCOMPRESSED)

    def update(
        self,
        key_id: str,
        name: str | UnsetType,
        domain_allowlist: Iterable[str] | UnsetType,
        agent_id: str | None | UnsetType,
        disabled: bool | UnsetType,  # noqa: FBT001 - the public methods take it by keyword
        if_match: str | None,
    ) -> Call[VersionedWidgetKey]:
        """Change what is not UNSET, if the row has the ETag."""
        entries = UNSET if isinstance(domain_allowlist, UnsetType) else _entries(domain_allowlist)
        changes = {"name": name, "domain_allowlist": entries, "agent_id": agent_id, "disabled": disabled}
        body = {field: value for field, value in changes.items() if value is not UNSET}
        return Call("PATCH", _path(key_id), self._read_row, if_it_may_pass, body, _row_headers(if_match))

    def delete(self, key_id: str, if_match: str | None) -> Call[VersionedWidgetKey | None]:
        """Delete or revoke a key, under a condition. A retry succeeds if the key is gone."""
        gone, headers = httpx.codes.NOT_FOUND, _row_headers(if_match)
        path = _path(key_id)
        return Call("DELETE", path, self._read_deleted, if_it_may_pass, headers=headers, done_when_repeated=gone)

    def events(self, key_id: str) -> Call[KeyEvents]:
        """List the audit trail of a key."""
        return Call("GET", f"{_path(key_id)}/events", self._read_events, if_it_may_pass)

    def refused(self, key_id: str | None) -> Call[RefusedPages]:
        """List the pages that gates have refused, of all keys or one."""
        query = "" if key_id is None else f"?key_id={_quoted_id(key_id)}"
        return Call("GET", f"/refused{query}", self._read_refused, if_it_may_pass)

    def report_usage(self, usage: Mapping[str, KeyUsage]) -> Call[None]:
        """Report which keys were used. It is never retried, as it would count twice."""
        return Call("POST", "/usage", self.read_nothing, never, usage)

    def report_refused(self, pages: Sequence[RefusedPage]) -> Call[None]:
        """Report which pages were refused. It is never retried, as it would count twice."""
        return Call("POST", "/refused", self.read_nothing, never, pages)

    def _read_list(self, response: httpx.Response) -> WidgetKeyList:
        if response.status_code not in WHOLE:
            raise self.refusals.refusal(response)
        try:
            rows, rejected = read_list(self._rows, response.content)
        except InvalidList as error:
            raise self.refusals.not_a_list(response, error) from error
        listed = WidgetKeyList(rows)
        listed.rejected = tuple(rejected)
        return listed

    def _read_created(self, response: httpx.Response) -> CreatedWidgetKey:
        fields = self._fields(response)
        public_key = fields.get("public_key")
        if not isinstance(public_key, str):
            raise HubProtocolError(f"the hub at {self.url} created a key, but its answer has no public_key")
        row = self._row(response, {self._suffix_field: public_key[-8:], **fields})
        return CreatedWidgetKey(**msgspec.structs.asdict(row), public_key=public_key)

    def _read_row(self, response: httpx.Response) -> VersionedWidgetKey:
        return self._row(response, self._fields(response))

    def _read_deleted(self, response: httpx.Response) -> VersionedWidgetKey | None:
        gone = response.status_code in {httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND}
        return None if gone else self._read_row(response)

    def _read_events(self, response: httpx.Response) -> KeyEvents:
        return self.decode(response, KeyEvents, "a list of events")

    def _read_refused(self, response: httpx.Response) -> RefusedPages:
        return self.decode(response, RefusedPages, "a list of refused pages")

    def _fields(self, response: httpx.Response) -> dict[str, Any]:
        return self.decode(response, dict[str, Any], "a row")

    def _row(self, response: httpx.Response, fields: dict[str, Any]) -> VersionedWidgetKey:
        try:
            row = self._rows.convert(0, fields)
        except InvalidRow as error:
            raise self.refusals.unexpected(response, "a row", error) from error
        etag = etag_of(response)
        strong = etag if etag is not None and _STRONG.fullmatch(etag) else None
        return VersionedWidgetKey(**msgspec.structs.asdict(row), etag=strong)


def etag_of(response: httpx.Response, header: bytes = b"etag") -> str | None:
    """The ETag in a header of an answer. Each character stands for a byte."""
    return next((value.decode("latin-1") for name, value in response.headers.raw if name.lower() == header), None)


def _path(key_id: str) -> str:
    return f"/{_quoted_id(key_id)}"


def _quoted_id(key_id: str) -> str:
    # Clients and proxies resolve "." and ".." in a path, which would lead to the collection or above it.
    if key_id in {"", ".", ".."} or not _is_unicode(key_id):
        raise ConfigError([f"key_id is {quoted(key_id)}: expected the id of a row in the hub's list"])
    return quote(key_id, safe="")


def _row_headers(if_match: str | None) -> dict[str, str]:
    if if_match is None:
        return _UNCOMPRESSED
    if if_match != "*" and not _STRONG.fullmatch(if_match):
        raise ConfigError([f"if_match is {quoted(if_match)}: expected the etag of a row, with its quotes, or '*'"])
    return {**_UNCOMPRESSED, "if-match": if_match}


def _entries(domain_allowlist: Iterable[str]) -> list[str]:
    if isinstance(domain_allowlist, str | bytes):
        problem = f"domain_allowlist is one string, {domain_allowlist!r}: expected a list of entries, such as ['acme.com']"
        raise ConfigError([problem])
    return list(domain_allowlist)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
