"""What becomes of a batch, and of the processes, when the measuring worker itself is in trouble."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from measure_workloads import TARGET, save_matmul, save_script
from processes import eventually, is_running

from agent.frames import WorkerDied
from agent.measure.client import Measurer
from tunefleet.leases import BASELINE_TRACE, MeasurePolicy
from tunefleet.trials import Verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

_POLICY = MeasurePolicy(number=1, repeat=1, min_repeat_ms=1, build_timeout_s=3.0, run_timeout_s=1.0)
_BATCH = [(name, BASELINE_TRACE) for name in ("a", "b", "c", "d", "e")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def measurer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Measurer]:
    env = {"TUNEFLEET_LOCK_DIR": str(tmp_path_factory.mktemp("lock"))}
    async with Measurer(
        tmp_path_factory.mktemp("log"),
        threads=2,
        quiet_timeout_s=0.5,
        silence_margin_s=1.0,
        env=env,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def matmul(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_matmul(tmp_path_factory.mktemp("workload") / "matmul.json")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_rest_is_measured_when_the_worker_is_lost(
    measurer: Measurer, matmul: Path, number: signal.Signals
) -> None:
    outcomes = []
    async for outcome in measurer.measure(matmul, TARGET, _BATCH, _POLICY):
        if not outcomes:
            os.kill(measurer.pid or 0, number)
        outcomes.append(outcome)
    assert sorted(outcome.candidate for outcome in outcomes) == ["a", "b", "c", "d", "e"]
    lost = [outcome for outcome in outcomes if outcome.verdict == Verdict.LOST]
    assert len(lost) <= 2  # no more than it was building or running
    assert all("measuring worker" in outcome.error for outcome in lost)
    assert all(o.verdict.has_latency for o in outcomes if o not in lost)


async def test_running_candidate_is_lost_and_dies_with_the_worker(
    measurer: Measurer, tmp_path: Path
) -> None:
    body = 'T.evaluate(T.call_extern("int32", "pause"))'
    workload = save_script(tmp_path / "workload.json", body)
    policy = MeasurePolicy(run_timeout_s=60.0)
    children: list[psutil.Process] = []

    def candidate_started() -> bool:
        children[:] = psutil.Process(measurer.pid).children() if measurer.pid else []
        return bool(children)

    async with contextlib.aclosing(
        measurer.measure(workload, TARGET, [("waiting", BASELINE_TRACE)], policy)
    ) as measured:
        outcome = asyncio.ensure_future(anext(measured))
        await eventually(candidate_started)
        os.kill(measurer.pid or 0, signal.SIGKILL)
        assert (await outcome).verdict == Verdict.LOST
        assert "SIGKILL" in (await outcome).error
    await eventually(lambda: not is_running(children[0].pid))


async def test_leaving_early_ends_what_is_measured(measurer: Measurer, matmul: Path) -> None:
    measured = measurer.measure(matmul, TARGET, _BATCH, _POLICY)
    async with contextlib.aclosing(measured):
        await anext(measured)
        pid = measurer.pid
    assert pid is not None
    assert not is_running(pid)
    assert measurer.pid is None


async def test_closing_frees_the_worker_until_it_is_needed(
    measurer: Measurer, matmul: Path
) -> None:
    first = [o async for o in measurer.measure(matmul, TARGET, _BATCH[:1], _POLICY)]
    pid = measurer.pid
    assert measurer.rss is not None
    assert measurer.rss > 100 * 2**20
    await measurer.close()
    assert measurer.rss is None
    assert pid is not None
    assert not is_running(pid)
    second = [o async for o in measurer.measure(matmul, TARGET, _BATCH[:1], _POLICY)]
    assert [o.candidate for o in second] == [o.candidate for o in first]


async def test_worker_that_cannot_start_is_an_error(tmp_path: Path, matmul: Path) -> None:
    broken = tmp_path / "tvm.py"
    broken.write_text("raise ImportError('this TVM is broken')")
    async with Measurer(tmp_path, threads=1, env={"PYTHONPATH": str(tmp_path)}) as measurer:
        with pytest.raises(WorkerDied, match="this TVM is broken"):
            await anext(measurer.measure(matmul, TARGET, _BATCH, _POLICY))
