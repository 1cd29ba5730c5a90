"""Damaged files for every reader of files, each in a process of its own with limits."""

from __future__ import annotations

import multiprocessing
import random
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from coordinator.confinement import DATASET_MEMORY_BYTES, confine
from scripts.benches import fuzz_messages
from scripts.benches.fuzz_subjects import Subject, change_json, deep, subjects
from scripts.benches.harness import Figure, figure, note

_INPUTS = 20_000
_QUICK_INPUTS = 300
"""For each reader, times its share."""
_STALLED_S = 120.0
"""No file of some kilobytes takes this long to be refused."""
_KEPT = 20
_SHOWN_CHARS = 1_500


@dataclass
class _Found:
    """What came of one reader's files."""

    inputs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """By the end of the traceback."""
    crashes: int = 0
    """Of a reader that should not be able to crash its process."""
    deaths: int = 0
    """Of the others: the job of such a file ends with an error that says so."""


def run(place: Path, *, quick: bool, seed: int, inputs: int = 0) -> dict[str, Figure]:
    """Have every reader read damaged files.

    Args:
        place: folder for them; what failed stays there.
        quick: some hundred for each reader.
        seed: of all chance.
        inputs: for each reader, times its share; 0 for as many as are usual.
    """
    each = inputs or (_QUICK_INPUTS if quick else _INPUTS)
    total, readers = _Found(), subjects()
    for subject in readers:
        found = _fuzz(subject, place / subject.name.replace(" ", "-"), seed, each)
        note(
            f"fuzz: {subject.name}: {found.inputs} files, {sum(found.faults.values())} faults, "
            f"{found.crashes} crashes, {found.deaths} deaths"
        )
        for text, count in found.faults.most_common(3):
            note(f"fuzz: {count} x {text}")
        total.inputs += found.inputs
        total.faults += found.faults
        total.crashes += found.crashes
        total.deaths += found.deaths
    return {
        "files": figure([total.inputs]),
        "readers": figure([len(readers)]),
        "file_faults": figure([sum(total.faults.values())]),
        "file_crashes": figure([total.crashes]),
        "file_deaths": figure([total.deaths]),
    }


def _fuzz(subject: Subject, place: Path, seed: int, inputs: int) -> _Found:
    place.mkdir(parents=True, exist_ok=True)
    wanted = max(1, round(inputs * subject.share))
    context = multiprocessing.get_context("spawn")
    at: Synchronized[int] = context.Value("q", 0)
    found = _Found()
    while at.value < wanted:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(
            target=_read_many, args=(subject.name, place, (seed, wanted), at, sender), daemon=True
        )
        child.start()
        sender.close()
        code = _followed(child, at)
        while receiver.poll():
            try:
                found.faults[receiver.recv()] += 1
            except EOFError:
                break
        if code == 0:
            break
        # The file that it died of is kept under the name of the reader; the next one follows.
        (place / "input").replace(place / f"death-{at.value}")
        note(f"fuzz: {subject.name}: the reader ended with {code} at file {at.value}")
        if subject.may_crash:
            found.deaths += 1
        else:
            found.crashes += 1
        at.value += 1
    found.inputs = wanted
    return found


def _followed(child: Any, at: Synchronized[int]) -> int:
    """Wait for a process that gets on; returns its exit code."""
    seen = -1
    while child.exitcode is None:
        child.join(_STALLED_S)
        if child.exitcode is None and at.value == seen:
            child.kill()
            child.join()
        seen = at.value
    return int(child.exitcode)


def _read_many(
    name: str, place: Path, span: tuple[int, int], at: Synchronized[int], sender: Any
) -> None:
    seed, wanted = span
    [subject] = [s for s in subjects() if s.name == name]
    seeds = subject.seeds(place)
    confine(memory_bytes=DATASET_MEMORY_BYTES)
    path = place / "input"
    sent = 0
    while at.value < wanted:
        number = at.value
        path.write_bytes(damaged(subject, seeds, random.Random(f"{seed}/{name}/{number}")))
        try:
            subject.read(path)
        except subject.expected:
            pass
        except Exception:
            if sent < _KEPT:
                (place / f"fault-{number}").write_bytes(path.read_bytes())
                sender.send(traceback.format_exc()[-_SHOWN_CHARS:])
            sent += 1
        at.value = number + 1


def damaged(subject: Subject, seeds: list[bytes], rng: random.Random) -> bytes:
    """Make a file that a reader should refuse, or can read all the same."""
    data = rng.choice(seeds)
    how = rng.random()
    if subject.json_lines and how < 0.6:
        return change_json(data, rng)
    if subject.json_lines and how < 0.63:
        return deep(rng)
    if how < 0.7:
        return fuzz_messages.random_bytes(rng)
    return fuzz_messages.damage(data, rng)
