"""What devices' reference kernels took, and which devices are in quarantine for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """No device has a history yet."""
    op.add_column("devices", sa.Column("quarantine", sa.Text(), nullable=True))
    op.create_table(
        "canary_readings",
        sa.Column("seq", _SERIAL, nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("taken_at", sa.Double(), nullable=False),
        sa.Column("canary_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.device_id"], name="fk_canary_readings_device_id"
        ),
        sa.ForeignKeyConstraint(
            ["lease_id"], ["leases.lease_id"], name="fk_canary_readings_lease_id"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_canary_readings"),
        sa.UniqueConstraint("lease_id", name="uq_canary_readings_lease_id"),
    )
    op.create_index(
        "ix_canary_readings_device",
        "canary_readings",
        ["device_id", "fingerprint", "target", "seq"],
    )
