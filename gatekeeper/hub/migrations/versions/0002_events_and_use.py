"""Events and use counts of keys, and an index for the list."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column and the index, and create the table of events."""
    op.add_column("widget_keys", sa.Column("use_count", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_widget_keys_account_sequence", "widget_keys", ["account", "sequence"])
    op.create_table(
        "events",
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("token_name", sa.String(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changes", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "id", name="pk_events"),
        sa.ForeignKeyConstraint(["account"], ["accounts.name"], name="fk_events_account_accounts"),
    )
