"""Which trials are worth keeping: strategies by name, each a plain function."""

# ruff: noqa: I001 - strategies are registered in the order in which tables list them

from coordinator.study.pruning import plain, labelled, diverse, uncertain  # noqa: F401
from coordinator.study.pruning.context import (
    STRATEGIES,
    Context,
    Spread,
    Strategy,
    check_keep,
    prune,
    strategy,
    strategy_of,
)

__all__ = [
    "STRATEGIES",
    "Context",
    "Spread",
    "Strategy",
    "check_keep",
    "prune",
    "strategy",
    "strategy_of",
]
