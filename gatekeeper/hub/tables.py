"""The tables of the hub's database, as SQLAlchemy metadata; migrations/versions creates them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)

from gatekeeper.matching.origins import MAX_ORIGIN_LENGTH

__all__ = (
    "UtcDateTime",
    "accounts",
    "events",
    "gates",
    "list_steps",
    "listed_accounts",
    "metadata",
    "pepper_check",
    "refused_pages",
    "tokens",
    "widget_keys",
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, also on SQLite, which drops time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        return None if value is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:  # noqa: ARG002, D102
        # A list has hundreds of thousands of datetimes. This takes a quarter of the time of process_result_value, which
        # would let SQLAlchemy parse SQLite's text and then replace the time zone.
        return _read_text if dialect.name == "sqlite" else _read_moment


def _read_text(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value + "+00:00")


def _read_moment(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


# Migrations can alter a constraint on every engine only if it has an explicit name.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite generates row numbers only for a column whose type is spelled INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    # Random for every revision. A restored or recreated database repeats the revision numbers, and must not answer 304 to a
    # client that still holds an ETag from before.
    Column("revision_mark", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account", ForeignKey("accounts.name"), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("keyed_hash", String(64), nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    # Tokens from before there were scopes may do everything, as they always could.
    Column("scope", String(8), nullable=False, server_default="admin"),
)

widget_keys = Table(
    "widget_keys",
    metadata,
    # The order of insertion; created_at is not enough, as two rows may share it and a clock may be set back.
    Column("sequence", _Sequence, primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("account", ForeignKey("accounts.name"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("last8", String(8), nullable=False),
    Column("domain_allowlist", JSON, nullable=False),
    Column("agent_id", String(200)),
    Column("disabled_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
    Column("key_sha256", String(64), nullable=False),
    Column("keyed_hash", String(64), nullable=False),
    Column("use_count", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("account", "last8"),
    # For the list: it needs no sorting and skips the rows of other accounts.
    Index(None, "account", "sequence"),
)

events = Table(
    "events",
    metadata,
    # No foreign key, because events outlive their key.
    Column("key_id", String(36), primary_key=True),
    # Counted per key: a global sequence would reveal the activity of other accounts.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("account", ForeignKey("accounts.name"), nullable=False),
    Column("action", String(8), nullable=False),
    Column("token_name", String(200), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("changes", JSON, nullable=False),
    # The account's revision after the change, and the mark of the one before it. NULL in events of older hubs.
    Column("revision", BigInteger),
    Column("base_mark", String(32)),
    # For the changes since a revision.
    Index(None, "account", "revision"),
)

listed_accounts = Table(
    "listed_accounts",
    metadata,
    # No foreign key: it would lock the account's row, for which revocations wait.
    Column("account", String(63), primary_key=True),
    # The account's revision at the last step of the list of all accounts that concerned it.
    Column("revision", BigInteger, nullable=False),
    Column("revision_mark", String(32), nullable=False),
)

list_steps = Table(
    "list_steps",
    metadata,
    # The revision of the list of all accounts after the step, and the mark of the one before it.
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("account", String(63), primary_key=True),
    Column("base_mark", String(32), nullable=False),
    # The account's revision before the step and after it. An account that was not listed has no mark before it.
    Column("from_revision", BigInteger, nullable=False),
    Column("from_mark", String(32)),
    Column("to_revision", BigInteger, nullable=False),
    Column("to_mark", String(32), nullable=False),
)

refused_pages = Table(
    "refused_pages",
    metadata,
    # No foreign key to the account: it would lock the account's row, for which revocations wait.
    Column("key_id", ForeignKey("widget_keys.id", ondelete="CASCADE"), primary_key=True),
    # Empty for none: databases do not agree on NULL in a key.
    Column("origin", String(MAX_ORIGIN_LENGTH), primary_key=True),
    Column("reason", String(40), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    Column("entry", String(1024)),
)

gates = Table(
    "gates",
    metadata,
    # No foreign key: it would lock the account's row, for which revocations wait.
    Column("account", String(63), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("version", String(40), nullable=False),
    Column("is_live", Boolean, nullable=False),
    Column("state", String(40), nullable=False),
    Column("list_age", Double),
    Column("keys", BigInteger, nullable=False),
    Column("host", String(255)),
    Column("seen_at", UtcDateTime, nullable=False),
)

pepper_check = Table(
    "pepper_check",
    metadata,
    # The table has one row.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("check_value", String(64), nullable=False),
)
