"""Times and sizes of the server, each with the reason for its value."""

from __future__ import annotations

HEARTBEAT_INTERVAL_S = 5.0
"""Short enough that a device's state is worth looking at, and nothing as a load."""

OFFLINE_AFTER_S = 20.0
"""Three heartbeats may be lost: a busy board is late now and then."""

LEASE_TTL_S = 60.0
"""An agent renews at a third of this; a device that fell silent loses its round after it."""

LEASE_CHECK_INTERVAL_S = 1.0
"""How late an expired lease may be noticed."""

SUSPENDED_AFTER_S = 10.0
"""A gap this long between two checks means that this process was stopped, not the agents."""

RETRY_AFTER_S = 5.0
"""When an agent without work asks again; hints bring it sooner."""

WATCH_MIN_INTERVAL_S = 0.2
"""Five updates a second are as many as a person can follow."""

WATCH_MAX_INTERVAL_S = 2.0
"""Elapsed times and ETAs go on where nothing else changes."""

STOP_GRACE_S = 5.0
"""Calls in progress when the server stops may take this long to end."""

CHUNK_BYTES = 256 * 1024
"""Bytes of a blob in one message: far under any limit, and few enough messages."""

MAX_BLOB_BYTES = 2 * 2**30
"""The largest model file that protobuf, and so ONNX, can describe."""

MAX_MESSAGE_BYTES = 16 * 2**20
"""A round's trials with features and traces are some 3 MB; gRPC's own limit is 4 MiB."""

MAX_TRIALS_A_REPORT = 512
"""So that one report does not keep other writers waiting for a second."""

MAX_NAME_CHARS = 200
"""Names, ids and labels are for people to read."""

MAX_DESCRIPTION_CHARS = 10_000
"""A description is a paragraph, a licence a name or a link."""

MAX_DATASET_FILES = 1000
"""Parts of one dataset; a million trials fit into one."""

MAX_CAMPAIGN_TRIALS = 10_000_000
"""Far more than any campaign needs, and far from what would overflow a column."""

MAX_TRIALS_PER_TASK = 10_000
"""Beyond this a task teaches nothing new."""

MAX_FAMILY_WORKLOADS = 5_000
"""Sampling and extracting more would take an hour."""

MAX_MODEL_DESCRIPTION_CHARS = 200
"""What a listing has room for."""

KEEPALIVE_TIME_MS = 30_000
"""A half-open connection shows up after this and the next, not after 15 minutes."""

KEEPALIVE_TIMEOUT_MS = 10_000
"""A peer that does not answer a ping for this long is gone."""

MIN_CLIENT_PING_INTERVAL_MS = 5_000
"""Clients may ping this often; gRPC's default of five minutes hangs up on those that do."""
