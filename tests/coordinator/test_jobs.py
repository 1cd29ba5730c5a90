"""Jobs as real child processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from coordinator.jobs import run_job
from tunefleet.errors import Reason, TuneFleetError

JOB = """
import argparse, json, os, pathlib, signal, subprocess, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--spec"); parser.add_argument("--out")
args = parser.parse_args()
spec = json.loads(pathlib.Path(args.spec).read_text())
out = pathlib.Path(args.out)
what = spec["what"]
if what == "add":
    print("noise that is no JSON", flush=True)
    print(json.dumps({"progress": 0.5, "message": "adding"}), flush=True)
    out.write_text(json.dumps({"sum": spec["a"] + spec["b"]}))
elif what == "explain":
    out.write_text(json.dumps({"error": {"reason": "MODEL_INVALID", "message": "not a model"}}))
    sys.exit(1)
elif what == "crash":
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
elif what == "be killed":
    starts = pathlib.Path(spec["starts"])
    with starts.open("a") as file:
        print("start", file=file)
    if len(starts.read_text().splitlines()) <= spec["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    out.write_text(json.dumps({"sum": 0}))
elif what == "hang":
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path(spec["pids"]).write_text(json.dumps([os.getpid(), child.pid]))
    time.sleep(600)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "sample_job.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "sample_job"


async def test_a_job_returns_its_result_and_tells_its_progress(job: str, tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    result = await run_job(
        job,
        {"what": "add", "a": 2, "b": 3},
        tmp_path / "work",
        timeout_s=60,
        progress=lambda share, text: heard.append((share, text)),
    )
    assert result == {"sum": 5}
    assert heard == [(0.5, "adding")]


async def test_a_jobs_own_error_keeps_its_reason(job: str, tmp_path: Path) -> None:
    with pytest.raises(TuneFleetError, match="not a model") as caught:
        await run_job(job, {"what": "explain"}, tmp_path / "work", timeout_s=60)
    assert caught.value.reason is Reason.MODEL_INVALID


async def test_a_crash_is_reported_with_its_signal_and_last_words(job: str, tmp_path: Path) -> None:
    with pytest.raises(TuneFleetError, match=r"SIGSEGV.*last words"):
        await run_job(job, {"what": "crash"}, tmp_path / "work", timeout_s=60)


async def started(pids: Path) -> list[int]:
    async with asyncio.timeout(60):
        while not pids.exists() or not pids.read_text():
            await asyncio.sleep(0.02)
    return [int(pid) for pid in json.loads(pids.read_text())]


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(30):
        while any(psutil.pid_exists(p) and not is_zombie(p) for p in pids):
            await asyncio.sleep(0.02)


def is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def test_a_cancelled_job_leaves_no_process_behind(job: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    running = asyncio.create_task(
        run_job(job, {"what": "hang", "pids": str(pids)}, tmp_path / "work", timeout_s=600)
    )
    processes = await started(pids)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(processes)


async def test_a_job_that_takes_too_long_is_ended(job: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(TuneFleetError, match="did not finish within 5 s"):
        await run_job(job, {"what": "hang", "pids": str(pids)}, tmp_path / "work", timeout_s=5)
    await gone(await started(pids))


async def test_a_killed_coordinator_takes_its_jobs_along(job: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import asyncio\nfrom pathlib import Path\nfrom coordinator.jobs import run_job\n"
                f"asyncio.run(run_job({job!r}, {{'what': 'hang', 'pids': {str(pids)!r}}}, "
                f"Path({str(tmp_path / 'work')!r}), timeout_s=600))"
            ),
        ]
    )
    processes = await started(pids)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    await gone(processes)


@pytest.mark.parametrize("times", [1, 4])
async def test_a_job_that_was_killed_is_begun_again(job: str, tmp_path: Path, times: int) -> None:
    spec = {"what": "be killed", "starts": str(tmp_path / "starts"), "times": times}
    assert await run_job(job, spec, tmp_path / "work", timeout_s=60) == {"sum": 0}
    assert len((tmp_path / "starts").read_text().splitlines()) == times + 1


async def test_a_job_that_is_killed_every_time_fails(job: str, tmp_path: Path) -> None:
    spec = {"what": "be killed", "starts": str(tmp_path / "starts"), "times": 99}
    with pytest.raises(TuneFleetError, match="SIGKILL") as raised:
        await run_job(job, spec, tmp_path / "work", timeout_s=60)
    assert raised.value.reason is Reason.INTERNAL
    assert len((tmp_path / "starts").read_text().splitlines()) == 5
