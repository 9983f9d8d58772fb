"""Source: where the list of widget keys comes from."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, runtime_checkable

import msgspec

from gatekeeper.client import KeyUsage, Listing, TlsContext
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey

__all__ = (
    "Basis",
    "CoversAllAccounts",
    "Delta",
    "FullList",
    "HoldsToken",
    "NeverChanges",
    "ReportsRefused",
    "ReportsUsage",
    "SharesTls",
    "Source",
    "Unchanged",
    "Updates",
    "covers_all_accounts",
)


class Basis(msgspec.Struct, frozen=True):
    """The list that the gate has already.

    Attributes:
        validator: the validator of that list; None asks for the whole list in any case.
        wait: seconds for which the source may hold its answer, until the list changes; None for not at all.
    """

    validator: str | None = None
    wait: int | None = None


class FullList(msgspec.Struct, frozen=True):
    """The whole list, whether or not it has changed.

    Attributes:
        listing: its bytes as they arrive, with its validator and its date.
        granted: seconds for which the source holds an answer, at most the `wait` of the basis; None if it holds none.
        may_wait: whether it may hold the next one. Without it, that is tried after an interval.
    """

    listing: Listing
    granted: float | None = None
    may_wait: bool = False


class Unchanged(msgspec.Struct, frozen=True):
    """The list is still the one that the basis names.

    Attributes:
        granted: as for FullList. An answer that comes before these seconds are over is taken for one that was not held,
            unless it is the last one.
        may_wait: as for FullList.
        is_last: whether the source stops or restarts, and ends its waits before their time.
    """

    granted: float | None = None
    may_wait: bool = False
    is_last: bool = False


class Delta(msgspec.Struct, frozen=True):
    """What has changed since the list that the basis names.

    Attributes:
        listing: a JSON array of the rows that are new or have changed, each as the whole list has it, and of
            `{"id": …, "last8": …, "removed": true}` for each row that is gone. Its validator is that of the list now.
        base: the validator of the basis.
        granted: as for FullList.
        may_wait: as for FullList.
    """

    listing: Listing
    base: str
    granted: float | None = None
    may_wait: bool = False


Updates = Callable[[Basis], AbstractAsyncContextManager[FullList | Unchanged | Delta]]
"""Asks for the list. A failure raises SourceError or TimeoutError, when the context is opened or read."""


class Source(Protocol):
    """Where the list of widget keys comes from.

    A source of one's own needs no base class:

        class BucketSource:
            account = "acme"
            suffix_field = "last8"
            fingerprint = "bucket://widget-keys"

            @asynccontextmanager
            async def connect(self):
                yield self.updates

            @asynccontextmanager
            async def updates(self, basis):
                body, etag = await bucket.read("keys.json")
                yield Unchanged() if etag == basis.validator else FullList(Listing.whole(body, etag))

    It is polled. A source that can tell of a change waits for one, for `basis.wait` seconds at most, and says so with
    `granted`. It is then asked again at once. It may answer with a Delta in place of the whole list.

    Attributes:
        account: the account of the keys; None if it is not known.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        fingerprint: a text that differs for each source and credential, and reveals neither; snapshots carry it.
    """

    @property
    def account(self) -> str | None:
        """See the class."""
        ...

    @property
    def suffix_field(self) -> str:
        """See the class."""
        ...

    @property
    def fingerprint(self) -> str:
        """See the class."""
        ...

    def connect(self) -> AbstractAsyncContextManager[Updates]:
        """Open what one event loop needs, shared with no other.

        Returns:
            A context manager that gives `updates(basis)`, itself a context manager of FullList, Unchanged or Delta.
        """
        ...


@runtime_checkable
class NeverChanges(Protocol):
    """A source with a fixed list; its gate needs no start.

    Attributes:
        never_changes: True.
        rows: the list.
    """

    never_changes: Literal[True]
    rows: Sequence[WidgetKey]


@runtime_checkable
class ReportsUsage(Protocol):
    """A source that takes reports on used keys."""

    async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Report used keys.

        Args:
            usage: the uses since the last report, by key id.

        Raises:
            SourceError: if that fails; the report is repeated later.
        """
        ...


@runtime_checkable
class ReportsRefused(Protocol):
    """A source that takes reports on refused pages."""

    async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
        """Report refused pages.

        Args:
            pages: the pages that were refused since the last report, 1,000 at most.

        Raises:
            SourceError: if that fails; the report is repeated later.
        """
        ...


@runtime_checkable
class HoldsToken(Protocol):
    """A source with a token, which all its gates share."""

    def last_token(self) -> str:
        """The token that was used last."""
        ...


@runtime_checkable
class CoversAllAccounts(Protocol):
    """A source that may list the keys of all accounts.

    Attributes:
        covers_all_accounts: whether it does. Then its `account` is None, and each row has an `account`.
    """

    @property
    def covers_all_accounts(self) -> bool:
        """See the class."""
        ...


def covers_all_accounts(source: Source) -> bool:
    """Whether a source lists the keys of all accounts."""
    return isinstance(source, CoversAllAccounts) and source.covers_all_accounts


@runtime_checkable
class SharesTls(Protocol):
    """A source that can use the TLS context of others."""

    def share_tls(self, tls: TlsContext) -> None:
        """Use a TLS context for each connection from now on.

        Args:
            tls: the context, which several sources share.
        """
        ...
