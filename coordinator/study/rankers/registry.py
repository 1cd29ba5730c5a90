"""The models that studies compare, by name."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import RandomRanker, Ranker
from coordinator.study.rankers.mlp import MlpRanker
from coordinator.study.rankers.pooled import TreeConfig, TreeRanker


def _attention(seed: int, threads: int) -> Ranker:
    return AttentionRanker().seeded(seed, threads)


MODELS: dict[str, Callable[[int, int], Ranker]] = {
    "attention": _attention,
    "xgb_hw": lambda seed, threads: TreeRanker(True, seed, TreeConfig(threads=threads)),
    "xgb": lambda seed, threads: TreeRanker(False, seed, TreeConfig(threads=threads)),
    "mlp": MlpRanker,
    "random": lambda seed, _threads: RandomRanker(seed),
}
"""Each makes an untrained model from a seed and a number of threads."""
