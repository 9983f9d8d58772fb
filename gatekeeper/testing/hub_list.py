"""HubList: what a FakeHub lists, and what has changed since earlier lists."""

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from threading import RLock
from typing import Any, Final, NamedTuple

__all__ = ("HubList", "ListAnswer", "wait_of")

MAX_WAIT: Final = 60  # seconds
JSON: Final = {"content-type": "application/json"}

_TAG = re.compile(r'(?:W/)?"[^"]*"')
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*(\d+)\s*(?=[,;]|$)", re.IGNORECASE | re.ASCII)  # RFC 7240 section 4.3
_ROWS = re.compile(r"(?:^|,)\s*rows\s*(?=[,;]|$)", re.IGNORECASE)  # RFC 3229 section 10.5.3


class ListAnswer(NamedTuple):
    """An answer to a request for the list.

    Attributes:
        status: 200 with a list, 226 with what has changed, 304 without a body.
        body: the bytes.
        headers: besides the length.
    """

    status: int
    body: bytes
    headers: dict[str, str]


class RowKey(NamedTuple):
    """What tells a row from others. Only a row with both texts can be named as removed."""

    id: Any
    last8: Any
    odd: bytes = b""  # a row without them


class HubList:
    """The rows of a hub, and a log of their changes.

    Args:
        rows: listed first.
        is_live: whether each list has an entity tag, and the changes since an earlier one can be asked for.

    Attributes:
        rows: as listed now.
        waiters: are told of the next change.
    """

    def __init__(self, rows: Iterable[Any], *, is_live: bool) -> None:
        self.rows: list[Any] = []
        self.waiters: set[Future[None]] = set()
        self._lock = RLock()
        self._is_live = is_live
        self._mark = ""
        self._etag: str | None = None
        self._body = b""
        self._by_key: dict[RowKey, list[bytes]] = {}
        self._accounts: dict[RowKey, Any] = {}  # that rows name, also removed ones
        self._log: list[set[RowKey]] = []  # the changes that each list made
        self._numbers: dict[str, int] = {}  # of the last list of each entity tag, how many lists there were
        self.restore(rows)

    def publish(self, rows: Iterable[Any], etag: str | None = None) -> None:
        """List other rows.

        Args:
            rows: the whole list.
            etag: its entity tag; None for a new one if the list is live and differs, else for none.
        """
        listed = list(rows)
        body = _encoded(listed)
        with self._lock:
            if self._is_live:
                if etag is None and self._etag is not None and body == self._body:
                    return
                self._accounts |= {key: row["account"] for row in listed if (key := _key_of(row)) and "account" in row}
                etag = self._log_changes(_by_key(listed), etag)
            self.rows, self._body, self._etag = listed, body, etag
            for waiter in self.waiters.copy():
                if not waiter.done():
                    waiter.set_result(None)

    def restore(self, rows: Iterable[Any]) -> None:
        """List rows, and forget all earlier lists."""
        with self._lock:
            self._mark = secrets.token_hex(2)
            self._log.clear()
            self._numbers.clear()
            self._accounts.clear()
            self._etag = None
            self.publish(rows)

    def answer(self, headers: Mapping[str, str]) -> ListAnswer:
        """Answer a request.

        Args:
            headers: of the request, with names in lower case.

        Returns:
            The answer at this moment.
        """
        with self._lock:
            return self._live_answer(headers) if self._is_live else self._polled_answer(headers)

    @contextmanager
    def waiter(self) -> Iterator[Future[None]]:
        """Make a future that ends with the next list. Any thread may list."""
        waiter: Future[None] = Future()
        self.waiters.add(waiter)
        try:
            yield waiter
        finally:
            self.waiters.discard(waiter)

    def _polled_answer(self, headers: Mapping[str, str]) -> ListAnswer:
        tag = {} if self._etag is None else {"etag": self._etag}
        if tag and headers.get("if-none-match") == self._etag:
            return ListAnswer(304, b"", tag)
        return ListAnswer(200, self._body, {**JSON, **tag})

    def _live_answer(self, headers: Mapping[str, str]) -> ListAnswer:
        about = {"etag": self._etag or "", "vary": "A-IM, Prefer", "cache-control": "no-store"}
        tags, wait = _TAG.findall(headers.get("if-none-match", "")), wait_of(headers)
        if tags and wait is not None:
            about["preference-applied"] = f"wait={wait}"
        if _opaque(about["etag"]) in map(_opaque, tags):
            return ListAnswer(304, b"", about)
        bases = [tag for tag in tags if _opaque(tag) in self._numbers]
        if bases and _ROWS.search(headers.get("a-im", "")):
            base = max(bases, key=lambda tag: self._numbers[_opaque(tag)])
            return ListAnswer(226, self._delta(base), {**JSON, **about, "im": "rows", "delta-base": base})
        return ListAnswer(200, self._body, {**JSON, **about})

    def _log_changes(self, by_key: dict[RowKey, list[bytes]], etag: str | None) -> str:
        before, self._by_key = self._by_key, by_key
        self._log.append({key for key in before | by_key if before.get(key) != by_key.get(key)})
        etag = f'W/"{len(self._log)}-{self._mark}"' if etag is None else etag
        self._numbers[_opaque(etag)] = len(self._log)
        return etag

    def _delta(self, base: str) -> bytes:
        """What has changed since a list: whole rows, and the names of removed ones."""
        changed: set[RowKey] = set().union(*self._log[self._numbers[_opaque(base)] :])
        rows = [row for key, rows in self._by_key.items() if key in changed for row in rows]
        removed = [key for key in changed if key not in self._by_key and not key.odd]
        rows += [_encoded(self._removal(key)) for key in sorted(removed)]
        return b"[%b]" % b", ".join(rows)

    def _removal(self, key: RowKey) -> dict[str, Any]:
        account = {"account": self._accounts[key]} if key in self._accounts else {}
        return {"id": key.id, "last8": key.last8, **account, "removed": True}


def wait_of(headers: Mapping[str, str]) -> int | None:
    """The seconds of `Prefer: wait=…`, 60 at most; None without it."""
    found = _WAIT.search(headers.get("prefer", ""))
    return min(int(found.group(1)), MAX_WAIT) if found else None


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")


def _by_key(rows: Iterable[Any]) -> dict[RowKey, list[bytes]]:
    """The rows by what names them. Several may have one name."""
    found: dict[RowKey, list[bytes]] = {}
    for row in rows:
        encoded = _encoded(row)
        found.setdefault(_key_of(row) or RowKey(None, None, encoded), []).append(encoded)
    return found


def _key_of(row: Any) -> RowKey | None:
    """What names a row as removed, if anything does."""
    key = RowKey(row.get("id"), row.get("last8")) if isinstance(row, Mapping) else RowKey(None, None)
    return key if isinstance(key.id, str) and isinstance(key.last8, str) else None


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()
