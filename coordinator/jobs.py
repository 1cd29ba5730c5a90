"""Heavy work in processes of its own, so that the coordinator stays small and responsive.

A job is a module run as ``python -m coordinator.job_main MODULE --spec FILE --out FILE``. It reads
its task from the spec, prints progress as JSON lines and leaves its result in the out file; an
``error`` in there says why it could not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from coordinator.confinement import READ
from tunefleet.errors import Reason, TuneFleetError

log = structlog.get_logger()

Progress = Callable[[float, str], None]
"""Receives the share done (0 to 1) and what is being done."""

JOBS_AT_ONCE = 2
"""Jobs of one kind that whoever starts them lets run at a time: each may take all memory that it is
allowed, and many may be asked for at once."""

_LINE_LIMIT_BYTES = 1 << 20
"""Longest line of progress read; a job that writes a longer one is broken."""

_ATTEMPTS = 5
"""A job that was killed from outside, for memory say, deserves other tries: in a week that happens
more than once. A bug shows again."""

_KILLED = frozenset({-signal.SIGKILL, -signal.SIGTERM})
"""Exit codes of a process that others have ended: what crashes by itself gets other signals."""

_SIGNALS: dict[int, str] = {
    signal.SIGXCPU: ": it needs more processor time than it may have",
    signal.SIGABRT: ", as happens where there is not enough memory for it",
}

_LOG = "job.log"
"""What the job printed on stderr, in its folder."""

_TAIL_CHARS = 2000
"""How much of a dead job's last output goes into the error."""


async def run_job(
    module: str,
    spec: Mapping[str, Any],
    work_dir: Path,
    *,
    timeout_s: float,
    progress: Progress | None = None,
    env: Mapping[str, str] | None = None,
    blame: Reason = Reason.INTERNAL,
) -> dict[str, Any]:
    """Run a job to its end and return its result; one that is killed is begun again.

    The job and everything it started are killed when this is cancelled, when the time is up, and
    when this process dies.

    Args:
        module: the job's module.
        spec: what it is to do; must be JSON.
        work_dir: folder for spec, result and log; made if missing.
        timeout_s: longest time allowed for one attempt.
        progress: told how far the job is.
        env: variables added to the environment.
        blame: reason of the error where the job crashes or takes too long: MODEL_INVALID or
            DATASET_INVALID where it reads what others made.

    Returns:
        The content of the out file.

    Raises:
        TuneFleetError: the job said why it failed, died, or took too long.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with asyncio.timeout(timeout_s):
                return await _run_once(module, spec, work_dir, progress, env)
        except TimeoutError as e:
            late = f"{module} did not finish within {timeout_s:.0f} s; see {work_dir / _LOG}"
            if blame in READ:
                late = f"reading {READ[blame]} did not end within {timeout_s:.0f} s"
            raise TuneFleetError(blame, late) from e
        except _JobCrashedError as e:
            if blame not in READ:
                raise
            log.warning("job crashed of what it read", job=module, why=e.message)
            raise TuneFleetError(
                blame, f"{READ[blame]} ended the process that read it with {e.signal}{e.why}"
            ) from e
        except _JobKilledError as e:
            if attempt == _ATTEMPTS:
                raise
            log.warning("job was killed, beginning it again", job=module, why=e.message)
    raise AssertionError("unreachable")


class _JobKilledError(TuneFleetError):
    """Somebody ended the job."""


class _JobCrashedError(TuneFleetError):
    """The job ended itself by a signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(Reason.INTERNAL, message)
        self.signal = signal.Signals(number).name
        self.why = _SIGNALS.get(number, "")


async def _run_once(
    module: str,
    spec: Mapping[str, Any],
    work_dir: Path,
    progress: Progress | None,
    env: Mapping[str, str] | None,
) -> dict[str, Any]:
    await asyncio.to_thread(work_dir.mkdir, parents=True, exist_ok=True)
    spec_path, out_path, log_path = (work_dir / n for n in ("spec.json", "out.json", _LOG))
    spec_path.write_text(json.dumps(spec))
    out_path.unlink(missing_ok=True)
    with log_path.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator.job_main", module),
            *("--spec", str(spec_path), "--out", str(out_path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,
            limit=_LINE_LIMIT_BYTES,
            env={**os.environ, **(env or {})},
        )
    try:
        await _follow(process, progress)
        code = await process.wait()
    finally:
        # The job's own children too: it leads its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return _result(module, code, out_path, log_path)


async def _follow(process: asyncio.subprocess.Process, progress: Progress | None) -> None:
    assert process.stdout is not None
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            continue  # a line over the limit was dropped
        if not line:
            return
        try:
            message = json.loads(line)
            share, text = float(message["progress"]), str(message["message"])
        except (ValueError, KeyError, TypeError):
            log.debug("job printed", line=line[:200])
            continue
        if progress is not None:
            progress(share, text)


def _result(module: str, code: int, out_path: Path, log_path: Path) -> dict[str, Any]:
    result: Any = None
    with contextlib.suppress(OSError, ValueError):
        result = json.loads(out_path.read_text())
    if isinstance(result, dict) and "error" in result:
        error = result["error"]
        if isinstance(error, dict):
            reason = Reason.__members__.get(str(error.get("reason")), Reason.INTERNAL)
            hint = str(error.get("hint") or "")
            raise TuneFleetError(reason, str(error.get("message")), hint)
        raise TuneFleetError(Reason.INTERNAL, str(error))
    if code != 0 or not isinstance(result, dict):
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        tail = log_path.read_text(errors="replace")[-_TAIL_CHARS:].strip()
        told = f"{module} ended with {how}: {tail or 'no output'}"
        if code < 0 and code not in _KILLED:
            raise _JobCrashedError(told, -code)
        kind = _JobKilledError if code in _KILLED else TuneFleetError
        raise kind(Reason.INTERNAL, told)
    return result
