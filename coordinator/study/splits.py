"""Splits of a corpus into what models learn from and what they are judged by.

A split is made by a plain function of a corpus, a seed and a share; add one with :func:`splitter`,
or as an entry of ``SPLITS``. Whoever makes it, it is checked before anybody trains on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices
from coordinator.study.corpus import Corpus
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.families import FAMILIES

DEFAULT_SHARE = 0.2
"""Of whatever a split holds out."""


@dataclass(frozen=True, eq=False)
class Split:
    """Which rows of a corpus are for what; some may be for neither."""

    name: str
    seed: int
    share: float
    """What was asked to be held out; 0 to 1."""
    train: Indices
    """Sorted rows to learn from; trials that failed among them."""
    test: Indices
    """Sorted rows to be judged by; those that failed have no latency, and no metric counts them."""
    held_out: tuple[str, ...]
    """Names of the workloads, networks and targets that training must not see."""


Splitter: TypeAlias = Callable[[Corpus, int, float], Split]
Key: TypeAlias = Callable[[Corpus], NDArray[Any]]
"""Gives [N] values; rows with equal values are the same thing."""


class LeakError(ValueError):
    """What a model is judged by is not apart from what it learns from."""


@dataclass(frozen=True)
class Kind:
    """One way to split, and what must not be on both sides of it."""

    make: Splitter
    apart: tuple[Key, ...]

    def __call__(self, corpus: Corpus, seed: int = 0, share: float = DEFAULT_SHARE) -> Split:
        """Split a corpus.

        Args:
            corpus: to split.
            seed: decides what is held out; at least 0.
            share: how much of it, above 0 and below 1.

        Raises:
            TuneFleetError: SPLIT_IMPOSSIBLE, the corpus cannot be split so; INVALID_ARGUMENT.
            LeakError: the split is wrong.
        """
        if seed < 0 or not 0.0 < share < 1.0:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"a split needs a seed of at least 0 and a share between 0 and 1, "
                f"not {seed} and {share}",
                hint="Half of everything is a share of 0.5.",
            )
        split = self.make(corpus, seed, share)
        check_no_leak(corpus, split, self.apart)
        for side, rows in (("to learn from", split.train), ("to be judged by", split.test)):
            if not _comparable(corpus, rows):
                raise impossible(
                    f"{split.name} of {corpus.name} with seed {seed} and share {share} leaves no "
                    f"two measured trials of one task {side}"
                )
        return split


SPLITS: dict[str, Kind] = {}
"""Every split, by name."""


def splitter(name: str, *apart: Key) -> Callable[[Splitter], Kind]:
    """Register a function as a split.

    Args:
        name: a new one.
        apart: of which no value may be both trained on and tested.
    """

    def register(make: Splitter) -> Kind:
        SPLITS[name] = Kind(make, apart)
        return SPLITS[name]

    return register


def make_split(name: str, corpus: Corpus, seed: int = 0, share: float = DEFAULT_SHARE) -> Split:
    """Split a corpus in the way of that name; see :meth:`Kind.__call__`."""
    return kind_of(name)(corpus, seed, share)


def kind_of(name: str) -> Kind:
    """Return the split of that name. Raises INVALID_ARGUMENT."""
    if name not in SPLITS:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"there is no split {name!r}",
            hint=f"There are {', '.join(SPLITS)}.",
        )
    return SPLITS[name]


def check_no_leak(corpus: Corpus, split: Split, apart: Collection[Key] | None = None) -> None:
    """Make sure that nothing a model is judged by was there to learn from.

    Args:
        corpus: the one that was split.
        split: of it.
        apart: what must not be on both sides; that of the split's name if left out.

    Raises:
        LeakError: it says what is on both sides, or which rows make no sense.
    """
    for side, rows in (("train", split.train), ("test", split.test)):
        in_order = bool((np.diff(rows) > 0).all())
        if not in_order or (len(rows) and (rows[0] < 0 or rows[-1] >= len(corpus))):
            raise LeakError(f"{side} rows of {split.name} are not sorted, unique and of the corpus")
    if len(np.intersect1d(split.train, split.test)):
        raise LeakError(f"{split.name} has rows on both sides")
    for key in kind_of(split.name).apart if apart is None else apart:
        values = key(corpus)
        both = np.intersect1d(values[split.train], values[split.test])
        if len(both):
            raise LeakError(f"{split.name}: {len(both)} values of {key.__name__} on both sides")
    seen = set(split.held_out) & _names(corpus, split.train)
    if seen:
        raise LeakError(f"{split.name} trains on what it holds out: {', '.join(sorted(seen))}")


def candidate_of(corpus: Corpus) -> NDArray[np.uint64]:
    """Return uint64 [N]: equal for structurally equal programs."""
    return corpus.arrays.candidate


def workload_of(corpus: Corpus) -> Indices:
    """Return int64 [N]: equal for structurally equal workloads."""
    return corpus.workload


def target_of(corpus: Corpus) -> Indices:
    """Return int64 [N]: equal for equal targets."""
    return corpus.target


@splitter("within_task", candidate_of)
def within_task(corpus: Corpus, seed: int, share: float) -> Split:
    """Hold out candidates of every task.

    A hash of seed and candidate decides, and nothing else: structurally equal programs are on one
    side, whatever their target and device, and stay there when a corpus grows or is cut down.
    """
    drawn = _uniform(corpus.arrays.candidate, seed) < share
    return _split("within_task", seed, share, train=~drawn, test=drawn)


@splitter("by_task", workload_of)
def by_task(corpus: Corpus, seed: int, share: float) -> Split:
    """Hold out workloads, each with the trials of all targets and devices."""
    present = sorted(np.unique(corpus.workload).tolist(), key=corpus.workloads.__getitem__)
    if len(present) < 2:
        raise impossible(f"{corpus.name} has trials of one workload only: by_task needs two")
    count = min(max(1, round(share * len(present))), len(present) - 1)
    held = np.random.default_rng(seed).choice(np.array(present), count, replace=False)
    drawn = np.isin(corpus.workload, held)
    names = tuple(sorted(corpus.workloads[number] for number in held))
    return _split("by_task", seed, share, train=~drawn, test=drawn, held_out=names)


@splitter("by_network", workload_of)
def by_network(corpus: Corpus, seed: int, share: float) -> Split:
    """Hold out whole networks, with every workload that is theirs as well as others'."""
    names, held = _held_networks(corpus, seed, share, np.arange(len(corpus)))
    return _split("by_network", seed, share, train=~held, test=held, held_out=names)


