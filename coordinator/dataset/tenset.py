"""Reads TenSet's measure records: JSON lines, as published, line by line in bounded memory.

TenSet (tlc-pack/tenset, NeurIPS'21) has a file a task, ``measure_records/DEVICE/TASK.json``, and in
it a line a program, in the format of TVM 0.8's auto-scheduler:

    {"i": [[workload_key, target, [8 hardware numbers], target_host, layout, []],
           [[], [transform steps]]],
     "r": [[seconds a run, …], error number, seconds in all, timestamp], "v": "v0.6"}

The eight hardware numbers are those of the machine that wrote the programs down, not of the one
that ran them, and are not read: the folder names the device. Nothing is evaluated, and what cannot
be used is counted and named rather than trusted or fatal.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from coordinator.costmodel.steps_tenset import check_transform, tenset_steps, workload_steps
from coordinator.dataset.schema import invalid
from tunefleet.schedules.step import Step
from tunefleet.targets import canonical_target, target_cores
from tunefleet.trials import Verdict

RECORDS_FOLDER = "measure_records"
"""Within TenSet's ``dataset``; has a folder a device."""

MAX_LINE_BYTES = 256 * 1024
"""A hundred times a line of TenSet's."""

MAX_NAMED = 20
"""Broken lines of which is said where and why; all are counted."""

_FAILED_S = 1e9
"""TVM writes 1e10 for what did not run; some such lines carry no error number."""

_LARGEST_S = 1e12
_MAX_COSTS = 1_000
_MAX_TEXT_CHARS = 4_096
_MAX_WHY_CHARS = 160

_TASKS_AT_ONCE = 64
"""A file holds one task, so its key and target are those of the line before."""

# tvm.auto_scheduler.measure.MeasureErrorNo; the rest are errors of unknown kind.
_VERDICTS = {
    0: Verdict.OK,
    1: Verdict.BUILD_ERROR,
    2: Verdict.BUILD_ERROR,
    3: Verdict.BUILD_ERROR,
    6: Verdict.BUILD_ERROR,
    7: Verdict.TIMEOUT,
}


@dataclass(frozen=True)
class TensetRow:
    """One measured program."""

    place: str
    """File below the place read, and line: ``platinum-8272/([…],llvm).json:17``."""
    device: str
    """Name of the folder."""
    target: str
    """Canonical JSON."""
    workload_key: str
    """JSON without white space: the hash of a graph, then arguments of its shape."""
    workload: str
    """Hash of the key, 16 hex digits: equal ones are structurally equal workloads."""
    transform: list[list[Any]] = field(repr=False)
    """The transform steps as parsed."""
    costs_s: tuple[float, ...]
    """Seconds a run, one value a repeat; something very large where the measurement failed."""
    error: int
    """``MeasureErrorNo``; 0: none."""

    @property
    def verdict(self) -> Verdict:
        """What the measurement is worth."""
        if self.error == 0 and max(self.costs_s) >= _FAILED_S:
            return Verdict.RUNTIME_ERROR
        return _VERDICTS.get(self.error, Verdict.RUNTIME_ERROR)

    @property
    def latency_s(self) -> float | None:
        """Mean of the costs in seconds, by which TenSet ranks; ``None`` after an error."""
        return statistics.fmean(self.costs_s) if self.verdict.has_latency else None

    @property
    def noise(self) -> float:
        """Standard deviation of the costs over their mean; NaN where there are not two."""
        if not self.verdict.has_latency or len(self.costs_s) < 2:
            return math.nan
        return statistics.stdev(self.costs_s) / statistics.fmean(self.costs_s)

    def candidate(self) -> str:
        """Return a hash of workload and transform steps, 16 hex digits; the same on all devices."""
        return _hash([self.workload_key, self.transform])

    def steps(self) -> list[Step]:
        """Return the program as schedule steps."""
        return tenset_steps(self.workload_key, self.transform)


@dataclass(frozen=True)
class BrokenLine:
    """A line that cannot be used; line 0 is the file itself."""

    file: str
    line: int
    why: str


@dataclass
class Damage:
    """What was read and what was not; grows while a reader runs."""

    lines: int = 0
    """Lines that were to hold a record."""
    broken: int = 0
    """Lines and files that could not be used."""
    named: list[BrokenLine] = field(default_factory=list)
    """The first ``MAX_NAMED`` of them."""
    bytes_read: int = field(default=0, compare=False)

    def note(self, file: str, line: int, why: str) -> BrokenLine:
        """Count what cannot be used, and return it."""
        found = BrokenLine(file, line, why[:_MAX_WHY_CHARS])
        self.broken += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(found)
        return found


