"""Versions of the cost model that are promoted later, and taken out of use again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """So far versions were promoted when they were made, in that order, and stayed so."""
    op.add_column(
        "model_versions",
        sa.Column("rolled_back", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("model_versions", sa.Column("promotion", sa.BigInteger(), nullable=True))
    op.create_index("uq_model_versions_promotion", "model_versions", ["promotion"], unique=True)
    op.execute("UPDATE model_versions SET promotion = seq WHERE promoted")
