"""Where the time of a network goes: by the functions it calls, or by the nodes of its graph."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MAX_RUNS = 20
"""Runs profiled in one sample, at the most: onnxruntime keeps about 1 KiB of each node of a run."""

_KERNEL = "_kernel_time"
"""How onnxruntime ends the name of the event that is a node at work."""

OpKey = tuple[str, str]
"""Name of a function or node, and the node's type."""
Spent = Mapping[OpKey, tuple[int, float]]
"""Calls and seconds of each, in the order of the first calls."""


class Profiler(Protocol):
    """A network that notes where its time goes while it runs, which costs time of its own."""

    def sample(self, warm_up: int, number: int) -> float:
        """Run it, and return the seconds per run of those after the first ``warm_up``."""

    def found(self) -> dict[str, Any]:
        """Return what :func:`summarise` does; no sample may follow."""


class RelaxProfiler:
    """Times every call that Relax's VM makes, built-in functions included.

    TVM's wheel comes without the VM's own profiler (no ``vm_profiler_load_executable``), so this is
    Python called before and after each call: some microseconds a call, part of which counts as the
    function's.
    """

    def __init__(self, machine: Any, run: Callable[[], None]) -> None:
        self._machine = machine
        self._run = run
        self._samples: list[Spent] = []
        self._seconds: list[float] = []
        self._spent: dict[OpKey, list[float]] = {}
        self._open: list[list[float]] = []

    def sample(self, warm_up: int, number: int) -> float:
        """See :class:`Profiler`."""
        self._machine.set_instrument(self._note)
        try:
            for _ in range(warm_up):
                self._run()
            self._spent = {}
            began = time.perf_counter()
            for _ in range(number):
                self._run()
            seconds = (time.perf_counter() - began) / number
        finally:
            self._machine.set_instrument(None)
        self._seconds.append(seconds)
        self._samples.append(
            {key: (round(calls / number), s / number) for key, (calls, s) in self._spent.items()}
        )
        return seconds

    def found(self) -> dict[str, Any]:
        """See :class:`Profiler`."""
        return summarise(self._samples, self._seconds)

    def _note(self, _function: Any, name: str, before: bool, _result: Any, *_arguments: Any) -> int:
        now = time.perf_counter()
        if before:
            # What a function calls itself is not its own time, but that of what it calls.
            self._open.append([0.0, time.perf_counter()])
            return 0
        inner, began = self._open.pop()
        if self._open:
            self._open[-1][0] += now - began
        spent = self._spent.setdefault((str(name), ""), [0, 0.0])
        spent[0] += 1
        spent[1] += now - began - inner
        return 0


class OnnxProfiler:
    """Runs a session that profiles; onnxruntime writes what it found at the end."""

    def __init__(self, session: Any, run: Callable[[], None]) -> None:
        """Take a session with ``enable_profiling`` and a function that runs it once."""
        self._session = session
        self._run = run
        self._runs = 0
        self._samples: list[tuple[int, int]] = []
        self._seconds: list[float] = []

    def sample(self, warm_up: int, number: int) -> float:
        """See :class:`Profiler`."""
        for _ in range(warm_up):
            self._run()
        began = time.perf_counter()
        for _ in range(number):
            self._run()
        seconds = (time.perf_counter() - began) / number
        first = self._runs + warm_up
        self._runs = first + number
        self._samples.append((first, self._runs))
        self._seconds.append(seconds)
        return seconds

    def found(self) -> dict[str, Any]:
        """See :class:`Profiler`."""
        path = Path(self._session.end_profiling())
        try:
            runs = spent_by_run(json.loads(path.read_text(encoding="utf-8")))
        finally:
            path.unlink(missing_ok=True)
        samples = [_mean(runs[first:end]) for first, end in self._samples]
        return summarise(samples, self._seconds)


@dataclass
class _Node:
    key: OpKey
    began: int
    ended: int
    own: int
    """Microseconds less those of nodes within, which the branches of If and Loop have."""


def spent_by_run(events: Iterable[Mapping[str, Any]]) -> list[Spent]:
    """Read onnxruntime's profile (its events, times in microseconds); one result a run."""
    runs: list[tuple[int, int]] = []
    nodes: list[_Node] = []
    for event in events:
        began, ended = int(event.get("ts", 0)), int(event.get("ts", 0)) + int(event.get("dur", 0))
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            op = str(event["args"]["op_name"])
            # A node need not have a name.
            shown = name.removesuffix(_KERNEL) or f"{op}_{event['args'].get('node_index', '')}"
            nodes.append(_Node((shown, op), began, ended, ended - began))
        elif event.get("cat") == "Session" and name == "model_run":
            runs.append((began, ended))
    runs.sort()
    nodes.sort(key=lambda node: (node.began, -node.ended))
    _leave_inner_out(nodes)
    found: list[dict[OpKey, tuple[int, float]]] = [{} for _ in runs]
    index = 0
    for node in nodes:
        while index < len(runs) and runs[index][1] < node.began:
            index += 1
        if index == len(runs):
            break
        calls, seconds = found[index].get(node.key, (0, 0.0))
        found[index][node.key] = (calls + 1, seconds + node.own * 1e-6)
    return list(found)


def _leave_inner_out(nodes: Sequence[_Node]) -> None:
    outer: list[_Node] = []
    for node in nodes:
        while outer and node.ended > outer[-1].ended:
            outer.pop()
        if outer and node.began < outer[-1].ended:
            outer[-1].own -= node.ended - node.began
        outer.append(node)


def _mean(runs: Sequence[Spent]) -> Spent:
    """Average runs of one sample; each of them calls the same."""
    total: dict[OpKey, list[float]] = {}
    for run in runs:
        for key, (calls, seconds) in run.items():
            entry = total.setdefault(key, [0, 0.0])
            entry[0] += calls
            entry[1] += seconds
    return {key: (round(c / len(runs)), s / len(runs)) for key, (c, s) in total.items()}


def summarise(samples: Sequence[Spent], seconds: Sequence[float]) -> dict[str, Any]:
    """Put samples together.

    Args:
        samples: what a run spends in each function or node.
        seconds: what a run takes in each sample.

    Returns:
        ``{"ops": [{"name", "op", "calls", "seconds"}], "between_s": [seconds]}``: medians over the
        samples, and for each sample what passed between the calls. Where others disturb now this
        call and now that one, the medians add up to less than the median of a run.
    """
    keys = dict.fromkeys(key for sample in samples for key in sample)
    ops = [
        {
            "name": name,
            "op": op,
            "calls": round(statistics.median(s.get((name, op), (0, 0.0))[0] for s in samples)),
            "seconds": statistics.median(s.get((name, op), (0, 0.0))[1] for s in samples),
        }
        for name, op in keys
    ]
    between = [
        whole - sum(s for _, s in sample.values())
        for sample, whole in zip(samples, seconds, strict=True)
    ]
    return {"ops": ops, "between_s": between}