def find_records(place: Path) -> list[Path]:
    """Find files of records.

    Args:
        place: TenSet's ``dataset`` folder, its ``measure_records``, a device's folder or one file.

    Raises:
        TuneFleetError: DATASET_INVALID, there is none.
    """
    if place.is_file():
        return [place]
    inner = place / RECORDS_FOLDER
    files = sorted((inner if inner.is_dir() else place).rglob("*.json"))
    if not files:
        raise invalid(
            f"{place} holds no records of TenSet's; give the folder that measure_records/DEVICE/"
            "*.json was unpacked to"
        )
    return files


def read_tenset(place: Path, damage: Damage) -> Iterator[TensetRow | BrokenLine]:
    """Yield what the lines hold, one file after the other, never holding more than a line.

    Args:
        place: see :func:`find_records`.
        damage: where lines are counted, and those named that cannot be used.

    Raises:
        TuneFleetError: DATASET_INVALID, there are no files.
    """
    place = place.absolute()
    for path in find_records(place):
        name = path.name if path == place else path.relative_to(place).as_posix()
        yield from read_file(path, name, damage)


def read_file(path: Path, name: str, damage: Damage) -> Iterator[TensetRow | BrokenLine]:
    """Yield what the lines of one file hold, never holding more than a line.

    Args:
        path: the file.
        name: by which its lines are called.
        damage: see :func:`read_tenset`.
    """
    try:
        with path.open("rb") as file:
            yield from _read_file(file, name, path.parent.name, damage)
    except OSError as e:
        yield damage.note(name, 0, f"it cannot be read: {e}")


def copy_lines(source: Path, numbers: Collection[int], destination: Path) -> None:
    """Copy some lines of a file as they are, to a new one whose folder is made if missing.

    Args:
        source: file of records.
        numbers: of the lines, from 1, as rows' places have them.
        destination: file to write.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as lines, destination.open("wb") as copied:
        for number, line in enumerate(_lines(lines), start=1):
            if line is not None and number in numbers:
                copied.write(line if line.endswith(b"\n") else line + b"\n")


def _read_file(
    file: BinaryIO, name: str, device: str, damage: Damage
) -> Iterator[TensetRow | BrokenLine]:
    for number, line in enumerate(_lines(file), start=1):
        damage.bytes_read += MAX_LINE_BYTES if line is None else len(line)
        if line is not None and (not line.strip() or line.startswith(b"#")):
            continue
        damage.lines += 1
        try:
            found = _parse(line, f"{name}:{number}", device)
        except ValueError as e:
            yield damage.note(name, number, str(e))
        else:
            yield found


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield lines, ``None`` for one that is too long to be held."""
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


def _parse(line: bytes | None, place: str, device: str) -> TensetRow:
    if line is None:
        raise ValueError(f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    if not isinstance(record, dict) or not {"i", "r"} <= record.keys():
        raise ValueError("it is no record with an input i and a result r")
    task, state = _items(record["i"], 2, "the input")[:2]
    spec, target = _items(task, 2, "the task")[:2]
    transform = _items(state, 2, "the state")[1]
    costs, error = _items(record["r"], 2, "the result")[:2]
    key, workload = _workload(_text(spec, "workload key"))
    return TensetRow(
        place=place,
        device=device,
        target=_target(_text(target, "target")),
        workload_key=key,
        workload=workload,
        transform=check_transform(transform),
        costs_s=_costs(costs, error),
        error=error,
    )


def _items(value: Any, least: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise ValueError(f"{what} is no list of at least {least}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARS or not value.isprintable():
        raise ValueError(f"the {what} is missing, too long or no printable text")
    return value


def _costs(costs: Any, error: Any) -> tuple[float, ...]:
    if not isinstance(error, int) or isinstance(error, bool):
        raise ValueError("the error number is none")  # noqa: TRY004 - one kind of failure
    if not isinstance(costs, list) or len(costs) > _MAX_COSTS:
        raise ValueError("the costs are missing or too many")
    if not all(isinstance(cost, (int, float)) and 0 < cost <= _LARGEST_S for cost in costs):
        raise ValueError("a cost is not a positive time")
    if error == 0 and not costs:
        raise ValueError("it has neither costs nor an error")
    return tuple(map(float, costs))


@lru_cache(maxsize=_TASKS_AT_ONCE)
def _workload(key: str) -> tuple[str, str]:
    """Return a workload key without white space, and its hash. Raises ValueError if it is none."""
    workload_steps(key)
    parsed = json.loads(key)
    return json.dumps(parsed, separators=(",", ":")), workload_hash(parsed)


def workload_hash(key: Any) -> str:
    """Return 16 hex digits that name a workload by its parsed key."""
    return _hash(key)


@lru_cache(maxsize=_TASKS_AT_ONCE)
def _target(spec: str) -> str:
    """Return the canonical form of a target. Raises ValueError if it is none."""
    if spec.lstrip().startswith("{"):
        raise ValueError("the target is not in the spelling of TVM 0.8")
    target = canonical_target(spec)
    target_cores(target)
    return target


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()[:16]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