@splitter("by_target", target_of)
def by_target(corpus: Corpus, seed: int, share: float) -> Split:
    """Hold out one target, another with each seed in turn; the share plays no role.

    Its workloads, and even its programs, may be known from other targets.
    """
    target = _held_target(corpus, seed)
    drawn = corpus.target == target
    name = corpus.targets[target]
    return _split("by_target", seed, share, train=~drawn, test=drawn, held_out=(name,))


@splitter("unseen_both", workload_of, target_of)
def unseen_both(corpus: Corpus, seed: int, share: float) -> Split:
    """Hold out a target and networks: judged by both together, learned from neither."""
    target = _held_target(corpus, seed)
    on_target = corpus.target == target
    names, held = _held_networks(corpus, seed, share, np.flatnonzero(on_target))
    return _split(
        *("unseen_both", seed, share),
        train=~on_target & ~held,
        test=on_target & held,
        held_out=(corpus.targets[target], *names),
    )


def impossible(message: str) -> TuneFleetError:
    """Make the error of a corpus that cannot be split as asked."""
    return TuneFleetError(Reason.SPLIT_IMPOSSIBLE, message)


def _split(
    name: str,
    seed: int,
    share: float,
    *,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    held_out: tuple[str, ...] = (),
) -> Split:
    return Split(name, seed, share, np.flatnonzero(train), np.flatnonzero(test), held_out)


def _held_target(corpus: Corpus, seed: int) -> int:
    present = sorted(np.unique(corpus.target).tolist(), key=corpus.targets.__getitem__)
    if len(present) < 2:
        raise impossible(f"{corpus.name} has trials of one target only: none can be held out")
    return int(present[seed % len(present)])


def _held_networks(
    corpus: Corpus, seed: int, share: float, among: Indices
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Choose networks, large and small ones alike: one from each stratum of equal numbers.

    Args:
        corpus: to choose from.
        seed: decides.
        share: of the networks to choose.
        among: rows of which the networks must have some.

    Returns:
        Their names, and bool [N]: rows whose workload is one of theirs.
    """
    among_workloads = set(np.unique(corpus.workload[among]).tolist())
    workloads: dict[str, int] = {}
    eligible: set[str] = set()
    for number in np.unique(corpus.workload).tolist():
        for source in corpus.sources[number].keys() - FAMILIES.keys():
            workloads[source] = workloads.get(source, 0) + 1
            if number in among_workloads:
                eligible.add(source)
    if not eligible:
        raise impossible(f"{corpus.name} has no trials of networks, only of families of operators")
    ordered = sorted(eligible, key=lambda name: (-workloads[name], name))
    count = min(max(1, round(share * len(ordered))), len(ordered))
    rng = np.random.default_rng(seed)
    strata = np.array_split(np.arange(len(ordered)), count)
    chosen = {ordered[rng.choice(stratum)] for stratum in strata}
    held = np.array([not chosen.isdisjoint(sources) for sources in corpus.sources])
    return tuple(sorted(chosen)), held[corpus.workload]


def _uniform(values: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Hash values with a seed to numbers from 0 to 1, as SplitMix64 does (Steele et al., 2014)."""
    begin = (seed + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    mixed = values + np.uint64(begin)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _comparable(corpus: Corpus, rows: Indices) -> bool:
    measured = rows[~np.isnan(corpus.arrays.log_latency[rows])]
    return bool(np.bincount(corpus.arrays.group[measured]).max(initial=0) > 1)


def _names(corpus: Corpus, rows: Indices) -> set[str]:
    """Name everything that some rows tell of."""
    workloads = np.unique(corpus.workload[rows])
    return {
        *(corpus.workloads[number] for number in workloads),
        *(source for number in workloads for source in corpus.sources[number]),
        *(corpus.targets[number] for number in np.unique(corpus.target[rows])),
    }
