"""The list of all accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables. They stay empty until there is a token for all accounts."""
    op.create_table(
        "listed_accounts",
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("revision_mark", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("account", name="pk_listed_accounts"),
    )
    op.create_table(
        "list_steps",
        sa.Column("revision", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("base_mark", sa.String(32), nullable=False),
        sa.Column("from_revision", sa.BigInteger, nullable=False),
        sa.Column("from_mark", sa.String(32)),
        sa.Column("to_revision", sa.BigInteger, nullable=False),
        sa.Column("to_mark", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("revision", "account", name="pk_list_steps"),
    )
