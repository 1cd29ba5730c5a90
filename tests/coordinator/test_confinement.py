"""Jobs that read what strangers made: what they do at worst, as real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.jobs import run_job
from tunefleet.errors import Reason, TuneFleetError

JOB = """
import os, resource, signal, subprocess, sys, time
from coordinator.models.job import run_job
from tunefleet.errors import Reason

def work(spec, progress):
    what = spec["what"]
    if what == "allocate":
        return {"size": len(bytearray(2 * 2**30))}
    if what == "compute":
        while True:
            pass
    if what == "write":
        # Python has a write fail where others are ended by a signal.
        with open(spec["path"], "wb") as file:
            file.truncate(64 * 2**30)
        return {}
    if what == "wait":
        time.sleep(600)
    if what == "limits":
        status = open("/proc/self/status").read()
        return {
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "no_new_privileges": "NoNewPrivs:\\t1" in status,
        }
    os.kill(os.getpid(), getattr(signal, what))

sys.exit(run_job(work, blame=Reason.MODEL_INVALID, memory_bytes=2**30, cpu_s=1))
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hostile_job.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return "hostile_job"


async def error_of(job: str, work_dir: Path, timeout_s: float = 60.0, **spec: Any) -> str:
    """Run a job that must fail for what it reads, and return what is said of it."""
    with pytest.raises(TuneFleetError) as raised:
        await run_job(job, spec, work_dir, timeout_s=timeout_s, blame=Reason.MODEL_INVALID)
    assert raised.value.reason is Reason.MODEL_INVALID
    return raised.value.message


async def test_what_needs_too_much_memory(job: str, tmp_path: Path) -> None:
    said = await error_of(job, tmp_path / "work", what="allocate")
    assert said == "the model made its job run out of memory (limit 1 GiB)"


async def test_what_needs_too_much_processor_time(job: str, tmp_path: Path) -> None:
    said = await error_of(job, tmp_path / "work", what="compute")
    assert "SIGXCPU" in said
    assert "processor time" in said


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT", "SIGBUS"])
async def test_what_crashes_whoever_reads_it(job: str, tmp_path: Path, signal: str) -> None:
    said = await error_of(job, tmp_path / "work", what=signal)
    assert f"the model ended the process that read it with {signal}" in said


async def test_what_never_ends(job: str, tmp_path: Path) -> None:
    said = await error_of(job, tmp_path / "work", timeout_s=3.0, what="wait")
    assert "did not end within 3 s" in said


async def test_no_file_grows_beyond_the_limit(job: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    said = await error_of(job, tmp_path / "work", what="write", path=str(path))
    assert said == "the model made its job write a file of more than 32 GiB"
    assert path.stat().st_size == 0


async def test_no_core_is_dumped_and_no_rights_are_gained(job: str, tmp_path: Path) -> None:
    result = await run_job(job, {"what": "limits"}, tmp_path / "work", timeout_s=60)
    assert result == {"core": [0, 0], "no_new_privileges": True}
