"""What is drained, and by which releases devices and campaigns were made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Of what was there before, no release is known; agents register again and say theirs."""
    op.create_table(
        "switches",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_switches"),
    )
    for column in (
        sa.Column("draining", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("protocol", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("feature_schema", sa.String(), nullable=False, server_default=""),
        sa.Column("capabilities", sa.Text(), nullable=False, server_default="[]"),
    ):
        op.add_column("devices", column)
    op.add_column(
        "campaigns", sa.Column("tvm_version", sa.String(), nullable=False, server_default="")
    )
