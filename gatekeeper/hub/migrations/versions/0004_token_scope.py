"""Scopes of tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; tokens that exist keep the right to do everything."""
    op.add_column("tokens", sa.Column("scope", sa.String(8), nullable=False, server_default="admin"))
