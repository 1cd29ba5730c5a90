"""Where a task comes from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Tasks of older campaigns come from nowhere in particular."""
    op.add_column(
        "tasks", sa.Column("sources", sa.Text(), nullable=False, server_default=sa.text("'{}'"))
    )
