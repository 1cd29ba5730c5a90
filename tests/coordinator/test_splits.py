"""Splits: what is held out is never learned from, whoever is asked for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_corpora import make_corpus

from coordinator.costmodel.arrays import Indices
from coordinator.study.corpus import Corpus
from coordinator.study.split_files import load_split, save_split
from coordinator.study.splits import (
    SPLITS,
    Kind,
    LeakError,
    Split,
    by_network,
    by_target,
    by_task,
    check_no_leak,
    make_split,
    unseen_both,
    within_task,
    workload_of,
)
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.families import FAMILIES

NAMES = ("within_task", "by_task", "by_network", "by_target", "unseen_both")

named = pytest.mark.parametrize("name", NAMES)
seeds = st.integers(0, 2**40)
shares = st.floats(0.1, 0.6)
network_names = st.sampled_from(["net-a", "net-b", "net-c", "conv2d", "dense"])
sources = st.lists(
    st.dictionaries(network_names, st.integers(1, 3), min_size=1, max_size=3),
    min_size=2,
    max_size=8,
)


def workloads(corpus: Corpus, rows: Indices) -> set[str]:
    return {corpus.workloads[i] for i in corpus.workload[rows]}


def targets(corpus: Corpus, rows: Indices) -> set[str]:
    return {corpus.targets[i] for i in corpus.target[rows]}


def networks(corpus: Corpus, rows: Indices) -> set[str]:
    of_rows = {name for i in corpus.workload[rows] for name in corpus.sources[i]}
    return of_rows - FAMILIES.keys()


def candidates(corpus: Corpus, rows: Indices) -> set[int]:
    return set(corpus.arrays.candidate[rows].tolist())


def trial_ids(corpus: Corpus, rows: Indices) -> set[str]:
    return {corpus.trial_ids[i] for i in rows}


def reason(raised: pytest.ExceptionInfo[TuneFleetError]) -> Reason:
    return raised.value.reason


class TestEverySplit:
    def test_all_five_are_there(self) -> None:
        assert set(NAMES) <= SPLITS.keys()

    @named
    @given(sources=sources, sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=seeds)
    @settings(deadline=None, max_examples=30)
    def test_nothing_that_is_judged_was_learned(
        self, name: str, sources: list[dict[str, int]], sizes: list[int], seed: int
    ) -> None:
        corpus = make_corpus(sources, sizes, targets=3)
        try:
            split = make_split(name, corpus, seed)
        except TuneFleetError as e:
            assert e.reason is Reason.SPLIT_IMPOSSIBLE  # noqa: PT017 - a tiny corpus may be so
            return
        train, test = split.train, split.test
        assert not trial_ids(corpus, train) & trial_ids(corpus, test)
        if name == "within_task":
            assert not candidates(corpus, train) & candidates(corpus, test)
        if name in {"by_task", "by_network", "unseen_both"}:
            assert not workloads(corpus, train) & workloads(corpus, test)
        if name in {"by_target", "unseen_both"}:
            assert not targets(corpus, train) & targets(corpus, test)
        if name in {"by_network", "unseen_both"}:
            assert not networks(corpus, train) & set(split.held_out)

    @named
    @given(seed=seeds, share=shares)
    @settings(deadline=None, max_examples=10)
    def test_the_seed_alone_decides_whatever_the_order_of_rows(
        self, name: str, seed: int, share: float
    ) -> None:
        corpus = make_corpus(sizes=(40,))
        mixed = corpus.take(np.random.default_rng(seed).permutation(len(corpus)))
        split, again = make_split(name, corpus, seed, share), make_split(name, mixed, seed, share)
        assert trial_ids(corpus, split.train) == trial_ids(mixed, again.train)
        assert trial_ids(corpus, split.test) == trial_ids(mixed, again.test)
        assert split.held_out == again.held_out

    @named
    def test_other_seeds_hold_out_others(self, name: str) -> None:
        corpus = make_corpus()
        drawn = {tuple(make_split(name, corpus, seed, 0.3).test.tolist()) for seed in range(8)}
        assert len(drawn) > 1

    @named
    def test_failed_trials_may_be_learned_from(self, name: str) -> None:
        corpus = make_corpus(failures=3)
        split = make_split(name, corpus)
        assert not corpus.measured()[split.train].all()
        assert corpus.measured()[split.train].any()

    @named
    @pytest.mark.parametrize(("seed", "share"), [(-1, 0.2), (0, 0.0), (0, 1.0), (0, float("nan"))])
    def test_senseless_arguments_are_refused(self, name: str, seed: int, share: float) -> None:
        with pytest.raises(TuneFleetError) as raised:
            make_split(name, make_corpus(), seed, share)
        assert reason(raised) is Reason.INVALID_ARGUMENT

    @named
    def test_where_nothing_was_measured_nothing_can_be_judged(self, name: str) -> None:
        with pytest.raises(TuneFleetError, match="no two measured trials") as raised:
            make_split(name, make_corpus(sizes=(4,), failures=4))
        assert reason(raised) is Reason.SPLIT_IMPOSSIBLE

    def test_a_name_that_is_not_known_is_refused_with_those_that_are(self) -> None:
        with pytest.raises(TuneFleetError) as raised:
            make_split("by_moon", make_corpus())
        assert reason(raised) is Reason.INVALID_ARGUMENT
        assert "by_task" in raised.value.hint


class TestWithinTask:
    def test_the_share_of_candidates_is_held_out(self) -> None:
        corpus = make_corpus(sizes=(300,), targets=1)
        split = within_task(corpus, 3, 0.25)
        assert len(split.test) == pytest.approx(0.25 * len(corpus), rel=0.1)
        assert len(split.train) + len(split.test) == len(corpus)

    def test_a_candidate_keeps_its_side_when_the_corpus_is_cut_down(self) -> None:
        corpus = make_corpus()
        some = corpus.take(np.arange(0, len(corpus), 3))
        whole, part = within_task(corpus, 1), within_task(some, 1)
        assert candidates(some, part.test) <= candidates(corpus, whole.test)
        assert candidates(some, part.train) <= candidates(corpus, whole.train)


class TestByTask:
    def test_workloads_go_with_all_their_targets(self) -> None:
        corpus = make_corpus()
        split = by_task(corpus, 0, 0.25)
        assert workloads(corpus, split.test) == set(split.held_out)
        assert len(split.held_out) == 2
        assert targets(corpus, split.test) == set(corpus.targets)

    def test_one_workload_cannot_be_split(self) -> None:
        corpus = make_corpus()
        one = corpus.take(np.flatnonzero(corpus.workload == 3))
        with pytest.raises(TuneFleetError, match="one workload only") as raised:
            by_task(one)
        assert reason(raised) is Reason.SPLIT_IMPOSSIBLE


class TestByNetwork:
    @pytest.mark.parametrize("seed", range(6))
    def test_everything_of_a_network_is_held_out_and_nothing_else(self, seed: int) -> None:
        corpus = make_corpus()
        split = by_network(corpus, seed, 0.25)
        theirs = {
            workload
            for workload, of_it in zip(corpus.workloads, corpus.sources, strict=True)
            if set(of_it) & set(split.held_out)
        }
        assert len(split.held_out) == 1
        assert workloads(corpus, split.test) == theirs
        assert workloads(corpus, split.train) == set(corpus.workloads) - theirs

    def test_large_and_small_networks_are_held_out_together(self) -> None:
        large = [{"large-1": 1}] * 9 + [{"large-2": 1}] * 8
        corpus = make_corpus([*large, {"small-1": 1}, {"small-2": 1}], sizes=(3,), targets=1)
        for seed in range(5):
            held = by_network(corpus, seed, 0.5).held_out
            assert [name.split("-")[0] for name in held] == ["large", "small"]

    def test_families_alone_have_no_network_to_hold_out(self) -> None:
        with pytest.raises(TuneFleetError, match="only of families") as raised:
            by_network(make_corpus([{"conv2d": 1}, {"dense": 1}]))
        assert reason(raised) is Reason.SPLIT_IMPOSSIBLE

    def test_networks_that_share_everything_leave_nothing_to_learn_from(self) -> None:
        corpus = make_corpus([{"net-a": 1, "net-b": 1}, {"net-a": 2, "net-b": 3}])
        with pytest.raises(TuneFleetError, match="to learn from") as raised:
            by_network(corpus)
        assert reason(raised) is Reason.SPLIT_IMPOSSIBLE


class TestByTarget:
    def test_seeds_hold_out_each_target_in_turn(self) -> None:
        corpus = make_corpus(targets=3)
        held = [by_target(corpus, seed) for seed in range(3)]
        assert {split.held_out for split in held} == {(name,) for name in corpus.targets}
        for split in held:
            assert targets(corpus, split.test) == set(split.held_out)
            assert len(split.test) + len(split.train) == len(corpus)

    @pytest.mark.parametrize("name", ["by_target", "unseen_both"])
    def test_one_target_cannot_be_split(self, name: str) -> None:
        corpus = make_corpus(targets=2)
        one = corpus.take(np.flatnonzero(corpus.target == 1))
        with pytest.raises(TuneFleetError, match="one target only") as raised:
            make_split(name, one)
        assert reason(raised) is Reason.SPLIT_IMPOSSIBLE


class TestUnseenBoth:
    @pytest.mark.parametrize("seed", range(6))
    def test_rows_of_one_held_out_side_only_are_for_neither(self, seed: int) -> None:
        corpus = make_corpus(targets=3)
        split = unseen_both(corpus, seed, 0.25)
        target, network = split.held_out
        of_network = np.array([network in corpus.sources[w] for w in corpus.workload])
        on_target = np.array([corpus.targets[t] == target for t in corpus.target])
        np.testing.assert_array_equal(split.test, np.flatnonzero(of_network & on_target))
        np.testing.assert_array_equal(split.train, np.flatnonzero(~of_network & ~on_target))

    @pytest.mark.parametrize("seed", range(4))
    def test_its_networks_are_those_of_by_network(self, seed: int) -> None:
        corpus = make_corpus(targets=3)
        assert unseen_both(corpus, seed).held_out[1:] == by_network(corpus, seed).held_out


def overlapping(corpus: Corpus, split: Split) -> Split:
    return replace(split, train=np.sort(np.append(split.train, split.test[0])))


def unsorted(corpus: Corpus, split: Split) -> Split:
    return replace(split, train=split.train[::-1])


def doubled(corpus: Corpus, split: Split) -> Split:
    return replace(split, test=np.sort(np.append(split.test, split.test[0])))


def beyond(corpus: Corpus, split: Split) -> Split:
    return replace(split, test=np.append(split.test, len(corpus)))


def moved(corpus: Corpus, split: Split) -> Split:
    """Learn from one of the rows to be judged by, its likes staying where they were."""
    return replace(split, train=np.sort(np.append(split.train, split.test[0])), test=split.test[1:])


class TestLeaks:
    @named
    @pytest.mark.parametrize("spoil", [overlapping, unsorted, doubled, beyond, moved])
    def test_a_spoilt_split_is_noticed(
        self, name: str, spoil: Callable[[Corpus, Split], Split]
    ) -> None:
        corpus = make_corpus()
        split = make_split(name, corpus, 1, 0.3)
        check_no_leak(corpus, split)
        with pytest.raises(LeakError):
            check_no_leak(corpus, spoil(corpus, split))

    def test_a_network_that_is_held_out_must_be_in_no_source_of_training(self) -> None:
        corpus = make_corpus()
        split = by_network(corpus)
        [held] = split.held_out
        known_later = tuple({**of_it, held: 1} for of_it in corpus.sources)
        with pytest.raises(LeakError, match=held):
            check_no_leak(replace(corpus, sources=known_later), split)

    def test_a_split_of_ones_own_is_checked_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def odd_rows(corpus: Corpus, seed: int, share: float) -> Split:
            odd = np.arange(len(corpus)) % 2 == 1
            return Split("odd", seed, share, np.flatnonzero(~odd), np.flatnonzero(odd), ())

        monkeypatch.setitem(SPLITS, "odd", Kind(odd_rows, ()))
        assert len(make_split("odd", make_corpus()).test)
        monkeypatch.setitem(SPLITS, "odd", Kind(odd_rows, (workload_of,)))
        with pytest.raises(LeakError, match="workload_of"):
            make_split("odd", make_corpus())


class TestFiles:
    @named
    def test_a_split_comes_back_for_rows_in_any_order(self, name: str, tmp_path: Path) -> None:
        corpus = make_corpus()
        split = make_split(name, corpus, 2, 0.3)
        save_split(tmp_path / "split.json", corpus, split)
        mixed = corpus.take(np.random.default_rng(0).permutation(len(corpus)))
        again = load_split(tmp_path / "split.json", mixed)
        assert trial_ids(mixed, again.train) == trial_ids(corpus, split.train)
        assert trial_ids(mixed, again.test) == trial_ids(corpus, split.test)
        assert (again.name, again.seed, again.share, again.held_out) == (
            *(name, 2, 0.3),
            split.held_out,
        )

    def test_the_split_of_another_corpus_is_refused(self, tmp_path: Path) -> None:
        corpus = make_corpus()
        save_split(tmp_path / "split.json", corpus, by_task(corpus))
        other = corpus.take(np.arange(1, len(corpus)))
        with pytest.raises(TuneFleetError, match="not made-up with 191") as raised:
            load_split(tmp_path / "split.json", other)
        assert reason(raised) is Reason.DATASET_INVALID

    def test_a_file_that_was_changed_so_that_it_leaks_is_refused(self, tmp_path: Path) -> None:
        corpus, path = make_corpus(), tmp_path / "split.json"
        save_split(path, corpus, by_task(corpus))
        content = json.loads(path.read_text())
        content["sides"] = content["sides"].replace("e", "r", 1)
        path.write_text(json.dumps(content))
        with pytest.raises(TuneFleetError, match="cannot be trusted") as raised:
            load_split(path, corpus)
        assert reason(raised) is Reason.DATASET_INVALID

    @pytest.mark.parametrize(
        "change",
        [
            {"sides": "re"},
            {"sides": None},
            {"name": "by_moon"},
            {"tunefleet_split": 2},
            {"corpus": "mine"},
            {"held_out": 5},
            {"seed": "many"},
        ],
        ids=str,
    )
    def test_a_file_that_makes_no_sense_is_refused(
        self, change: dict[str, object], tmp_path: Path
    ) -> None:
        corpus, path = make_corpus(), tmp_path / "split.json"
        save_split(path, corpus, by_task(corpus))
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(TuneFleetError) as raised:
            load_split(path, corpus)
        assert reason(raised) is Reason.DATASET_INVALID

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
    def test_what_is_no_split_is_refused(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "split.json"
        path.write_text(content)
        with pytest.raises(TuneFleetError, match="no split that can be used"):
            load_split(path, make_corpus())
        with pytest.raises(TuneFleetError, match="no split that can be used"):
            load_split(tmp_path / "missing.json", make_corpus())


class TestShippedDataset:
    @named
    def test_it_can_be_split_in_every_way(self, shipped: Corpus, name: str) -> None:
        for seed in range(3):
            split = make_split(name, shipped, seed)
            check_no_leak(shipped, split)
            assert len(split.test) > 100
            assert len(split.train) > len(shipped) / 2

    def test_about_a_fifth_is_held_out(self, shipped: Corpus) -> None:
        assert len(within_task(shipped).test) == pytest.approx(0.2 * len(shipped), rel=0.1)
        assert len(by_task(shipped).held_out) == round(0.2 * len(shipped.workloads))
        assert len(by_network(shipped).held_out) == round(0.2 * len(shipped.networks))
