"""The tables. Changing one needs a migration; a test compares both."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.types import TypeDecorator

# Made once: ``json.dumps`` makes one for each call.
encode_json = json.JSONEncoder(separators=(",", ":")).encode


class JsonText(TypeDecorator[Any]):
    """JSON kept as text, the same on every database; NaN and infinity survive, unlike in JSONB."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write."""
        return None if value is None else encode_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Read."""
        return None if value is None else json.loads(value)


class EnumText(TypeDecorator[str]):
    """A value of a string enumeration; drivers disagree on what they make of one."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write."""
        return None if value is None else str(value)


# Only INTEGER PRIMARY KEY counts up by itself in SQLite.
_Serial = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

counters = Table(
    "counters",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# What somebody switched on or off, for the whole coordinator.
switches = Table(
    "switches",
    metadata,
    Column("name", String, primary_key=True),
    Column("is_on", Boolean, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("device_id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("profile", Text, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("target", Text, nullable=False),
    Column("labels", JsonText, nullable=False),
    Column("agent_version", String, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("trials", BigInteger, nullable=False),
    Column("imported", Boolean, nullable=False, server_default=false()),
    Column("quarantine", JsonText),
    Column("draining", Boolean, nullable=False, server_default=false()),
    Column("protocol", Integer, nullable=False, server_default="1"),
    Column("feature_schema", String, nullable=False, server_default=""),
    Column("capabilities", JsonText, nullable=False, server_default="[]"),
)

# What a device's reference kernel took in each round: its history, which it is judged by.
canary_readings = Table(
    "canary_readings",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("device_id", ForeignKey("devices.device_id"), nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("target", Text, nullable=False),
    Column("lease_id", ForeignKey("leases.lease_id"), nullable=False, unique=True),
    Column("taken_at", Double, nullable=False),
    Column("canary_s", Double, nullable=False),
    Index("ix_canary_readings_device", "device_id", "fingerprint", "target", "seq"),
)

# What a device was when it measured: an agent's home may move to another machine.
device_profiles = Table(
    "device_profiles",
    metadata,
    Column("device_id", ForeignKey("devices.device_id"), primary_key=True),
    Column("fingerprint", String, primary_key=True),
    Column("profile", Text, nullable=False),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("campaign_id", String, nullable=False, unique=True),
    Column("idempotency_key", String, unique=True),
    Column("name", String, nullable=False, index=True),
    Column("spec", JsonText, nullable=False),
    Column("state", EnumText, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("error_reason", String, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("activity", Text, nullable=False),
    Column("trials_wanted", BigInteger, nullable=False),
    Column("tuning_s", Double, nullable=False),
    Column("tuning_since", Double),
    Column("groups", JsonText, nullable=False),
    Column("onnx_digest", String, nullable=False),
    Column("inputs_digest", String, nullable=False),
    Column("outputs_digest", String, nullable=False),
    Column("artifacts", JsonText, nullable=False),
    Column("artifact_dir", Text, nullable=False),
    Column("tuning_ended", Text, nullable=False, server_default=""),
    Column("tvm_version", String, nullable=False, server_default=""),
)

# One row for each TaskKey, with a summary that ingest keeps up to date.
record_sets = Table(
    "record_sets",
    metadata,
    Column("record_set_id", _Serial, primary_key=True),
    Column("workload", String, nullable=False),
    Column("target", Text, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("baseline_s", Double),
    Column("best_s", Double),
    Column("best_candidate", String, nullable=False),
    UniqueConstraint("workload", "target", "fingerprint"),
    Index("ix_record_sets_hardware", "fingerprint"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("campaign_id", ForeignKey("campaigns.campaign_id"), nullable=False),
    Column("record_set_id", ForeignKey("record_sets.record_set_id"), nullable=False),
    Column("name", String, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("flops", Double, nullable=False),
    Column("workload_digest", String, nullable=False),
    Column("exhausted", Boolean, nullable=False),
    Column("trials", BigInteger, nullable=False),
    Column("measured", BigInteger, nullable=False),
    Column("sources", JsonText, nullable=False, server_default="{}"),
    UniqueConstraint("campaign_id", "record_set_id"),
)

_ACTIVE = text("state = 'active'")

leases = Table(
    "leases",
    metadata,
    Column("lease_id", String, primary_key=True),
    Column("fencing_token", BigInteger, nullable=False),
    Column("device_id", ForeignKey("devices.device_id"), nullable=False),
    Column("campaign_id", ForeignKey("campaigns.campaign_id"), nullable=False),
    Column("kind", EnumText, nullable=False),
    Column("target", Text, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("workload", String, nullable=False),
    Column("state", EnumText, nullable=False),
    Column("granted_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("best_s", Double),
    Column("error", Text, nullable=False),
    Column("phase_seconds", JsonText, nullable=False),
    # Stored under it so far; counted for what an agent of this coordinator measures.
    Column("trials", BigInteger, nullable=False, server_default="0"),
    # Last, so that reading the others does not read through it.
    Column("message", LargeBinary, nullable=False),
    Index("ix_leases_state_device", "state", "device_id"),
    Index("ix_leases_campaign", "campaign_id", "fencing_token"),
    Index("ix_leases_hardware", "campaign_id", "fingerprint", "fencing_token"),
    Index(
        "ix_leases_active_hardware",
        "fingerprint",
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    ),
    Index("ix_leases_device", "device_id", "fencing_token"),
    Index(
        "uq_leases_active_device",
        "device_id",
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    ),
    Index(
        "uq_leases_active_work",
        "campaign_id",
        "kind",
        "workload",
        "target",
        "fingerprint",
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    ),
)

IS_ACTIVE = text("leases.state = 'active'")
"""As a literal, not as a parameter: only so an index of the active ones can be used."""

trials = Table(
    "trials",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("trial_id", String, nullable=False, unique=True),
    Column("lease_id", ForeignKey("leases.lease_id"), nullable=False),
    Column("device_id", ForeignKey("devices.device_id"), nullable=False),
    Column("campaign_id", ForeignKey("campaigns.campaign_id"), nullable=False),
    Column("record_set_id", ForeignKey("record_sets.record_set_id"), nullable=False),
    Column("candidate", String, nullable=False),
    Column("verdict", EnumText, nullable=False),
    Column("latency_s", Double),
    Column("noise", Double, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("predicted", Double),
    Column("model_version", String, nullable=False),
    Column("explored", Boolean, nullable=False),
    Column("samples_s", JsonText, nullable=False),
    Column("error", Text, nullable=False),
    Column("build_s", Double),
    Column("run_s", Double),
    Column("started_at", Double, nullable=False),
    Column("conditions", JsonText, nullable=False),
    Index("ix_trials_fastest", "record_set_id", "latency_s", "candidate"),
    Index("ix_trials_tried", "record_set_id", "candidate", "verdict"),
    Index("ix_trials_campaign", "campaign_id", "seq"),
    Index("ix_trials_lease", "lease_id"),
)

# Apart from their trials, so that scanning trials does not read through megabytes of these.
trial_payloads = Table(
    "trial_payloads",
    metadata,
    Column("trial_seq", ForeignKey("trials.seq"), primary_key=True),
    Column("stores", Integer),
    Column("features", LargeBinary),
    Column("trace", LargeBinary, nullable=False),
)

# What a campaign measures again, and which trials of before that repeats.
replays = Table(
    "replays",
    metadata,
    Column("campaign_id", ForeignKey("campaigns.campaign_id"), primary_key=True),
    Column("record_set_id", ForeignKey("record_sets.record_set_id"), primary_key=True),
    Column("candidate", String, primary_key=True),
    Column("source_seq", ForeignKey("trials.seq"), nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("version", String, nullable=False, unique=True),
    Column("parent", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("checkpoint_digest", String, nullable=False),
    Column("feature_schema", String, nullable=False),
    Column("promoted", Boolean, nullable=False),
    Column("why", Text, nullable=False),
    Column("metrics", JsonText, nullable=False),
    Column("trials", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("training_s", Double, nullable=False),
    Column("rolled_back", Boolean, nullable=False, server_default=false()),
    # Counts up with every promotion; null where a version is not in use. The highest is current.
    Column("promotion", BigInteger),
    Index("uq_model_versions_promotion", "promotion", unique=True),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("token_id", String, primary_key=True),
    Column("secret_hash", String, nullable=False),
    Column("role", EnumText, nullable=False),
    Column("name", String, nullable=False),
    Column("labels", JsonText, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String, nullable=False),
    Column("revoked", Boolean, nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String, primary_key=True),
    Column("role", EnumText, nullable=False),
    Column("name", String, nullable=False, index=True),
    Column("key_digest", String, nullable=False),
    Column("token_id", String, nullable=False),
    Column("issued_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("labels", JsonText, nullable=False),
    Column("revoked", Boolean, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", String, nullable=False),
    Column("peer", String, nullable=False),
    Column("action", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("outcome", String, nullable=False),
)
