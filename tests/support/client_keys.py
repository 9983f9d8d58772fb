"""Client keys that look like real ones, by what becomes of them. Each test file has its own rows for them."""

__all__ = ("DISABLED_KEY", "EMPTY_KEY", "KEY", "OTHER_KEY", "TWIN_KEY", "UNKNOWN_KEY")

KEY = "pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsDshop-001"
OTHER_KEY = "pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsDblog-002"
DISABLED_KEY = "pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsDgone-003"
EMPTY_KEY = "pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsDnone-004"  # its row has no entries
TWIN_KEY = "pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsDtwin-005"  # two rows have its last 8 characters
UNKNOWN_KEY = "pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsDwhat-006"
