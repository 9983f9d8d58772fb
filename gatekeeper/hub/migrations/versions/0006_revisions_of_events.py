"""Revisions of events."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns and the index; events that exist have no revision."""
    op.add_column("events", sa.Column("revision", sa.BigInteger))
    op.add_column("events", sa.Column("base_mark", sa.String(32)))
    op.create_index("ix_events_account_revision", "events", ["account", "revision"])
