"""HubClient, AsyncHubClient: the hub over HTTP.

It may import quoting, errors, matching and keys. The two clients share everything except the sending (sending.py). A call
(collection.py) is a request, the function that reads its answer, and whether it may be retried (retries.py). calls.py and
gates.py make the calls. refusals.py turns every failure into an error of this package. records.py has the results, and
listing.py the list that sources stream. tls.py has the TLS context that sources share.
"""

from msgspec import UNSET

from gatekeeper.client.address import account_of, covers_all_accounts, require_hub
from gatekeeper.client.async_hub_client import AsyncHubClient, MakeHttp, http_maker
from gatekeeper.client.hub_client import HubClient
from gatekeeper.client.listing import MAX_LIST, ListAnswer, Listing, ListQuestion, TokenScope
from gatekeeper.client.records import CreatedWidgetKey, FieldChange, KeyEvent, KeyUsage, VersionedWidgetKey, WidgetKeyList
from gatekeeper.client.retries import if_nothing_was_sent
from gatekeeper.client.tls import TlsContext

__all__ = (
    "MAX_LIST",
    "UNSET",
    "AsyncHubClient",
    "CreatedWidgetKey",
    "FieldChange",
    "HubClient",
    "KeyEvent",
    "KeyUsage",
    "ListAnswer",
    "ListQuestion",
    "Listing",
    "MakeHttp",
    "TlsContext",
    "TokenScope",
    "VersionedWidgetKey",
    "WidgetKeyList",
    "account_of",
    "covers_all_accounts",
    "http_maker",
    "if_nothing_was_sent",
    "require_hub",
)
