"""Known schedules: applied, featurized and measured by the real workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.measure.client import Measurer
from agent.replays import ReplayInput, featurize, run_replay
from agent.rounds import RoundError
from agent.search.client import Searcher
from agent.search.messages import Candidate, Request
from tests.agent.search_fixtures import HARDWARE, TARGET, Workload, matmul
from tunefleet.devices import DeviceProfile
from tunefleet.leases import (
    BASELINE_TRACE,
    FeaturizeSpec,
    MeasurePolicy,
    NamedTrace,
    ReplaySpec,
    RoundSpec,
    SearchPolicy,
)
from tunefleet.trials import Trial, Verdict

PROFILE = DeviceProfile("x86_64", "Some CPU", ("avx2",), 256, logical_cores=2)
MEASURE = MeasurePolicy(number=1, repeat=2, min_repeat_ms=1)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replays")


@pytest.fixture(scope="module")
def workload(folder: Path) -> Workload:
    return matmul(folder, 32)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def searcher(folder: Path) -> AsyncIterator[Searcher]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEFLEET_LOCK_DIR", str(folder / "lock"))
        made = Searcher(folder / "search.log", timeout_s=120)
        yield made
        await made.close()


async def proposed(searcher: Searcher, workload: Workload) -> tuple[Candidate, ...]:
    """Return candidates of a search, the untuned program first."""
    spec = RoundSpec(
        workload=workload.name,
        workload_digest="",
        target=TARGET,
        trials=4,
        seed=1,
        include_baseline=True,
        search=SearchPolicy(population=8, generations=1),
    )
    proposal = await searcher.propose(Request(workload.path, None, HARDWARE, 2, spec))
    return proposal.candidates


def spec_of(workload: Workload, *traces: NamedTrace) -> FeaturizeSpec:
    return FeaturizeSpec(workload.name, "", TARGET, traces)


async def test_a_known_schedule_has_the_name_and_features_that_its_search_gave(
    searcher: Searcher, workload: Workload
) -> None:
    candidates = await proposed(searcher, workload)
    assert candidates[0].trace == BASELINE_TRACE
    wanted = [NamedTrace(c.candidate, c.trace) for c in candidates]
    results = await featurize(spec_of(workload, *wanted), workload.path, 2, searcher)
    assert [r.candidate for r in results] == [c.candidate for c in candidates]
    assert [r.features for r in results] == [c.features for c in candidates]
    assert {r.error for r in results} == {""}


async def test_schedules_that_do_not_apply_are_named_with_the_reason(
    searcher: Searcher, workload: Workload
) -> None:
    good = (await proposed(searcher, workload))[1]
    alien = '[[["GetSBlock", [], ["no such block", "main"], ["b0"]]], []]'
    results = await featurize(
        spec_of(
            workload,
            NamedTrace("1" * 16, alien),
            NamedTrace("2" * 16, good.trace),
            NamedTrace("3" * 16, "[]"),
            NamedTrace(good.candidate, good.trace),
        ),
        workload.path,
        2,
        searcher,
    )
    assert [r.features is None for r in results] == [True, True, True, False]
    assert "does not apply" in results[0].error
    assert f"makes program {good.candidate} instead of {'2' * 16}" in results[1].error
    assert "does not apply" in results[2].error


async def test_a_workload_that_is_another_is_refused_for_good(
    searcher: Searcher, workload: Workload
) -> None:
    spec = FeaturizeSpec("0" * 16, "", TARGET, (NamedTrace("1" * 16, BASELINE_TRACE),))
    with pytest.raises(RoundError, match="holds workload") as raised:
        await featurize(spec, workload.path, 2, searcher)
    assert raised.value.permanent


async def test_a_replay_measures_each_schedule_and_says_what_does_not_apply(
    searcher: Searcher, workload: Workload, tmp_path: Path
) -> None:
    candidates = await proposed(searcher, workload)
    traces = [NamedTrace(c.candidate, c.trace) for c in candidates]
    spec = ReplaySpec(
        workload.name, "", TARGET, (*traces, NamedTrace("f" * 16, traces[1].trace)), MEASURE
    )
    delivered: list[Trial] = []

    async def deliver(trial: Trial) -> None:
        delivered.append(trial)

    async with Measurer(tmp_path, threads=1) as measurer:
        report = await run_replay(
            ReplayInput("l-1", spec, workload.path, PROFILE), searcher, measurer, deliver
        )
    by_name = {trial.candidate: trial for trial in delivered}
    assert report.trials == len(delivered) == len(traces) + 1
    for candidate in candidates:
        trial = by_name[candidate.candidate]
        assert trial.verdict.has_latency, trial.error
        assert (trial.trace, trial.features) == (candidate.trace, candidate.features)
        assert trial.predicted is None
    assert by_name["f" * 16].verdict is Verdict.BUILD_ERROR
    assert "makes program" in by_name["f" * 16].error
