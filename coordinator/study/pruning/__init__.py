"""Which trials are worth keeping: strategies by name, each a plain function."""

from coordinator.study.pruning import diverse, labelled, plain, uncertain  # noqa: F401 - register
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
