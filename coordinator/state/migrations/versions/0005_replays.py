"""Schedules to be measured again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Campaigns of older releases replay nothing."""
    # Trials count up in 64 bits, but for SQLite that is an integer like any other.
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "replays",
        sa.Column(
            "campaign_id",
            sa.String(),
            sa.ForeignKey("campaigns.campaign_id", name="fk_replays_campaign_id_campaigns"),
            nullable=False,
        ),
        sa.Column(
            "record_set_id",
            serial,
            sa.ForeignKey("record_sets.record_set_id", name="fk_replays_record_set_id_record_sets"),
            nullable=False,
        ),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column(
            "source_seq",
            serial,
            sa.ForeignKey("trials.seq", name="fk_replays_source_seq_trials"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("campaign_id", "record_set_id", "candidate", name="pk_replays"),
    )
