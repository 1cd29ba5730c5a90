"""What a search proposes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace
from tvm_ffi import structural_hash

from agent.search.messages import Candidate, ErrorKind, Proposal, Request, SearchError
from agent.search.proposing import Proposer
from agent.search.space import tvm
from tests.agent.search_fixtures import HARDWARE, TARGET, Workload, elementwise, matmul, write_model
from tunefleet.leases import BASELINE_TRACE, KnownTrace, RoundSpec, SearchPolicy
from tunefleet.machine_lock import MachineLock
from tunefleet.schedules.row import schedule_row

SMALL = SearchPolicy(population=32, generations=1, exploration=0.25)
STRIDE_FEATURE = 67
"""Differs widely between the schedules of a matrix product."""
TILE_FEATURE = 21
"""In a schedule's row, the innermost factor of the first split."""

Propose = Callable[..., Proposal]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def product(folder: Path) -> Workload:
    return matmul(folder)


@pytest.fixture(scope="module")
def addition(folder: Path) -> Workload:
    return elementwise(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return write_model(folder / "model.onnx", feature=STRIDE_FEATURE)


@pytest.fixture(scope="module")
def propose(folder: Path) -> Propose:
    proposer = Proposer(MachineLock(folder / "lock"))

    def call(
        workload: Workload,
        *,
        model: Path | None = None,
        threads: int = 2,
        fresh: bool = False,
        target: str = TARGET,
        trials: int = 8,
        seed: int = 1,
        search: SearchPolicy = SMALL,
        known: tuple[KnownTrace, ...] = (),
        related: tuple[str, ...] = (),
        tried: frozenset[str] = frozenset(),
        include_baseline: bool = False,
    ) -> Proposal:
        work = RoundSpec(
            workload=workload.name,
            workload_digest="",
            target=target,
            trials=trials,
            seed=seed,
            search=search,
            known=known,
            related=related,
            tried=tried,
            include_baseline=include_baseline,
        )
        chosen = Proposer(MachineLock(folder / "lock")) if fresh else proposer
        return chosen.propose(Request(workload.path, model, HARDWARE, threads, work))

    return call


def names(proposal: Proposal) -> list[str]:
    return [c.candidate for c in proposal.candidates]


def known_from(proposal: Proposal) -> tuple[KnownTrace, ...]:
    return tuple(
        KnownTrace(c.trace, 1e-3 * (place + 1), c.candidate)
        for place, c in enumerate(proposal.candidates)
    )


def rows(candidate: Candidate) -> np.ndarray:
    values = np.frombuffer(candidate.features.data, "<f4")
    return values.reshape(candidate.features.stores, 172)


def stride(candidate: Candidate) -> float:
    return summed(candidate, STRIDE_FEATURE)


def summed(candidate: Candidate, feature: int) -> float:
    """What the stand-in model makes of a trial as it is stored: trace and stores."""
    schedule = np.frombuffer(schedule_row(candidate.trace), "<f4")
    return float(schedule[feature] + rows(candidate)[:, feature].sum())


def reapplied(workload: Workload, candidate: Candidate) -> str:
    schedule = Schedule(tvm.ir.load_json(workload.text))
    Trace.apply_json_to_schedule(json.loads(candidate.trace), schedule)
    return f"{structural_hash(schedule.mod) & 0xFFFFFFFFFFFFFFFF:016x}"


def test_candidates_are_all_different(propose: Propose, product: Workload, model: Path) -> None:
    found = names(propose(product, model=model, trials=16))
    assert len(set(found)) == len(found) == 16


def test_no_candidate_was_tried_before(propose: Propose, product: Workload, model: Path) -> None:
    first = propose(product, model=model)
    second = propose(product, model=model, tried=frozenset(names(first)))
    assert len(second.candidates) == 8
    assert not set(names(first)) & set(names(second))


def test_every_trace_gives_its_candidate_again(
    propose: Propose, product: Workload, model: Path
) -> None:
    proposal = propose(product, model=model, trials=12, include_baseline=True)
    assert [reapplied(product, c) for c in proposal.candidates] == names(proposal)


@pytest.mark.parametrize("with_model", [False, True])
def test_the_same_seed_gives_the_same_proposal(
    propose: Propose, product: Workload, model: Path, with_model: bool
) -> None:
    chosen = model if with_model else None
    known = known_from(propose(product, seed=99))
    warm = propose(product, model=chosen, seed=5, known=known)
    cold = propose(product, model=chosen, seed=5, known=known, fresh=True, threads=1)
    assert warm.candidates == cold.candidates


def test_another_seed_gives_another_proposal(propose: Propose, product: Workload) -> None:
    assert names(propose(product, seed=1)) != names(propose(product, seed=2))


def test_the_best_by_score_come_first(propose: Propose, product: Workload, model: Path) -> None:
    proposal = propose(product, model=model)
    scores = [c.predicted for c in proposal.candidates if not c.explored]
    assert len(scores) == 6
    assert scores == sorted(scores, key=lambda s: -float(s or 0))


def test_predictions_are_the_models(propose: Propose, product: Workload, model: Path) -> None:
    proposal = propose(product, model=model, include_baseline=True)
    predicted = [c.predicted for c in proposal.candidates]
    assert predicted == pytest.approx([-1e-6 * stride(c) for c in proposal.candidates], rel=1e-5)
    assert proposal.model_version == "stand-in"


def test_predictions_follow_from_what_trials_store(
    propose: Propose, product: Workload, folder: Path
) -> None:
    ranked = write_model(folder / "tile.onnx", feature=TILE_FEATURE, scale=1.0)
    known = known_from(propose(product, seed=99))
    proposal = propose(product, model=ranked, trials=64, known=known, include_baseline=True)
    predicted = [c.predicted for c in proposal.candidates]
    expected = [summed(c, TILE_FEATURE) for c in proposal.candidates]
    assert predicted == pytest.approx(expected, rel=1e-5)
    assert len({schedule_row(c.trace)[4 * TILE_FEATURE :][:4] for c in proposal.candidates}) > 3


@pytest.mark.parametrize("scale", [-1e-6, 1e-6])
def test_evolution_finds_better_programs_than_chance(
    propose: Propose, product: Workload, folder: Path, scale: float
) -> None:
    ranked = write_model(folder / f"scale{scale}.onnx", feature=STRIDE_FEATURE, scale=scale)
    evolved = propose(product, model=ranked, search=SearchPolicy(32, 3, 0.0))
    random = propose(product, model=ranked, search=SearchPolicy(32, 0, 0.0))
    assert scale * np.mean([stride(c) for c in evolved.candidates]) > scale * np.mean(
        [stride(c) for c in random.candidates]
    )


def test_a_share_of_the_trials_explores(propose: Propose, product: Workload, model: Path) -> None:
    proposal = propose(product, model=model, search=SearchPolicy(32, 1, 0.5))
    assert [c.explored for c in proposal.candidates] == [False] * 4 + [True] * 4


def test_without_a_model_nothing_is_predicted(propose: Propose, product: Workload) -> None:
    proposal = propose(product)
    assert {(c.predicted, c.explored) for c in proposal.candidates} == {(None, True)}
    assert proposal.model_version == ""


def test_features_have_one_row_for_each_store(propose: Propose, product: Workload) -> None:
    proposal = propose(product)
    assert all(1 <= c.features.stores <= 32 for c in proposal.candidates)
    assert all(np.isfinite(rows(c)).all() for c in proposal.candidates)


def test_the_baseline_comes_first_if_asked_for(propose: Propose, product: Workload) -> None:
    proposal = propose(product, include_baseline=True)
    first = proposal.candidates[0]
    assert (first.candidate, first.trace, first.explored) == (product.name, BASELINE_TRACE, False)
    assert len(proposal.candidates) == 8


def test_a_baseline_already_tried_is_not_repeated(propose: Propose, product: Workload) -> None:
    tried = frozenset({product.name})
    assert product.name not in names(propose(product, include_baseline=True, tried=tried))


def test_an_exhausted_space_is_reported(propose: Propose, addition: Workload) -> None:
    first = propose(addition, trials=64)
    assert first.space_exhausted
    assert 0 < len(first.candidates) < 64
    second = propose(addition, trials=64, seed=2, tried=frozenset(names(first)))
    assert (second.candidates, second.space_exhausted) == ((), True)


def test_a_space_with_enough_left_is_not_exhausted(propose: Propose, product: Workload) -> None:
    assert not propose(product).space_exhausted


def test_known_traces_that_fit_nothing_are_skipped(
    propose: Propose, product: Workload, addition: Workload, model: Path
) -> None:
    foreign = known_from(propose(addition, trials=4))
    broken = (KnownTrace("not JSON", 1e-3, "0" * 16), KnownTrace("[[1],[]]", 1e-3, "1" * 16))
    baseline = (KnownTrace(BASELINE_TRACE, 1e-2, product.name),)
    proposal = propose(product, model=model, known=foreign + broken + baseline)
    assert proposal.candidates == propose(product, model=model).candidates


def test_known_traces_have_mutants(propose: Propose, product: Workload) -> None:
    known = known_from(propose(product, trials=1))
    with_known = propose(product, known=known, seed=3)
    without = propose(product, seed=3)
    assert with_known.stats.evaluated > without.stats.evaluated + len(known)


def test_the_nearest_related_schedules_are_measured_whatever_their_score(
    propose: Propose, product: Workload, folder: Path, model: Path
) -> None:
    larger = matmul(folder, size=192)
    elsewhere = [c.trace for c in propose(larger, trials=3, seed=5).candidates]
    proposal = propose(product, model=model, related=tuple(elsewhere), trials=16)
    first = proposal.candidates[:2]
    assert all(candidate.explored for candidate in first)
    assert proposal.candidates[2].predicted == max(
        c.predicted for c in proposal.candidates[2:] if c.predicted is not None
    )
    for candidate, trace in zip(first, elsewhere, strict=False):
        assert reapplied(product, candidate) == candidate.candidate
        kinds = [one[0] for one in json.loads(trace)[0] if one[0].startswith("Sample")]
        assert [o[0] for o in json.loads(candidate.trace)[0] if o[0].startswith("Sample")] == kinds


def test_related_schedules_have_mutants_where_nothing_was_measured(
    propose: Propose, product: Workload
) -> None:
    related = tuple(c.trace for c in propose(product, trials=1).candidates)
    with_related = propose(product, related=related, seed=3)
    assert with_related.stats.evaluated > propose(product, seed=3).stats.evaluated + 1


def test_related_schedules_that_fit_nothing_are_skipped(
    propose: Propose, product: Workload, addition: Workload, model: Path
) -> None:
    foreign = tuple(c.trace for c in propose(addition, trials=4).candidates)
    proposal = propose(product, model=model, related=(*foreign, "not JSON", "[[1],[]]"))
    assert proposal.candidates == propose(product, model=model).candidates


def test_a_workload_that_is_no_module_is_refused(
    propose: Propose, product: Workload, tmp_path: Path
) -> None:
    path = tmp_path / "garbage.json"
    path.write_text("garbage")
    with pytest.raises(SearchError) as refused:
        propose(Workload(product.name, path), fresh=True)
    assert refused.value.kind is ErrorKind.WORKLOAD


def test_a_workload_under_another_name_is_refused(propose: Propose, product: Workload) -> None:
    with pytest.raises(SearchError, match="instead of") as refused:
        propose(Workload("0" * 16, product.path), fresh=True)
    assert refused.value.kind is ErrorKind.WORKLOAD


def test_an_unknown_target_is_refused(propose: Propose, product: Workload) -> None:
    with pytest.raises(SearchError) as refused:
        propose(product, target='{"kind":"abacus"}')
    assert refused.value.kind is ErrorKind.WORKLOAD
