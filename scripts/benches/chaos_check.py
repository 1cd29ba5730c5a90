"""What is left after the chaos: read from the coordinator's files, compared with the witness."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.state.estimates import Estimates
from tunefleet.trials import trial_id
from tunefleet.v1 import lease_pb2

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Verdict:
    """What was found; each list names what is wrong, and is empty where nothing is."""

    trials: int = 0
    campaigns: Mapping[str, str] = field(default_factory=dict)
    """State by campaign."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """What failed campaigns say."""
    lost: list[str] = field(default_factory=list)
    """Trials that were acknowledged and are not stored, or not wholly."""
    lost_campaigns: list[str] = field(default_factory=list)
    """Campaigns that were accepted and are not there."""
    duplicated: list[str] = field(default_factory=list)
    """What was stored or counted twice, or whose counter disagrees with what it counts."""
    damaged: list[str] = field(default_factory=list)
    """What the database's own checks find, and blobs that are missing or spoiled."""
    unmeasured: list[str] = field(default_factory=list)
    """Tasks of finished campaigns of which nothing was measured."""
    excessive: list[str] = field(default_factory=list)
    """Leases under which more was measured than was asked for."""


def check_home(home: Path, acknowledged: Collection[str], accepted: Collection[str]) -> Verdict:
    """Check a coordinator's home that nobody uses any more.

    Args:
        home: the folder.
        acknowledged: ids of trials that agents were told are stored.
        accepted: ids of campaigns that users were told are begun.
    """
    with closing(sqlite3.connect(f"file:{home / 'tunefleet.db'}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        stored = {row["trial_id"] for row in connection.execute("SELECT trial_id FROM trials")}
        campaigns = connection.execute("SELECT * FROM campaigns").fetchall()
        states = {row["campaign_id"]: row["state"] for row in campaigns}
        incomplete = set(_incomplete(connection))
        return Verdict(
            trials=len(stored),
            campaigns=states,
            errors={
                row["campaign_id"]: f"{row['error_reason']}: {row['error_message']}"
                for row in campaigns
                if row["state"] == "failed"
            },
            lost=sorted((set(acknowledged) - stored) | incomplete),
            lost_campaigns=sorted(set(accepted) - states.keys()),
            duplicated=[*_repeated(connection), *_miscounted(connection)],
            damaged=[*_damage(connection), *_spoiled_blobs(connection, home / "blobs")],
            unmeasured=_rows(connection, _UNMEASURED),
            excessive=list(_excessive(connection)),
        )


_REPEATED_TRIALS = """
    SELECT lease_id || ' measured ' || candidate || ' ' || count(*) || ' times' FROM trials
    GROUP BY lease_id, candidate HAVING count(*) > 1
"""
_REPEATED_WORK = """
    SELECT 'two leases are active: ' || campaign_id || ' ' || kind || ' ' || workload FROM leases
    WHERE state = 'active' GROUP BY campaign_id, kind, workload, target, fingerprint
    HAVING count(*) > 1
"""
_LEASE_COUNTS = """
    SELECT 'lease ' || l.lease_id || ' counts ' || l.trials || ' trials, and has ' || count(t.seq)
    FROM leases l LEFT JOIN trials t ON t.lease_id = l.lease_id
    GROUP BY l.lease_id HAVING l.trials != count(t.seq)
"""
_DEVICE_COUNTS = """
    SELECT 'device ' || d.name || ' counts ' || d.trials || ' trials, and made ' || count(t.seq)
    FROM devices d LEFT JOIN trials t ON t.device_id = d.device_id
    GROUP BY d.device_id HAVING d.trials != count(t.seq)
"""
# A collection also counts what others had measured of its tasks when it began.
_TASK_COUNTS = """
    SELECT 'task ' || k.name || ' of ' || k.campaign_id || ' counts ' || k.trials || ' trials, '
        || k.measured || ' measured, and has ' || count(t.seq) || ', ' || count(t.latency_s)
    FROM tasks k JOIN campaigns c ON c.campaign_id = k.campaign_id
    LEFT JOIN trials t ON t.record_set_id = k.record_set_id AND t.campaign_id = k.campaign_id
    GROUP BY k.seq
    HAVING CASE json_extract(c.spec, '$.purpose') WHEN 'collect'
        THEN k.trials < count(t.seq) OR k.measured < count(t.latency_s)
        ELSE k.trials != count(t.seq) OR k.measured != count(t.latency_s) END
"""
_UNMEASURED = """
    SELECT k.name || ' of ' || k.campaign_id
    FROM tasks k JOIN campaigns c ON c.campaign_id = k.campaign_id
    JOIN record_sets r ON r.record_set_id = k.record_set_id
    WHERE c.state = 'done' AND r.best_s IS NULL
"""


def _repeated(connection: sqlite3.Connection) -> Iterator[str]:
    yield from _rows(connection, _REPEATED_TRIALS)
    yield from _rows(connection, _REPEATED_WORK)
    for row in connection.execute("SELECT trial_id, lease_id, candidate FROM trials"):
        if row["trial_id"] != trial_id(row["lease_id"], row["candidate"], attempt=0):
            yield f"trial {row['trial_id']} is not named by its lease and candidate"


def _miscounted(connection: sqlite3.Connection) -> Iterator[str]:
    for query in (_LEASE_COUNTS, _DEVICE_COUNTS, _TASK_COUNTS):
        yield from _rows(connection, query)
    estimates: dict[int, Estimates] = {}
    for row in connection.execute(
        "SELECT record_set_id, candidate, latency_s FROM trials WHERE latency_s IS NOT NULL"
        " ORDER BY seq"
    ):
        known = estimates.setdefault(row["record_set_id"], Estimates())
        known.add(row["candidate"], row["latency_s"])
    for row in connection.execute("SELECT record_set_id, best_s FROM record_sets"):
        best_s = estimates.get(row["record_set_id"], Estimates()).best_s
        if row["best_s"] != best_s:
            yield f"record set {row['record_set_id']} says {row['best_s']} s, but it is {best_s}"


def _excessive(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute("SELECT lease_id, kind, trials, message FROM leases"):
        work = lease_pb2.Lease.FromString(row["message"])
        # The program without a schedule comes beside the candidates of a round.
        asked = work.round.trials + work.round.include_baseline + len(work.replay.traces)
        if row["trials"] > asked:
            yield f"{row['kind']} {row['lease_id']} asked for {asked}, and has {row['trials']}"


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    for (found,) in connection.execute("PRAGMA integrity_check"):
        if found != "ok":
            yield str(found)
    for row in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row[1]} of {row[0]} names a row of {row[2]} that is not there"


def _incomplete(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield trials without a trace, or whose features cannot be read."""
    rows = connection.execute(
        "SELECT t.trial_id, p.trace, p.features FROM trials t"
        " LEFT JOIN trial_payloads p ON p.trial_seq = t.seq"
    )
    for row in rows:
        try:
            zlib.decompress(row["trace"])
            if row["features"] is not None:
                zlib.decompress(row["features"])
        except (TypeError, zlib.error):
            yield row["trial_id"]


def _spoiled_blobs(connection: sqlite3.Connection, folder: Path) -> Iterator[str]:
    for digest in sorted(_named_blobs(connection)):
        place = folder / digest[:2] / digest[2:]
        if not place.is_file():
            yield f"blob {digest} is missing"
        elif hashlib.sha256(place.read_bytes()).hexdigest() != digest:
            yield f"blob {digest} is spoiled"


def _named_blobs(connection: sqlite3.Connection) -> set[str]:
    """Return every digest that a row names, in a column of its own or within JSON."""
    texts: list[Any] = []
    for query in (
        "SELECT workload_digest FROM tasks",
        "SELECT digest, checkpoint_digest FROM model_versions",
        "SELECT onnx_digest, inputs_digest, outputs_digest FROM campaigns",
    ):
        texts += [value for row in connection.execute(query) for value in row]
    for row in connection.execute("SELECT spec, groups, artifacts FROM campaigns"):
        texts += [leaf for text in row for leaf in _leaves(json.loads(text or "null"))]
    return {text for text in texts if isinstance(text, str) and _DIGEST.fullmatch(text)}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _rows(connection: sqlite3.Connection, query: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(query)]


def waiting_trials(outbox: Path) -> int:
    """Count the trials that an agent that has ended did not get rid of."""
    if not outbox.exists():
        return 0
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM trial").fetchone()[0])
