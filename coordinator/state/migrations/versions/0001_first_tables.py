"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ACTIVE = sa.text("state = 'active'")


def upgrade() -> None:
    """Bring an empty database to this revision."""
    _create_fleet()
    _create_campaigns()
    _create_leases()
    _create_trials()
    _create_models()


def _create_fleet() -> None:
    op.create_table(
        "devices",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("agent_version", sa.String(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        sa.Column("trials", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", name="pk_devices"),
        sa.UniqueConstraint("name", name="uq_devices_name"),
    )
    op.create_table(
        "device_profiles",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.device_id"], name="fk_device_profiles_device_id"
        ),
        sa.PrimaryKeyConstraint("device_id", "fingerprint", name="pk_device_profiles"),
    )
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.bulk_insert(counters, [{"name": "fencing_token", "value": 0}])


def _create_campaigns() -> None:
    op.create_table(
        "campaigns",
        sa.Column("seq", _SERIAL, nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("error_reason", sa.String(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("activity", sa.Text(), nullable=False),
        sa.Column("trials_wanted", sa.BigInteger(), nullable=False),
        sa.Column("tuning_s", sa.Double(), nullable=False),
        sa.Column("tuning_since", sa.Double(), nullable=True),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("onnx_digest", sa.String(), nullable=False),
        sa.Column("inputs_digest", sa.String(), nullable=False),
        sa.Column("outputs_digest", sa.String(), nullable=False),
        sa.Column("artifacts", sa.Text(), nullable=False),
        sa.Column("artifact_dir", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_campaigns"),
        sa.UniqueConstraint("campaign_id", name="uq_campaigns_campaign_id"),
        sa.UniqueConstraint("idempotency_key", name="uq_campaigns_idempotency_key"),
    )
    op.create_index("ix_campaigns_name", "campaigns", ["name"], unique=False)
    op.create_table(
        "record_sets",
        sa.Column("record_set_id", _SERIAL, nullable=False),
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("baseline_s", sa.Double(), nullable=True),
        sa.Column("best_s", sa.Double(), nullable=True),
        sa.Column("best_candidate", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("record_set_id", name="pk_record_sets"),
        sa.UniqueConstraint(
            "workload", "target", "fingerprint", name="uq_record_sets_workload_target_fingerprint"
        ),
    )
    op.create_table(
        "tasks",
        sa.Column("seq", _SERIAL, nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("record_set_id", _SERIAL, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("flops", sa.Double(), nullable=False),
        sa.Column("workload_digest", sa.String(), nullable=False),
        sa.Column("exhausted", sa.Boolean(), nullable=False),
        sa.Column("trials", sa.BigInteger(), nullable=False),
        sa.Column("measured", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="fk_tasks_campaign_id"
        ),
        sa.ForeignKeyConstraint(
            ["record_set_id"], ["record_sets.record_set_id"], name="fk_tasks_record_set_id"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_tasks"),
        sa.UniqueConstraint(
            "campaign_id", "record_set_id", name="uq_tasks_campaign_id_record_set_id"
        ),
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("granted_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("best_s", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("phase_seconds", sa.Text(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="fk_leases_campaign_id"
        ),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"], name="fk_leases_device_id"),
        sa.PrimaryKeyConstraint("lease_id", name="pk_leases"),
    )
    op.create_index("ix_leases_campaign", "leases", ["campaign_id", "fencing_token"], unique=False)
    op.create_index("ix_leases_state_device", "leases", ["state", "device_id"], unique=False)
    op.create_index(
        "uq_leases_active_device",
        "leases",
        ["device_id"],
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    )
    op.create_index(
        "uq_leases_active_work",
        "leases",
        ["campaign_id", "kind", "workload", "target", "fingerprint"],
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    )


def _create_trials() -> None:
    op.create_table(
        "trials",
        sa.Column("seq", _SERIAL, nullable=False),
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("record_set_id", _SERIAL, nullable=False),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=True),
        sa.Column("noise", sa.Double(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("predicted", sa.Double(), nullable=True),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("explored", sa.Boolean(), nullable=False),
        sa.Column("samples_s", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("build_s", sa.Double(), nullable=True),
        sa.Column("run_s", sa.Double(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("conditions", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="fk_trials_campaign_id"
        ),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"], name="fk_trials_device_id"),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.lease_id"], name="fk_trials_lease_id"),
        sa.ForeignKeyConstraint(
            ["record_set_id"], ["record_sets.record_set_id"], name="fk_trials_record_set_id"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_trials"),
        sa.UniqueConstraint("trial_id", name="uq_trials_trial_id"),
    )
    op.create_index("ix_trials_campaign", "trials", ["campaign_id", "seq"], unique=False)
    op.create_index(
        "ix_trials_fastest", "trials", ["record_set_id", "latency_s", "candidate"], unique=False
    )
    op.create_index(
        "ix_trials_tried", "trials", ["record_set_id", "candidate", "verdict"], unique=False
    )
    op.create_table(
        "trial_payloads",
        sa.Column("trial_seq", _SERIAL, nullable=False),
        sa.Column("stores", sa.Integer(), nullable=True),
        sa.Column("features", sa.LargeBinary(), nullable=True),
        sa.Column("trace", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trial_seq"], ["trials.seq"], name="fk_trial_payloads_trial_seq"),
        sa.PrimaryKeyConstraint("trial_seq", name="pk_trial_payloads"),
    )


def _create_models() -> None:
    op.create_table(
        "model_versions",
        sa.Column("seq", _SERIAL, nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("checkpoint_digest", sa.String(), nullable=False),
        sa.Column("feature_schema", sa.String(), nullable=False),
        sa.Column("promoted", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("trials", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("training_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_model_versions"),
        sa.UniqueConstraint("version", name="uq_model_versions_version"),
    )
