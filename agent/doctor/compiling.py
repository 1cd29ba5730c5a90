"""Does TVM build and run a program here? Tried in a child process, which may do its worst."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.doctor.finding import Finding, Status, ok, unknown
from agent.frames import describe_exit

TIMEOUT_S = 120.0
"""A Raspberry Pi imports TVM in 10 s; an agent that is timing something is waited for."""

JOB_COMMAND = (sys.executable, "-m", "agent.doctor.compile_job")

_LAST_WORDS_CHARACTERS = 300
_WHY = "every candidate is built and run like this; here none would get a latency"


def check_compiler(command: Sequence[str] = JOB_COMMAND, timeout_s: float = TIMEOUT_S) -> Finding:
    """Have TVM build, run and verify a tiny program.

    Args:
        command: the job; ``--out FILE`` is appended.
        timeout_s: seconds after which it is ended.
    """
    name = "compiler"
    with tempfile.TemporaryDirectory(prefix="tunefleet-doctor-") as folder:
        out = Path(folder) / "out.json"
        job = subprocess.Popen(
            [*command, "--out", str(out)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, errors = job.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return Finding(
                name,
                Status.BAD,
                f"TVM did not build and run a tiny program within {timeout_s:g} s",
                _WHY,
                "If an agent measures here all the time, stop it and look again; else see what "
                "this waits for.",
                " ".join(JOB_COMMAND),
            )
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        if job.returncode != 0:
            return _failed(job.returncode, errors.decode(errors="replace"))
        return _judge(json.loads(out.read_text(encoding="utf-8")))


def skip_compiler() -> Finding:
    """Say that it was not tried."""
    return unknown("compiler", "not tried, because of --quick")


def _judge(result: dict[str, Any]) -> Finding:
    name = "compiler"
    if not result["correct"]:
        return Finding(
            name,
            Status.BAD,
            f"a program built for {result['target']} computes wrong values",
            "latencies of programs that are wrong mean nothing",
            "Give the agent the target that fits this CPU, and report this as a bug.",
            "tunefleet-agent run --target 'llvm -mcpu=…' …",
        )
    times = ", ".join(f"{step} {result[f'{step}_s']:.1f} s" for step in ("import", "build"))
    return ok(name, f"TVM {result['version']} builds and runs for {result['cpu']} ({times})")


def _failed(returncode: int, errors: str) -> Finding:
    illegal = returncode == -signal.SIGILL
    last = (errors.strip().splitlines() or [""])[-1][:_LAST_WORDS_CHARACTERS]
    return Finding(
        "compiler",
        Status.BAD,
        f"the child that tried it {describe_exit(returncode)}" + (f": {last}" if last else ""),
        _WHY,
        "TVM builds for instructions that this CPU does not have; give the agent another target."
        if illegal
        else "See libraries above, then what this says.",
        "tunefleet-agent run --target 'llvm -mcpu=…' …" if illegal else " ".join(JOB_COMMAND),
    )
