"""The models that studies compare, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import Effort, RandomRanker, Ranker
from coordinator.study.rankers.mlp import MlpRanker
from coordinator.study.rankers.pooled import TreeRanker, tree_config


def _trees(hardware: bool, seed: int, effort: Effort) -> Ranker:
    return TreeRanker(hardware, seed, tree_config(effort))


MODELS: dict[str, Callable[[int, Effort], Ranker]] = {
    "attention": lambda seed, effort: AttentionRanker().seeded(seed, effort),
    "xgb_hw": partial(_trees, True),
    "xgb": partial(_trees, False),
    "mlp": MlpRanker,
    "random": lambda seed, _effort: RandomRanker(seed),
}
"""Each makes an untrained model from a seed and what its training may cost."""
