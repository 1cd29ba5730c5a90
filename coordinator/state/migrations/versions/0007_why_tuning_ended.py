"""Why a campaign's tuning ended, and how many trials each round made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Of what ended before, nobody noted why; the trials of rounds can be counted."""
    op.add_column(
        "campaigns", sa.Column("tuning_ended", sa.Text(), nullable=False, server_default="")
    )
    op.add_column(
        "leases", sa.Column("trials", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.execute(
        "UPDATE leases SET trials = made.trials "
        "FROM (SELECT lease_id, count(*) AS trials FROM trials GROUP BY lease_id) AS made "
        "WHERE made.lease_id = leases.lease_id AND leases.kind != 'import'"
    )
