"""Rounds and benchmarks by an agent in its own process, with its real workers."""

from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import pytest_asyncio
from in_memory_coordinator import InMemoryCoordinator
from onnx import TensorProto, helper
from processes import eventually, is_running
from search_fixtures import Workload, matmul, write_model
from session_rig import remember_measured_profile

from agent.profile.static import read_static_profile
from tunefleet.conversions import trial_from_proto
from tunefleet.leases import (
    BASELINE_TRACE,
    BenchmarkSpec,
    BenchmarkSubject,
    Lease,
    MeasurePolicy,
    RoundSpec,
    SearchPolicy,
)
from tunefleet.targets import derive_target
from tunefleet.trials import Trial, Verdict
from tunefleet.v1 import agent_service_pb2, lease_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LIMIT_S = 120.0
_TARGET = derive_target(read_static_profile())
_MEASURE = MeasurePolicy(number=1, repeat=2, min_repeat_ms=2, max_repeat=2, max_attempts=1)
_SLOW = MeasurePolicy(number=1, repeat=3, min_repeat_ms=300, max_repeat=3)
_TRIALS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rounds")


@pytest.fixture(scope="module")
def workload(folder: Path) -> Workload:
    return matmul(folder, 64)


@asynccontextmanager
async def _server() -> AsyncIterator[InMemoryCoordinator]:
    server = InMemoryCoordinator()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def _agent(
    server: InMemoryCoordinator, home: Path, *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    remember_measured_profile(home)
    home.mkdir(exist_ok=True)
    with (home / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "run", "--coordinator", server.address),
            *("--home", str(home), *options),
            stderr=log,
            env={**os.environ, "TUNEFLEET_LOCK_DIR": str(home / "locks")},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _round(
    server: InMemoryCoordinator,
    workload: Workload,
    trials: int = _TRIALS,
    measure: MeasurePolicy = _MEASURE,
) -> RoundSpec:
    return RoundSpec(
        workload=workload.name,
        workload_digest=server.put_blob(workload.path.read_bytes()),
        target=_TARGET,
        trials=trials,
        seed=1,
        include_baseline=True,
        measure=measure,
        search=SearchPolicy(population=16, generations=1),
    )


def _long_round(server: InMemoryCoordinator, workload: Workload) -> RoundSpec:
    """Work that is in progress for as long as a test needs."""
    return _round(server, workload, trials=24, measure=_SLOW)


def _lease(name: str, work: RoundSpec | BenchmarkSpec) -> Lease:
    return Lease(name, 1, 60.0, "campaign", work)


def _benchmark(server: InMemoryCoordinator, folder: Path) -> BenchmarkSpec:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "relu.onnx"))
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    inputs, outputs = io.BytesIO(), io.BytesIO()
    np.savez(inputs, input_0=x)
    np.savez(outputs, output_0=np.maximum(x, 0) + np.float32(0.25))
    sound = server.put_blob((folder / "relu.onnx").read_bytes())
    broken = server.put_blob(b"no model")
    return BenchmarkSpec(
        target=_TARGET,
        subjects=(
            BenchmarkSubject("onnxruntime", "onnx", sound),
            BenchmarkSubject("broken", "onnx", broken),
        ),
        inputs_digest=server.put_blob(inputs.getvalue()),
        outputs_digest=server.put_blob(outputs.getvalue()),
        threads=1,
        repeat=2,
        min_repeat_ms=2,
    )


