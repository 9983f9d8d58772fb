"""A check value of the pepper."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table. The next start of a hub stores the value."""
    op.create_table(
        "pepper_check",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("check_value", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pepper_check"),
    )
