"""What this room's jobs share: a spec in, a result or a named error out, progress on stdout."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunefleet.errors import Reason, TuneFleetError

Progress = Callable[[float, str], None]
"""Told what share of the job is done (0 to 1) and in a few words what it turns to next."""

_FAILED = 1
_OOM_SCORE_ADJ = "500"
"""If memory runs out the kernel ends this job, which can be repeated, before the coordinator."""


def run_job(
    work: Callable[[Mapping[str, Any], Progress], dict[str, Any]], *, leads: bool = True
) -> int:
    """Run one job as ``--spec FILE.json --out FILE.json``.

    Args:
        work: makes the result from the spec; raises TuneFleetError for what the user can mend.
        leads: whether this process tells of the job, where several do it together.

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
    _limit_memory()
    try:
        result = work(json.loads(options.spec.read_text()), progress)
    except TuneFleetError as e:
        result = _error(e.reason, e.message, e.hint)
    except MemoryError:
        traceback.print_exc()
        result = _error(Reason.INTERNAL, "this machine has not enough memory for the model")
    except Exception as e:  # the caller needs an answer whatever happened
        traceback.print_exc()
        result = _error(Reason.INTERNAL, f"{type(e).__name__}: {first_line(e)}")
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


def _limit_memory() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Not RLIMIT_AS: torch and TVM reserve far more address space than they touch.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = physical if hard == resource.RLIM_INFINITY else min(physical, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJ)