class _Finished:
    """What a coordinator has after an agent did all kinds of work."""

    def __init__(self, server: InMemoryCoordinator, children: list[psutil.Process]) -> None:
        self._server = server
        self.children = children

    def completion(self, lease_id: str) -> agent_service_pb2.CompleteLeaseRequest:
        return next(c for c in self._server.completions if c.lease_id == lease_id)

    def trials(self, lease_id: str) -> list[Trial]:
        found = [t for t in self._server.trials.values() if t.lease_id == lease_id]
        return [trial_from_proto(trial) for trial in found]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(folder: Path, workload: Workload) -> AsyncIterator[_Finished]:
    """Have one agent do a round without a model, with one, with a bad one, and so on."""
    async with _server() as server:
        first = _round(server, workload)
        good = write_model(folder / "good.onnx", feature=1).read_bytes()
        bad = write_model(folder / "bad.onnx", feature=1, golden_error=1.0).read_bytes()
        ranked = RoundSpec(
            **{**vars(first), "model_version": "v1", "model_digest": server.put_blob(good)}
        )
        unranked = RoundSpec(
            **{**vars(first), "model_version": "v2", "model_digest": server.put_blob(bad)}
        )
        unreadable = RoundSpec(
            **{**vars(first), "workload_digest": server.put_blob(b"{}"), "workload": "0" * 16}
        )
        missing = RoundSpec(**{**vars(first), "workload_digest": "ab" * 32})
        works = {
            "first": first,
            "ranked": ranked,
            "unranked": unranked,
            "unreadable": unreadable,
            "missing": missing,
        }
        for name, work in works.items():
            server.grant(_lease(name, work))
        async with _agent(server, folder / "home", "--idle-timeout", "3") as agent:
            await eventually(lambda: len(server.completions) == len(works), _LIMIT_S)
            process = psutil.Process(agent.pid)
            await eventually(lambda: not process.children(), _LIMIT_S)
            server.grant(_lease("benchmark", _benchmark(server, folder)))
            server.hint(agent_service_pb2.HINT_WORK_AVAILABLE)
            await eventually(lambda: len(server.completions) == len(works) + 1, _LIMIT_S)
            yield _Finished(server, process.children())


async def test_a_round_measures_what_was_asked_for(finished: _Finished) -> None:
    trials = finished.trials("first")
    assert len(trials) == _TRIALS
    assert len({trial.candidate for trial in trials}) == _TRIALS
    assert all(trial.latency_s for trial in trials)
    assert all(trial.features and trial.features.stores for trial in trials)


async def test_the_baseline_is_measured_when_asked_for(finished: _Finished) -> None:
    assert [t.trace for t in finished.trials("first")].count(BASELINE_TRACE) == 1


async def test_a_round_is_completed_with_its_times(finished: _Finished) -> None:
    done = finished.completion("first")
    assert (done.outcome, done.error) == (lease_pb2.LEASE_OUTCOME_DONE, "")
    assert {"fetch", "search", "measure", "build", "run"} <= done.phase_seconds.keys()


async def test_without_a_model_nothing_is_predicted(finished: _Finished) -> None:
    assert {(t.predicted, t.model_version) for t in finished.trials("first")} == {(None, "")}


async def test_with_a_model_trials_carry_its_prediction(finished: _Finished) -> None:
    ranked = [trial for trial in finished.trials("ranked") if trial.predicted is not None]
    assert {trial.model_version for trial in ranked} == {"v1"}


async def test_a_model_that_fails_its_own_test_is_not_used_and_named(finished: _Finished) -> None:
    done = finished.completion("unranked")
    assert done.outcome == lease_pb2.LEASE_OUTCOME_DONE
    assert "v2 not used" in done.error
    assert {trial.predicted for trial in finished.trials("unranked")} == {None}
    assert len(finished.trials("unranked")) == _TRIALS


async def test_a_workload_that_cannot_be_read_fails_with_a_readable_error(
    finished: _Finished,
) -> None:
    done = finished.completion("unreadable")
    assert done.outcome == lease_pb2.LEASE_OUTCOME_FAILED
    assert "workload 0000000000000000 cannot be searched" in done.error


async def test_a_blob_that_the_coordinator_does_not_have_fails_the_lease(
    finished: _Finished,
) -> None:
    assert finished.completion("missing").outcome == lease_pb2.LEASE_OUTCOME_FAILED


async def test_a_benchmark_returns_a_result_for_each_subject(finished: _Finished) -> None:
    done = finished.completion("benchmark")
    assert (done.outcome, done.error) == (lease_pb2.LEASE_OUTCOME_DONE, "")
    sound, broken = done.benchmark
    assert (sound.name, len(sound.samples_s), sound.error) == ("onnxruntime", 2, "")
    assert sound.max_abs_err == pytest.approx(0.25)
    assert (broken.name, len(broken.samples_s)) == ("broken", 0)
    assert broken.error


