"""The outbox keeps what was put into it, whatever happens to the process or the file."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.outbox import Outbox

_WRITER = """
import sys
from pathlib import Path
from agent.outbox import Outbox

outbox = Outbox(Path(sys.argv[1]))
for number in range(100_000):
    outbox.put(f"trial-{number}", "lease", 1, b"x" * 3000)
    print(f"trial-{number}", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def _ids(outbox: Outbox, count: int = 1000) -> list[str]:
    batch = outbox.next_batch(count, 2**30)
    return [] if batch is None else [trial.trial_id for trial in batch.trials]


def test_the_oldest_lease_comes_first_and_alone(path: Path) -> None:
    outbox = Outbox(path)
    outbox.put("a", "first", 1, b"1")
    outbox.put("b", "second", 2, b"2")
    outbox.put("c", "first", 1, b"3")
    batch = outbox.next_batch(10, 1000)
    assert batch is not None
    assert (batch.lease_id, batch.fencing_token) == ("first", 1)
    assert [(t.trial_id, t.payload) for t in batch.trials] == [("a", b"1"), ("c", b"3")]


def test_a_batch_holds_no_more_trials_than_asked_for(path: Path) -> None:
    outbox = Outbox(path)
    for name in "abc":
        outbox.put(name, "lease", 1, b"")
    assert _ids(outbox, 2) == ["a", "b"]


def test_a_batch_holds_no_more_bytes_than_asked_for(path: Path) -> None:
    outbox = Outbox(path)
    for name in "abc":
        outbox.put(name, "lease", 1, bytes(400))
    batch = outbox.next_batch(10, 1000)
    assert batch is not None
    assert [trial.trial_id for trial in batch.trials] == ["a", "b"]


def test_a_trial_larger_than_the_batch_is_handed_out_all_the_same(path: Path) -> None:
    outbox = Outbox(path)
    outbox.put("a", "lease", 1, bytes(5000))
    batch = outbox.next_batch(10, 1000)
    assert batch is not None
    assert [trial.trial_id for trial in batch.trials] == ["a"]


def test_an_empty_outbox_has_no_batch(path: Path) -> None:
    assert Outbox(path).next_batch(10, 1000) is None


def test_a_trial_put_twice_is_kept_once(path: Path) -> None:
    outbox = Outbox(path)
    outbox.put("a", "lease", 1, b"first")
    outbox.put("a", "lease", 1, b"second")
    batch = outbox.next_batch(10, 1000)
    assert batch is not None
    assert [trial.payload for trial in batch.trials] == [b"first"]


def test_discarded_trials_are_gone(path: Path) -> None:
    outbox = Outbox(path)
    for name in "abc":
        outbox.put(name, "lease", 1, b"")
    outbox.discard(["a", "c", "unknown"])
    assert _ids(outbox) == ["b"]


def test_pending_counts_by_lease_and_in_all(path: Path) -> None:
    outbox = Outbox(path)
    outbox.put("a", "first", 1, b"")
    outbox.put("b", "second", 1, b"")
    outbox.put("c", "second", 1, b"")
    assert (outbox.pending("second"), outbox.pending("other"), outbox.pending()) == (2, 0, 3)


def test_trials_survive_closing(path: Path) -> None:
    outbox = Outbox(path)
    outbox.put("a", "lease", 1, b"")
    outbox.close()
    assert _ids(Outbox(path)) == ["a"]


def test_it_is_full_at_its_limit_and_has_room_again_after_discarding(path: Path) -> None:
    outbox = Outbox(path, limit_bytes=100_000)
    assert not outbox.full
    for number in range(30):
        outbox.put(str(number), "lease", 1, bytes(4000))
    assert outbox.full
    outbox.discard(map(str, range(30)))
    assert not outbox.full


def test_the_file_shrinks_when_trials_are_discarded(path: Path) -> None:
    outbox = Outbox(path)
    for number in range(200):
        outbox.put(str(number), "lease", 1, bytes(4000))
    outbox.discard(map(str, range(200)))
    outbox.close()
    assert path.stat().st_size < 100_000


def test_threads_may_put_at_once(path: Path) -> None:
    outbox = Outbox(path)
    with ThreadPoolExecutor(4) as threads:
        for number in range(100):
            threads.submit(outbox.put, str(number), "lease", 1, b"")
    assert sorted(_ids(outbox), key=int) == [str(number) for number in range(100)]


@pytest.mark.parametrize("seed", range(3))
def test_what_was_put_survives_sigkill(path: Path, seed: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        wanted = random.Random(seed).randint(5, 60)
        acknowledged = [writer.stdout.readline().strip() for _ in range(wanted)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().split("\n")[:-1]
    kept = _ids(Outbox(path), 100_000)
    assert kept[: len(acknowledged)] == acknowledged
    # At most the one whose commit the kill caught before it could be told of.
    assert len(kept) - len(acknowledged) <= 1


def test_a_file_that_is_no_database_is_moved_aside(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    outbox = Outbox(path)
    outbox.put("a", "lease", 1, b"")
    assert _ids(outbox) == ["a"]
    assert path.with_name("outbox.db.damaged-1").read_bytes().startswith(b"this is no")


def test_a_second_damaged_file_does_not_replace_the_first(path: Path) -> None:
    for content in (b"one " * 1000, b"two " * 1000):
        path.write_bytes(content)
        Outbox(path).close()
        path.unlink()
    assert path.with_name("outbox.db.damaged-1").read_bytes().startswith(b"one")
    assert path.with_name("outbox.db.damaged-2").read_bytes().startswith(b"two")


def test_damage_that_shows_while_at_work_moves_the_file_aside(path: Path) -> None:
    writer = Outbox(path)
    # More than SQLite's page cache, so that not all is in memory.
    for number in range(1000):
        writer.put(str(number), "lease", 1, bytes(16_000))
    writer.close()
    outbox = Outbox(path)
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xff" * (path.stat().st_size - 40_000))
    outbox.discard(map(str, range(1000)))
    outbox.put("a", "lease", 1, b"")
    assert _ids(outbox) == ["a"]
    assert path.with_name("outbox.db.damaged-1").exists()
