"""One network being benchmarked, in a process of its own.

Run as ``python -m agent.benchmark.subject --fd N`` by the job. Requests and answers, as frames:

- ``{"op": "load", "kind", "path", "inputs", "outputs", "threads", "min_repeat_ms"}``:
  ``{"max_abs_err": float, "number": n}`` after running once and comparing.
- ``{"op": "time"}``: ``{"sample_s": seconds per run, "quiet": bool}``.
- ``{"op": "profile"}``: the same, of runs that note where the time goes.
- ``{"op": "found"}``, after the last of these: ``{"ops": [{"name", "op", "calls", "seconds"}],
  "between_s": [seconds per run that passed between the calls]}``.

Each may answer ``{"error": text}`` instead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from agent.benchmark.compare import max_abs_error
from agent.benchmark.profiling import MAX_RUNS, Profiler
from agent.benchmark.runners import Runner, load_runner
from agent.frames import Channel, worker_channel
from tunefleet.machine_lock import MachineLock
from tunefleet.torch_free import forbid_torch

_ERROR_LIMIT = 500
_CALIBRATION_RUNS = 3
_WARM_UP_SHARE = 0.2
"""Runs before a sample, as a share of it: caches hold another subject's data by then, and the
scheduler has to spread the threads again."""


class Subject:
    """A loaded network that can be timed again and again."""

    def __init__(self, runner: Runner, number: int, lock: MachineLock) -> None:
        self._runner = runner
        self.number = number
        self._lock = lock
        self._profiler: Profiler | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a request asks for."""
        work = {"time": self.time, "profile": self.profile, "found": self.found}
        return work[request["op"]]()

    def time(self) -> dict[str, Any]:
        """Time ``number`` runs, after some that fill the caches and wake the threads again."""
        with self._lock.quiet() as quiet:
            _time_runs(self._runner, math.ceil(self.number * _WARM_UP_SHARE))
            return {"sample_s": _time_runs(self._runner, self.number), "quiet": quiet}

    def profile(self) -> dict[str, Any]:
        """Time runs that note where the time goes, a limited number of them."""
        if self._profiler is None:
            with self._lock.busy():
                self._profiler = self._runner.profiler()
        number = min(self.number, MAX_RUNS)
        with self._lock.quiet() as quiet:
            sample_s = self._profiler.sample(math.ceil(number * _WARM_UP_SHARE), number)
        return {"sample_s": sample_s, "quiet": quiet}

    def found(self) -> dict[str, Any]:
        """Return where the time went in the samples of :meth:`profile`."""
        if self._profiler is None:
            return {"ops": [], "between_s": []}
        with self._lock.busy():
            return self._profiler.found()


def main() -> None:
    """Serve requests until the job is gone."""
    channel = worker_channel()
    forbid_torch()
    lock = MachineLock()
    request = channel.recv()
    if request is None:
        return
    loaded: list[Subject] = []

    def load() -> dict[str, Any]:
        subject, answer = _load(request, lock)
        loaded.append(subject)
        return answer

    _answer(channel, load)
    while loaded and (asked := channel.recv()) is not None:
        _answer(channel, partial(loaded[0].answer, asked))


def _load(request: dict[str, Any], lock: MachineLock) -> tuple[Subject, dict[str, Any]]:
    import numpy as np  # noqa: PLC0415 (after torch is forbidden, as TVM's import follows)

    with lock.busy():
        with np.load(request["inputs"], allow_pickle=False) as stored:
            inputs = [stored[f"input_{index}"] for index in range(len(stored.files))]
        runner = load_runner(request["kind"], Path(request["path"]), inputs, request["threads"])
    with lock.busy():
        runner.run()
        with np.load(request["outputs"], allow_pickle=False) as stored:
            expected = [stored[f"output_{index}"] for index in range(len(stored.files))]
        error = max_abs_error(runner.outputs(), expected)
        fastest = min(_time_runs(runner, 1) for _ in range(_CALIBRATION_RUNS))
    number = max(1, math.ceil(request["min_repeat_ms"] / 1000 / max(fastest, 1e-9)))
    return Subject(runner, number, lock), {"max_abs_err": error, "number": number}


def _time_runs(runner: Runner, number: int) -> float:
    started = time.perf_counter()
    for _ in range(number):
        runner.run()
    return (time.perf_counter() - started) / number


def _answer(channel: Channel, work: Callable[[], dict[str, Any]]) -> None:
    try:
        answer = work()
    except Exception as e:  # onnxruntime and TVM raise types of their own
        answer = {"error": f"{type(e).__name__}: {str(e).strip()[:_ERROR_LIMIT]}"}
    channel.send(answer)


if __name__ == "__main__":
    main()
