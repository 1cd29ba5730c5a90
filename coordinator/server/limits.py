"""Times and sizes of the server, each with the reason for its value."""

from __future__ import annotations

HEARTBEAT_INTERVAL_S = 5.0
"""Short enough that a device's state is worth looking at, and nothing as a load."""

HEARTBEATS_A_S = 100.0
"""By all agents: of many, each sends them less often."""

LONGEST_HEARTBEAT_INTERVAL_S = 10.0

OFFLINE_AFTER_S = 40.0
"""Three of the rarest heartbeats may be lost: a busy board is late now and then."""

LEASE_TTL_S = 60.0
"""An agent renews at a third of this; a device that fell silent loses its round after it."""

LEASE_CHECK_INTERVAL_S = 1.0
"""How late an expired lease may be noticed."""

SUSPENDED_AFTER_S = 10.0
"""A gap this long between two checks means that this process was stopped, not the agents."""

RETRY_AFTER_S = 5.0
"""When an agent without work asks again, at the earliest; hints bring it sooner."""

ASKING_A_S = 20.0
"""Questions for work a second by all that have none: of many, each asks less often."""

ASKING_AT_A_TIME = 16
"""Devices whose questions for work are answered at a time: more would only wait for each other."""

SHORTEST_WAIT_FOR_A_TURN_S = 0.25
LONGEST_WAIT_FOR_A_TURN_S = 60.0
"""Who comes back when no turn is free is told another time."""

REPORTS_A_S = 75.0
"""Reports of trials a second by all agents: of many, each gathers its trials for longer."""

QUICKEST_REPORTS_S = 0.5
LONGEST_REPORTS_S = 10.0
"""Whoever watches a small fleet sees trials come at once; nobody watches those of thousands."""

TOLD_OF_A_ROUNDS_END = 2
"""Waiting devices that hear of it: one task is free again, and who had it asks by itself."""

HEARTBEATS_GATHERED_S = 0.2
"""For so long heartbeats are gathered and noted together; nobody waits for the answer to one."""

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

MAX_TRIALS_WAITING = 80_000
"""Of all reports, to be stored: hundreds of megabytes. Agents keep theirs and come again."""

TRIALS_WAIT_S = 10.0
"""When they are to: a good part of those that wait is stored by then."""

MAX_NAME_CHARS = 200
"""Names, ids and labels are for people to read."""

MAX_DESCRIPTION_CHARS = 10_000
"""A description is a paragraph, a licence a name or a link."""

MAX_DATASET_FILES = 1000
"""Parts of one dataset; a million trials fit into one."""

MAX_CAMPAIGN_TRIALS = 10_000_000
"""Far more than any campaign needs, and far from what would overflow a column."""

MAX_TIME_LIMIT_S = 366 * 86400.0
"""A campaign of a year is none that anybody waits for."""

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

HANDSHAKE_LIMIT_MS = 20_000
"""Who connects and does not shake hands in this time is gone; gRPC would wait for two minutes."""

STREAMS_A_CONNECTION = 1024
"""An agent or a command needs a handful; a program may hold a thousand agents on one connection."""

CONNECTION_AGE_MS = 3_600_000
"""Connections are made anew so often: what a peer never reads goes with the old one."""

CONNECTION_AGE_GRACE_MS = 5 * 3_600_000
"""Time for the longest stream to end on an old connection."""

MESSAGE_WAIT_S = 30.0
"""Between two messages of a peer: three times a lost packet's longest delay on a mobile network."""

ANSWER_LIMIT_S = 60.0
"""Twice what clients wait for; a backup in SQLite or a slow disk may hold a writer for seconds."""

STREAM_LIMIT_S = 5 * 3600.0
"""An export of millions of trials takes less; control streams and watches are opened anew."""

SLOWEST_UPLOAD_BYTES_A_S = 64 * 1024
"""A quarter of what clients count on: an uplink of half a megabit a second."""

UPLOAD_GRACE_S = 60.0
"""From when on an upload must be as fast as that on average."""

REGISTRATIONS_A_S = 50.0
REGISTRATIONS_AT_ONCE = 5000.0
"""Two for each of 1,000 agents that start together, and again soon after."""

TRIALS_A_S = 200.0
"""A device measures three a second at the most, and must be able to catch up."""
TRIALS_AT_ONCE = 4000.0
"""Most of an outbox filled while the coordinator was away, in some 60 calls."""

AGENT_CALLS_A_S = 50.0
AGENT_CALLS_AT_ONCE = 500.0
"""A device makes less than one a second."""

READS_A_S = 200.0
READS_AT_ONCE = 2000.0
WRITES_A_S = 50.0
WRITES_AT_ONCE = 500.0
"""Scripts of all users of a machine count as one peer where nobody has a name."""

BLOB_BYTES_A_S = 256 * 2.0**20
BLOB_BYTES_AT_ONCE = 2.0**30
"""Two gigabits a second; networks are slower, and disks would suffer from more."""

BLOB_STREAMS = 16
STREAMS = 64
"""Streams of one method that a peer may have open; an agent has one, who watches one or a few."""
MAX_ENROLMENT_BYTES = 16 * 1024
"""A certificate request has a few hundred bytes, and who sends it is a stranger."""

MAX_ENROLMENTS_AT_ONCE = 64
"""More strangers wait or are turned away."""

ENROLMENT_AGE_MS = 30_000
"""Joining takes a second; nobody else has business with the enrolment port."""

CLOCK_TOLERANCE_S = 60.0
"""A device whose clock is off by more has no time server, or no battery."""

CLOCK_COMPLAINT_S = 3600.0
"""How often the log tells of such a device."""
