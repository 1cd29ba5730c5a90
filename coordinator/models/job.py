"""What this room's jobs share: a spec in, a result or a named error out, progress on stdout."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coordinator.confinement import FILE_BYTES, READ, confine, memory_limit_bytes
from tunefleet.errors import Reason, TuneFleetError

Progress = Callable[[float, str], None]
"""Told what share of the job is done (0 to 1) and in a few words what it turns to next."""

_FAILED = 1
_OOM_SCORE_ADJ = "500"
"""If memory runs out the kernel ends this job, which can be repeated, before the coordinator."""


def run_job(
    work: Callable[[Mapping[str, Any], Progress], dict[str, Any]],
    *,
    leads: bool = True,
    blame: Reason = Reason.INTERNAL,
    memory_bytes: int | None = None,
    cpu_s: int | None = None,
) -> int:
    """Run one job as ``--spec FILE.json --out FILE.json``.

    Args:
        work: makes the result from the spec; raises TuneFleetError for what the user can mend.
        leads: whether this process tells of the job, where several do it together.
        blame: reason of the error where it runs out of memory: MODEL_INVALID or DATASET_INVALID
            where it reads what others made.
        memory_bytes: that it may allocate; as much as the machine has for ``None``.
        cpu_s: processor time that it may use, in seconds.

    Returns:
        0 with the result in the out file, or 1 with ``{"error": {"reason", "message", "hint"}}``
        there; the hint is empty where the reason's own serves.
        Progress goes to stdout, one ``{"progress": SHARE, "message": TEXT}`` a line; logs and
        tracebacks go to stderr.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    progress = _claim_stdout(leads)
    confine(memory_bytes=memory_bytes, cpu_s=cpu_s)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJ)
    try:
        result = work(json.loads(options.spec.read_text()), progress)
    except TuneFleetError as e:
        result = _error(e.reason, e.message, e.hint)
    except MemoryError:
        traceback.print_exc()
        limit_gib = memory_limit_bytes() / 2**30
        told = f"{_made(blame)} its job run out of memory (limit {limit_gib:.0f} GiB)"
        result = _error(blame, told)
    except OSError as e:
        traceback.print_exc()
        much = f"{_made(blame)} its job write a file of more than {FILE_BYTES / 2**30:.0f} GiB"
        result = _error(blame, much) if e.errno == errno.EFBIG else _unexpected(e)
    except Exception as e:  # the caller needs an answer whatever happened
        traceback.print_exc()
        result = _unexpected(e)
    if leads:
        partial = options.out.with_suffix(".partial")
        partial.write_text(json.dumps(result))
        partial.replace(options.out)
    return _FAILED if "error" in result else 0


def first_line(error: BaseException) -> str:
    """Return what an exception says, without the C++ frames that TVM appends or prepends."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("File ", "Traceback", "at "))]
    return (told or lines or ["no message"])[0]


def _made(blame: Reason) -> str:
    return f"{READ.get(blame, 'what was asked for')} made"


def _unexpected(error: Exception) -> dict[str, Any]:
    return _error(Reason.INTERNAL, f"{type(error).__name__}: {first_line(error)}")


def _error(reason: Reason, message: str, hint: str = "") -> dict[str, Any]:
    return {"error": {"reason": reason.name, "message": message, "hint": hint}}


def _claim_stdout(leads: bool) -> Progress:
    """Keep stdout for progress: TVM's importer prints to it."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def progress(share: float, message: str) -> None:
        if not leads:
            return
        # A coordinator that has gone away must not fail the job.
        with contextlib.suppress(BrokenPipeError):
            channel.write(json.dumps({"progress": share, "message": message}) + "\n")

    return progress
