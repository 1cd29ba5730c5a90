"""Finds what is known of one hardware, or came of one round, without looking at all there is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Nothing changes but the time that it takes to give a device of a large fleet its work."""
    op.create_index("ix_record_sets_hardware", "record_sets", ["fingerprint"])
    op.create_index("ix_leases_hardware", "leases", ["campaign_id", "fingerprint", "fencing_token"])
    op.create_index("ix_trials_lease", "trials", ["lease_id"])
    active = sa.text("state = 'active'")
    op.create_index(
        "ix_leases_active_hardware",
        "leases",
        ["fingerprint"],
        sqlite_where=active,
        postgresql_where=active,
    )
