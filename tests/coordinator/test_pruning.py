"""Pruning strategies: each keeps to the contract, and each keeps what it promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from study_corpora import make_corpus

from coordinator.costmodel.arrays import Indices
from coordinator.study.corpus import Corpus
from coordinator.study.pruning import STRATEGIES, Context, diverse, prune, strategy_of
from coordinator.study.pruning.diverse import cover
from coordinator.study.pruning.quotas import divide, quotas
from tunefleet.errors import Reason, TuneFleetError

NAMES = (
    *("random", "per_task_uniform", "label_stratified"),
    *("feature_diverse", "uncertain", "combined"),
)

named = pytest.mark.parametrize("name", NAMES)
shares = st.floats(0.01, 1.0)
task_sizes = st.lists(st.integers(1, 25), min_size=1, max_size=8)
WORKLOADS = ({"conv2d": 1}, {"dense": 1}, {"net-a": 1}, {"net-b": 1})


def context(corpus: Corpus, seed: int = 0, rows: Indices | None = None) -> Context:
    """Let all rows, or some, be pruned, by a model that is unsure here and there."""
    spread = np.random.default_rng(5).random(len(corpus))
    chosen = np.arange(len(corpus)) if rows is None else rows
    return Context(corpus, chosen, seed, spread.__getitem__)


def counts(corpus: Corpus, rows: Indices) -> NDArray[np.int64]:
    """Count the rows of each task."""
    return np.bincount(corpus.arrays.group[rows], minlength=len(corpus.arrays.group_keys))


def fast_decile(corpus: Corpus) -> set[int]:
    """Find the fastest tenth, rounded up, of each task."""
    found: set[int] = set()
    log_latency = np.nan_to_num(corpus.arrays.log_latency, nan=np.inf)
    for group in range(len(corpus.arrays.group_keys)):
        rows = np.flatnonzero(corpus.arrays.group == group)
        fastest = rows[np.argsort(log_latency[rows])]
        found.update(fastest[: -(-len(rows) // 10)].tolist())
    return found


class TestEveryStrategy:
    def test_all_six_are_there(self) -> None:
        assert set(NAMES) <= STRATEGIES.keys()

    @named
    @given(sizes=task_sizes, keep=shares, seed=st.integers(0, 99), part=st.floats(0.3, 1.0))
    @settings(deadline=None, max_examples=25)
    def test_exactly_as_many_rows_as_asked_for_and_pairs_of_every_task(
        self, name: str, sizes: list[int], keep: float, seed: int, part: float
    ) -> None:
        corpus = make_corpus(WORKLOADS, sizes, failures=1)
        drawn = np.random.default_rng(seed).random(len(corpus)) <= part
        drawn[0] = True
        may = context(corpus, seed, np.flatnonzero(drawn))
        kept = prune(name, may, keep)
        assert len(kept) == max(1, int(np.floor(keep * len(may) + 0.5)))
        assert (np.diff(kept) > 0).all()
        assert np.isin(kept, may.rows).all()
        pairs = np.minimum(counts(corpus, may.rows), 2)
        if len(kept) >= pairs.sum():
            assert (counts(corpus, kept) >= pairs).all()
        else:
            assert (counts(corpus, kept) == 2).sum() >= min(len(kept) // 2, (pairs == 2).sum()) - 1

    @named
    def test_the_seed_alone_decides(self, name: str) -> None:
        corpus = make_corpus(sizes=(20, 31))
        again = [prune(name, context(corpus, 3), 0.5).tolist() for _ in range(2)]
        assert again[0] == again[1]
        others = {tuple(prune(name, context(corpus, seed), 0.5)) for seed in range(5)}
        # "combined" has nothing to draw: it begins with the fastest and goes on by distance.
        assert len(others) > (0 if name == "combined" else 1)

    @named
    def test_a_latency_that_is_not_among_the_rows_plays_no_role(self, name: str) -> None:
        corpus = make_corpus(sizes=(20,))
        rows = np.arange(0, len(corpus), 2)
        others = np.arange(1, len(corpus), 2)
        changed = corpus.arrays.log_latency.copy()
        changed[others] = -changed[others]
        elsewhere = replace(corpus, arrays=replace(corpus.arrays, log_latency=changed))
        np.testing.assert_array_equal(
            prune(name, context(corpus, rows=rows), 0.4),
            prune(name, context(elsewhere, rows=rows), 0.4),
        )

    @named
    def test_keeping_everything_keeps_everything(self, name: str) -> None:
        corpus = make_corpus()
        np.testing.assert_array_equal(prune(name, context(corpus), 1.0), np.arange(len(corpus)))

    @named
    def test_of_nothing_nothing_is_kept(self, name: str) -> None:
        nothing = np.zeros(0, np.int64)
        assert len(prune(name, context(make_corpus(), rows=nothing), 0.5)) == 0

    @named
    @pytest.mark.parametrize("keep", [0.0, -0.5, 1.01, float("nan")])
    def test_what_is_no_share_is_refused(self, name: str, keep: float) -> None:
        with pytest.raises(TuneFleetError) as raised:
            prune(name, context(make_corpus()), keep)
        assert raised.value.reason is Reason.INVALID_ARGUMENT

    def test_halves_are_rounded_up(self) -> None:
        corpus = make_corpus([{"conv2d": 1}], sizes=(25,), targets=1)
        assert len(prune("random", context(corpus), 0.5)) == 13
        assert len(prune("random", context(corpus), 0.001)) == 1

    def test_a_name_that_is_not_known_is_refused_with_those_that_are(self) -> None:
        with pytest.raises(TuneFleetError) as raised:
            strategy_of("by_moon")
        assert raised.value.reason is Reason.INVALID_ARGUMENT
        assert "combined" in raised.value.hint

    def test_rows_must_be_sorted_and_unique(self) -> None:
        with pytest.raises(ValueError, match="sorted and unique"):
            context(make_corpus(), rows=np.array([3, 1]))

    def test_a_strategy_of_ones_own_is_held_to_the_contract(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def first(may: Context, keep: float) -> Indices:
            return np.arange(may.count(keep))

        def same(may: Context, keep: float) -> Indices:
            return np.zeros(may.count(keep), np.int64)

        monkeypatch.setitem(STRATEGIES, "first", first)
        monkeypatch.setitem(STRATEGIES, "same", same)
        rows = np.array([4, 5, 9, 11])
        assert prune("first", context(make_corpus(), rows=rows), 0.5).tolist() == [4, 5]
        with pytest.raises(ValueError, match="1 different rows and not 2"):
            prune("same", context(make_corpus(), rows=rows), 0.5)


sizes_given = st.lists(st.integers(1, 40), min_size=1, max_size=12)


class TestQuotas:
    @given(sizes=sizes_given, share=st.floats(0, 1), even=st.booleans(), first=st.booleans())
    @settings(deadline=None)
    def test_the_sum_is_exact_and_the_limits_hold(
        self, sizes: list[int], share: float, even: bool, first: bool
    ) -> None:
        room = np.array(sizes, np.int64)
        total = round(share * room.sum())
        least = -(-room // 10) if first else None
        got = quotas(room, total, np.random.default_rng(0), even=even, first=least)
        assert got.sum() == total
        assert ((got >= 0) & (got <= room)).all()
        wanted = np.minimum(room, 2) if least is None else np.maximum(np.minimum(room, 2), least)
        if total >= wanted.sum():
            assert (got >= wanted).all()

    @given(room=sizes_given, share=st.floats(0, 1))
    @settings(deadline=None)
    def test_even_numbers_differ_by_one_where_there_is_room(
        self, room: list[int], share: float
    ) -> None:
        limits = np.array(room, np.int64)
        got = divide(limits, round(share * limits.sum()), np.random.default_rng(0), even=True)
        not_full = got[got < limits]
        assert np.ptp(not_full) <= 1 if len(not_full) else True
        if len(not_full):
            assert got.max() <= not_full.min() + 1

    @given(room=sizes_given, share=st.floats(0, 1))
    @settings(deadline=None)
    def test_proportional_numbers_are_off_by_less_than_one(
        self, room: list[int], share: float
    ) -> None:
        limits = np.array(room, np.int64)
        total = round(share * limits.sum())
        got = divide(limits, total, np.random.default_rng(0), even=False)
        assert (np.abs(got - limits * total / limits.sum()) < 1 + 1e-9).all()

    def test_where_there_are_too_few_for_pairs_some_tasks_get_one(self) -> None:
        sizes = np.array([1, 5, 5, 1, 5], np.int64)
        got = quotas(sizes, 5, np.random.default_rng(0), even=True)
        assert sorted(got.tolist()) == [0, 0, 0, 2, 3]


class TestPerTaskUniform:
    def test_small_tasks_stay_whole_and_large_ones_give(self) -> None:
        corpus = make_corpus(WORKLOADS, sizes=(4, 40), targets=1)
        kept = prune("per_task_uniform", context(corpus), 0.25)
        assert counts(corpus, kept).tolist() in ([4, 7, 4, 7], [4, 7, 4, 7][::-1])


class TestLabelStratified:
    def test_the_fast_decile_stays_whole_and_the_slower_the_fewer(self) -> None:
        corpus = make_corpus(sizes=(50, 73), failures=2)
        kept = np.zeros(10)
        there = np.zeros(10)
        for seed in range(5):
            chosen = prune("label_stratified", context(corpus, seed), 0.4)
            assert fast_decile(corpus) <= set(chosen.tolist())
            for group in range(len(corpus.arrays.group_keys)):
                rows = np.flatnonzero(corpus.arrays.group == group)
                latency = np.nan_to_num(corpus.arrays.log_latency[rows], nan=np.inf)
                decile = np.argsort(np.argsort(latency)) * 10 // len(rows)
                there += np.bincount(decile, minlength=10)
                kept += np.bincount(decile[np.isin(rows, chosen)], minlength=10)
        share = kept / there
        thirds = [share[1:4].mean(), share[4:7].mean(), share[7:].mean()]
        assert thirds[0] > thirds[1] + 0.1 > thirds[2] + 0.2

    def test_tasks_keep_equal_shares(self) -> None:
        corpus = make_corpus(WORKLOADS, sizes=(20, 60), targets=1)
        kept = prune("label_stratified", context(corpus), 0.5)
        assert counts(corpus, kept).tolist() == [10, 30, 10, 30]


def with_values(corpus: Corpus, values: NDArray[np.float32]) -> Corpus:
    """Give each program one value of at least 0, in its first store, and nothing else."""
    arrays = corpus.arrays
    features = np.zeros_like(arrays.features)
    features[arrays.first_store, 0] = values
    return replace(corpus, arrays=replace(arrays, features=features))


class TestFeatureDiverse:
    def test_of_equal_programs_one_is_kept(self) -> None:
        corpus = make_corpus([{"conv2d": 1}], sizes=(40,), targets=1)
        kind = np.arange(40) % 5
        alike = with_values(corpus, kind.astype(np.float32) * 100)
        for seed in range(5):
            kept = prune("feature_diverse", context(alike, seed), 5 / 40)
            assert sorted(kind[kept].tolist()) == [0, 1, 2, 3, 4]

    def test_the_furthest_row_is_nearer_to_what_is_kept_than_with_random_rows(self) -> None:
        corpus = make_corpus([{"conv2d": 1}], sizes=(200,), targets=1)
        points = diverse.standardised(context(corpus))

        def radius(name: str, seed: int) -> float:
            kept = points[prune(name, context(corpus, seed), 0.1)]
            away = np.linalg.norm(points[:, None, :] - kept[None, :, :], axis=-1)
            return float(away.min(axis=1).max())

        ours = [radius("feature_diverse", seed) for seed in range(5)]
        theirs = [radius("random", seed) for seed in range(5)]
        assert np.mean(ours) < 0.95 * np.mean(theirs)

    @given(size=st.integers(1, 60), share=st.floats(0, 1), begun=st.integers(0, 5))
    @settings(deadline=None, max_examples=40)
    def test_large_tasks_are_covered_block_by_block(
        self, size: int, share: float, begun: int
    ) -> None:
        rng = np.random.default_rng(0)
        points = rng.normal(size=(size, 3)).astype(np.float32)
        begin = rng.permutation(size)[: min(begun, size)]
        count = max(len(begin), round(share * size))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(diverse, "_BLOCK_ROWS", 16)
            chosen = cover(points, begin, count, rng)
        assert len(set(chosen.tolist())) == len(chosen) == count
        assert chosen[: len(begin)].tolist() == begin.tolist()


class TestUncertain:
    def test_what_a_model_is_unsure_of_is_kept_and_some_of_the_rest(self) -> None:
        corpus = make_corpus(sizes=(40,))
        may = context(corpus)
        assert may.spread is not None
        spread = may.spread(may.rows)
        kept = prune("uncertain", may, 0.5)
        top = np.argsort(-spread)[: int(0.4 * len(corpus)) - len(corpus.arrays.group_keys)]
        assert np.isin(top, kept).all()
        assert spread[kept].min() < np.quantile(spread, 0.2)

    def test_without_a_model_it_says_what_it_needs(self) -> None:
        corpus = make_corpus()
        with pytest.raises(TuneFleetError) as raised:
            prune("uncertain", Context(corpus, np.arange(len(corpus))), 0.5)
        assert raised.value.reason is Reason.INVALID_ARGUMENT
        assert "--model" in raised.value.hint

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
    def test_a_spread_that_makes_no_sense_is_refused(self, wrong: float) -> None:
        corpus = make_corpus()
        may = Context(corpus, np.arange(len(corpus)), spread=lambda rows: np.full(len(rows), wrong))
        with pytest.raises(ValueError, match="spread"):
            prune("uncertain", may, 0.5)


class TestCombined:
    @pytest.mark.parametrize("unsure", [True, False])
    def test_the_fast_decile_stays_whole(self, unsure: bool) -> None:
        corpus = make_corpus(sizes=(50, 73), failures=2)
        may = context(corpus) if unsure else Context(corpus, np.arange(len(corpus)))
        assert fast_decile(corpus) <= set(prune("combined", may, 0.3).tolist())

    def test_of_what_is_equally_far_the_least_certain_is_kept(self) -> None:
        corpus = make_corpus([{"conv2d": 1}], sizes=(9,), targets=1, failures=0)
        fastest = int(np.argmin(corpus.arrays.log_latency))
        others = np.delete(np.arange(9), fastest)
        value = np.full(9, 50.0, np.float32)
        value[others] = np.repeat([0.0, 100.0], 4)
        spread = np.full(9, 1.0)
        spread[others[[2, 5]]] = 4.0
        may = Context(with_values(corpus, value), np.arange(9), spread=spread.__getitem__)
        kept = prune("combined", may, 3 / 9)
        assert set(kept.tolist()) == {fastest, others[2], others[5]}

    def test_a_model_that_is_sure_of_everything_changes_nothing(self) -> None:
        corpus = make_corpus(sizes=(30,))
        sure = Context(corpus, np.arange(len(corpus)), spread=lambda rows: np.zeros(len(rows)))
        np.testing.assert_array_equal(
            prune("combined", sure, 0.4),
            prune("combined", Context(corpus, np.arange(len(corpus))), 0.4),
        )


@named
def test_the_shipped_dataset_can_be_halved(shipped: Corpus, name: str) -> None:
    kept = prune(name, context(shipped), 0.5)
    assert len(kept) == round(0.5 * len(shipped))
    assert (counts(shipped, kept) >= np.minimum(counts(shipped, np.arange(len(shipped))), 2)).all()
