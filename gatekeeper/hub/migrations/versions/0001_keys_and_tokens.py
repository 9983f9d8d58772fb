"""Accounts, their tokens and their widget keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("revision_mark", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_accounts"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("keyed_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("keyed_hash", name="uq_tokens_keyed_hash"),
        sa.ForeignKeyConstraint(["account"], ["accounts.name"], name="fk_tokens_account_accounts"),
    )
    op.create_index("ix_tokens_account", "tokens", ["account"])
    op.create_table(
        "widget_keys",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("last8", sa.String(8), nullable=False),
        sa.Column("domain_allowlist", sa.JSON, nullable=False),
        sa.Column("agent_id", sa.String(200)),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("key_sha256", sa.String(64), nullable=False),
        sa.Column("keyed_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_widget_keys"),
        sa.UniqueConstraint("id", name="uq_widget_keys_id"),
        sa.UniqueConstraint("account", "last8", name="uq_widget_keys_account_last8"),
        sa.ForeignKeyConstraint(["account"], ["accounts.name"], name="fk_widget_keys_account_accounts"),
    )
