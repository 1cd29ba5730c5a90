"""Verdicts of real candidates in a real worker, and that none of them costs the next its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from measure_workloads import (
    TARGET,
    save_large_input,
    save_large_intermediate,
    save_matmul,
    save_script,
    unrolled_trace,
    vectorized_trace,
)
from processes import eventually

from agent.measure.client import Measurer
from agent.measure.outcome import ERROR_LIMIT_CHARS, MeasureOutcome
from tunefleet.leases import BASELINE_TRACE, MeasurePolicy
from tunefleet.machine_lock import MachineLock
from tunefleet.trials import Verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

_POLICY = MeasurePolicy(
    number=1,
    repeat=2,
    min_repeat_ms=1,
    max_repeat=2,
    max_attempts=1,
    run_timeout_s=2.0,
    memory_limit_bytes=2**30,
)


@pytest.fixture(scope="module")
def lock_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lock")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def measurer(
    tmp_path_factory: pytest.TempPathFactory, lock_dir: Path
) -> AsyncIterator[Measurer]:
    env = {"TUNEFLEET_LOCK_DIR": str(lock_dir)}
    log_dir = tmp_path_factory.mktemp("log")
    async with Measurer(log_dir, threads=2, quiet_timeout_s=0.5, env=env) as started:
        yield started


@pytest.fixture(scope="module")
def matmul(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_matmul(tmp_path_factory.mktemp("workload") / "matmul.json")


async def _measure_one(
    measurer: Measurer, workload: Path, trace: str = BASELINE_TRACE, policy: MeasurePolicy = _POLICY
) -> MeasureOutcome:
    outcomes = [o async for o in measurer.measure(workload, TARGET, [("c0ffee", trace)], policy)]
    assert [outcome.candidate for outcome in outcomes] == ["c0ffee"]
    return outcomes[0]


async def test_good_candidate_has_a_latency(measurer: Measurer, matmul: Path) -> None:
    outcome = await _measure_one(measurer, matmul)
    assert outcome.verdict.has_latency
    assert len(outcome.samples_s) == _POLICY.repeat
    assert all(1e-7 < sample < 1.0 for sample in outcome.samples_s)
    assert outcome.build_s is not None
    assert outcome.run_s is not None
    assert outcome.run_s >= sum(outcome.samples_s)
    assert outcome.started_at_unix_s > 1.7e9
    assert outcome.conditions.memory_available_bytes is not None
    assert outcome.conditions.load_average is not None
    assert outcome.conditions.canary_s is not None
    assert 1e-5 < outcome.conditions.canary_s < 1.0
    assert outcome.conditions.waited_share is not None
    assert outcome.conditions.flushed_cache is False


async def test_hopeless_candidate_is_sampled_twice_only(measurer: Measurer, matmul: Path) -> None:
    policy = MeasurePolicy(min_repeat_ms=1, max_attempts=1)
    measured = measurer.measure(matmul, TARGET, [("slow", BASELINE_TRACE)], policy, best_s=1e-9)
    outcomes = [outcome async for outcome in measured]
    assert [len(outcome.samples_s) for outcome in outcomes] == [2]


async def test_caches_are_flushed_where_the_policy_says_so(
    measurer: Measurer, tmp_path: Path
) -> None:
    workload = save_matmul(tmp_path / "matmul.json", size=128)
    policy = replace(_POLICY, flush_cache=True)
    outcome = await _measure_one(measurer, workload, vectorized_trace(workload), policy)
    assert outcome.conditions.flushed_cache is True
    assert len(outcome.samples_s) == _POLICY.repeat


async def test_trace_is_applied(measurer: Measurer, tmp_path: Path) -> None:
    workload = save_matmul(tmp_path / "matmul.json", size=256)
    candidates = [("naive", BASELINE_TRACE), ("fast", vectorized_trace(workload))]
    measured = measurer.measure(workload, TARGET, candidates, _POLICY)
    outcomes = {outcome.candidate: outcome async for outcome in measured}
    # Around ten times faster: the naive loop walks along the columns of B.
    assert min(outcomes["fast"].samples_s) < 0.5 * min(outcomes["naive"].samples_s)


async def test_every_candidate_of_a_batch_is_measured(measurer: Measurer, matmul: Path) -> None:
    candidates = [(f"{number:x}", BASELINE_TRACE) for number in range(5)]
    outcomes = [o async for o in measurer.measure(matmul, TARGET, candidates, _POLICY)]
    assert sorted(o.candidate for o in outcomes) == ["0", "1", "2", "3", "4"]
    assert all(o.verdict.has_latency for o in outcomes)


@pytest.mark.parametrize(
    "trace",
    [
        "{",
        '[[["NoSuchInstruction", [], [], []]], []]',
        '[[["GetSBlock", [], ["no_such_block", "main"], ["b0"]]], []]',
    ],
)
async def test_trace_that_does_not_apply(measurer: Measurer, matmul: Path, trace: str) -> None:
    outcome = await _measure_one(measurer, matmul, trace)
    assert outcome.verdict == Verdict.BUILD_ERROR
    assert outcome.error
    assert outcome.samples_s == ()


async def test_workload_that_cannot_be_read(measurer: Measurer, tmp_path: Path) -> None:
    workload = tmp_path / "workload.json"
    workload.write_text('{"root_index": 7}')
    outcome = await _measure_one(measurer, workload)
    assert outcome.verdict == Verdict.BUILD_ERROR
    assert "cannot be loaded" in outcome.error


_MISBEHAVIOURS = {
    "abort": ('T.evaluate(T.call_extern("int32", "abort"))', Verdict.CRASHED, "SIGABRT"),
    "exit": ('T.evaluate(T.call_extern("int32", "_exit", 0))', Verdict.CRASHED, "status 0"),
    "wild pointer": (
        'T.evaluate(T.call_extern("int32", "puts", T.reinterpret("handle", T.int64(8))))',
        Verdict.CRASHED,
        "SIGSEGV",
    ),
    "kill": (
        'T.evaluate(T.call_extern("int32", "raise", T.int32(9)))',
        Verdict.CRASHED,
        "SIGKILL",
    ),
    "wait for ever": ('T.evaluate(T.call_extern("int32", "pause"))', Verdict.TIMEOUT, "running"),
    "stop": ('T.evaluate(T.call_extern("int32", "raise", 19))', Verdict.TIMEOUT, "running"),
    "endless loop": (
        "while A[0] < T.float32(3.0): A[0] = A[0] * T.float32(0.5) + T.float32(1.0)",
        Verdict.TIMEOUT,
        "running exceeded 2 s",
    ),
    "unknown symbol": (
        'T.evaluate(T.call_extern("int32", "no_such_function"))',
        Verdict.CRASHED,
        "no_such_function",
    ),
    "unknown packed function": (
        'T.evaluate(T.call_packed("no.such.function", A[0]))',
        Verdict.RUNTIME_ERROR,
        "no.such.function",
    ),
    "closing its channel": (
        'T.evaluate(T.call_extern("int32", "close_range", 3, 1000, 0))',
        Verdict.CRASHED,
        "",
    ),
    "closing its channel and staying": (
        (
            'if T.call_extern("int32", "close_range", 3, 1000, 0) == 0:'
            ' T.evaluate(T.call_extern("int32", "pause"))'
        ),
        Verdict.CRASHED,
        "lived on",
    ),
    "endless output": (
        'while A[0] > T.float32(0): T.evaluate(T.call_extern("int32", "puts", "so much to say"))',
        Verdict.TIMEOUT,
        "running",
    ),
}


@pytest.mark.parametrize("name", _MISBEHAVIOURS)
async def test_misbehaviour_costs_that_candidate_only(
    measurer: Measurer, matmul: Path, tmp_path: Path, name: str
) -> None:
    await _measure_one(measurer, matmul)
    worker = measurer.pid
    body, verdict, error = _MISBEHAVIOURS[name]
    outcome = await _measure_one(measurer, save_script(tmp_path / "workload.json", body))
    assert outcome.verdict == verdict
    assert error in outcome.error
    assert len(outcome.error) <= ERROR_LIMIT_CHARS
    assert psutil.Process(worker).children(recursive=True) == []
    assert (await _measure_one(measurer, matmul)).verdict.has_latency
    assert measurer.pid == worker


async def test_fork_storm_is_ended(measurer: Measurer, matmul: Path, tmp_path: Path) -> None:
    body = 'while A[0] > T.float32(0): T.evaluate(T.call_extern("int32", "fork"))'
    # Long enough for a loaded machine to let it grow.
    policy = replace(_POLICY, run_timeout_s=100.0)
    outcome = await _measure_one(measurer, save_script(tmp_path / "w.json", body), policy=policy)
    assert outcome.verdict == Verdict.CRASHED
    assert "processes" in outcome.error
    assert psutil.Process(measurer.pid).children(recursive=True) == []
    assert (await _measure_one(measurer, matmul)).verdict.has_latency


@pytest.mark.parametrize("gigabytes", [2, 64])
async def test_large_intermediate_is_out_of_memory(
    measurer: Measurer, matmul: Path, tmp_path: Path, gigabytes: int
) -> None:
    elements = gigabytes * 2**30 // 4
    workload = save_large_intermediate(tmp_path / "workload.json", elements)
    outcome = await _measure_one(measurer, workload)
    assert outcome.verdict == Verdict.OUT_OF_MEMORY
    assert (await _measure_one(measurer, matmul)).verdict.has_latency


async def test_large_input_is_out_of_memory(
    measurer: Measurer, matmul: Path, tmp_path: Path
) -> None:
    workload = save_large_input(tmp_path / "workload.json", elements=2**29)
    outcome = await _measure_one(measurer, workload)
    assert outcome.verdict == Verdict.OUT_OF_MEMORY
    assert (await _measure_one(measurer, matmul)).verdict.has_latency


async def test_slow_build_is_ended(measurer: Measurer, matmul: Path) -> None:
    policy = MeasurePolicy(build_timeout_s=1.0)
    outcome = await _measure_one(measurer, matmul, unrolled_trace(matmul), policy)
    assert outcome.verdict == Verdict.TIMEOUT
    assert "building exceeded 1 s" in outcome.error
    assert (await _measure_one(measurer, matmul)).verdict.has_latency


async def test_build_that_is_paused_goes_on(measurer: Measurer, tmp_path: Path) -> None:
    workload = save_matmul(tmp_path / "matmul.json", size=18)
    policy = replace(_POLICY, build_timeout_s=100.0)
    outcome = await _measure_one(measurer, workload, unrolled_trace(workload), policy)
    assert outcome.verdict.has_latency
    assert outcome.build_s is not None
    assert outcome.build_s > 0.5  # longer than it may build without a pause


async def test_slow_program_is_run_fewer_times(measurer: Measurer, tmp_path: Path) -> None:
    body = 'T.evaluate(T.call_extern("int32", "usleep", 1100000))'
    policy = MeasurePolicy(number=5, repeat=3, max_repeat=3, max_attempts=1, run_timeout_s=4.5)
    outcome = await _measure_one(measurer, save_script(tmp_path / "w.json", body), policy=policy)
    assert outcome.verdict.has_latency
    assert 1 <= len(outcome.samples_s) <= 3
    assert min(outcome.samples_s) >= 1.1


async def test_samples_far_apart_are_not_ok(measurer: Measurer, tmp_path: Path) -> None:
    random_us = 'T.call_extern("int32", "rand") % 20000'
    body = f'T.evaluate(T.call_extern("int32", "usleep", {random_us}))'
    policy = MeasurePolicy(number=1, repeat=6, min_repeat_ms=0, max_repeat=6)
    outcome = await _measure_one(measurer, save_script(tmp_path / "w.json", body), policy=policy)
    # Which of the two depends on what else the machine is doing.
    assert outcome.verdict in {Verdict.NOISY, Verdict.CONTENDED}


async def test_what_a_candidate_started_is_ended(measurer: Measurer, tmp_path: Path) -> None:
    body = (
        'T.evaluate(T.call_extern("int32", "fork"))\n'
        '        T.evaluate(T.call_extern("int32", "setsid"))'
    )
    await _measure_one(measurer, save_script(tmp_path / "workload.json", body))
    assert measurer.pid is not None
    worker = psutil.Process(measurer.pid)
    await eventually(lambda: worker.children(recursive=True) == [])


async def test_busy_machine_is_noted(measurer: Measurer, matmul: Path, lock_dir: Path) -> None:
    with MachineLock(lock_dir).busy():
        outcome = await _measure_one(measurer, matmul)
    assert outcome.verdict == Verdict.CONTENDED
    assert outcome.samples_s


async def test_agent_measures_without_importing_tvm_or_numpy() -> None:
    code = "import sys, agent.measure.client; print({'tvm', 'numpy'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout == b"set()\n"


async def test_worker_has_one_thread(measurer: Measurer, matmul: Path) -> None:
    await _measure_one(measurer, matmul)
    assert psutil.Process(measurer.pid).num_threads() == 1


async def test_the_worker_loads_tvm_and_not_torch(measurer: Measurer, matmul: Path) -> None:
    await _measure_one(measurer, matmul)
    loaded = Path(f"/proc/{measurer.pid}/maps").read_text()
    assert ("libtvm" in loaded, "libtorch" in loaded) == (True, False)
