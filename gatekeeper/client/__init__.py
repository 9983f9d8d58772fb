"""HubClient, AsyncHubClient: the hub's methods, and the only importer of httpx. It may import errors, matching and keys.

The two share everything but the sending: a call (calls.py) is a request, the function that reads its answer, and whether
it may be repeated (retries.py). Whatever goes wrong becomes an error of ours in refusals.py; what comes back is in
records.py, and the list as it came, for sources, in listing.py.
"""

from msgspec import UNSET

from gatekeeper.client.address import account_of, require_hub
from gatekeeper.client.async_hub_client import AsyncHubClient, MakeHttp, http_maker
from gatekeeper.client.hub_client import HubClient
from gatekeeper.client.listing import MAX_LIST, Listing
from gatekeeper.client.records import CreatedWidgetKey, FieldChange, KeyEvent, KeyUsage, WidgetKeyList

__all__ = (
    "MAX_LIST",
    "UNSET",
    "AsyncHubClient",
    "CreatedWidgetKey",
    "FieldChange",
    "HubClient",
    "KeyEvent",
    "KeyUsage",
    "Listing",
    "MakeHttp",
    "WidgetKeyList",
    "account_of",
    "http_maker",
    "require_hub",
)
