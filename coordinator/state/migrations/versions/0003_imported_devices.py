"""Devices known from datasets alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Every device known so far registered by itself."""
    op.add_column(
        "devices", sa.Column("imported", sa.Boolean(), nullable=False, server_default=sa.false())
    )
