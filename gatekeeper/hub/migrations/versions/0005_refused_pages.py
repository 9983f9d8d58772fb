"""Refused pages."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "refused_pages",
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("origin", sa.String(267), nullable=False),
        sa.Column("reason", sa.String(40), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("entry", sa.String(1024)),
        sa.PrimaryKeyConstraint("key_id", "origin", "reason", name="pk_refused_pages"),
        sa.ForeignKeyConstraint(
            ["key_id"], ["widget_keys.id"], name="fk_refused_pages_key_id_widget_keys", ondelete="CASCADE"
        ),
    )