async def test_no_process_is_left_when_there_is_nothing_to_do(finished: _Finished) -> None:
    assert finished.children == []


async def test_a_killed_agent_leaves_no_process_and_loses_no_trial(
    tmp_path: Path, workload: Workload
) -> None:
    async with _server() as server:
        server.grant(_lease("killed", _long_round(server, workload)))
        async with _agent(server, tmp_path) as agent:
            await eventually(lambda: len(server.trials) >= 3, _LIMIT_S)
            # From now on trials stay in the outbox.
            await server.stop()
            sent = set(server.trials)
            await eventually(lambda: bool(_stored(tmp_path) - sent), _LIMIT_S)
            children = psutil.Process(agent.pid).children(recursive=True)
            assert children
            agent.kill()
            await agent.wait()
        await eventually(lambda: not any(is_running(child.pid) for child in children))
        unsent = _stored(tmp_path) - sent
        await server.start()
        async with _agent(server, tmp_path):
            await eventually(lambda: set(server.trials) >= sent | unsent, _LIMIT_S)


def _stored(folder: Path) -> set[str]:
    """Read which trials an agent's outbox holds."""
    with closing(sqlite3.connect(folder / "outbox.db", timeout=30)) as outbox:
        return {name for (name,) in outbox.execute("SELECT trial_id FROM trial")}


async def test_a_candidate_that_took_the_device_down_is_reported_and_left_out(
    tmp_path: Path, workload: Workload
) -> None:
    async with _server() as server:
        lease = _lease("down", _round(server, workload, measure=_SLOW))
        server.grant(lease)
        mark = tmp_path / "logs" / "running"
        async with _agent(server, tmp_path) as agent:
            await eventually(lambda: mark.exists() and bool(mark.read_bytes().strip()), _LIMIT_S)
            candidate = mark.read_bytes().decode().strip()
            processes = psutil.Process(agent.pid).children(recursive=True)
            # All at once, as when the power is cut: the worker has no time to notice.
            for process in (psutil.Process(agent.pid), *processes):
                process.suspend()
            assert mark.read_bytes().decode().strip() == candidate
            for process in (*processes, psutil.Process(agent.pid)):
                process.kill()
            await agent.wait()
        server.grant(lease)
        async with _agent(server, tmp_path):
            await eventually(lambda: len(server.completions) == 1, _LIMIT_S)
        trials = [trial_from_proto(trial) for trial in server.trials.values()]
        assert len(trials) == _TRIALS
        [lost] = [trial for trial in trials if trial.verdict is Verdict.LOST]
        assert lost.candidate == candidate
        assert all(trial.latency_s for trial in trials if trial is not lost)


async def test_a_terminated_agent_gives_its_lease_back_and_leaves_no_process(
    tmp_path: Path, workload: Workload
) -> None:
    async with _server() as server:
        server.grant(_lease("returned", _long_round(server, workload)))
        async with _agent(server, tmp_path) as agent:
            await eventually(lambda: len(server.trials) >= 2, _LIMIT_S)
            children = psutil.Process(agent.pid).children(recursive=True)
            agent.terminate()
            assert await agent.wait() == 0
        assert children
        assert not any(is_running(child.pid) for child in children)
        assert [c.outcome for c in server.completions] == [lease_pb2.LEASE_OUTCOME_RETURNED]
        assert server.trials_at_completion == {"returned": len(server.trials)}


async def test_a_second_signal_ends_the_agent_at_once_and_leaves_no_process(
    tmp_path: Path, workload: Workload
) -> None:
    async with _server() as server:
        server.grant(_lease("dropped", _long_round(server, workload)))
        async with _agent(server, tmp_path) as agent:
            await eventually(lambda: len(server.trials) >= 1, _LIMIT_S)
            children = psutil.Process(agent.pid).children(recursive=True)
            await server.stop()
            agent.terminate()
            log = tmp_path / "agent.log"
            await eventually(lambda: "stopping" in log.read_text())
            agent.terminate()
            assert await agent.wait() == 130
        assert not any(is_running(child.pid) for child in children)
        assert server.completions == []
