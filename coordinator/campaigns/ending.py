"""When a campaign has tuned for long enough, and how it says so."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.campaigns.gains import Outlook
from coordinator.campaigns.scheduler import lacks_baseline

NOTHING_LEFT = "nothing was left to try"
ALL_TRIALS = "all trials were made"
ALL_MEASURED = "everything that was asked for was measured"


def why_group_rests(outlook: Outlook, trials_wanted: int, min_gain: float) -> str:
    """Say why a group of tasks needs no further round; empty where it does.

    Args:
        outlook: its tasks.
        trials_wanted: its budget.
        min_gain: share of the network's latency that a round must be expected to gain; 0 for
            groups that use their whole budget.
    """
    tasks = outlook.tasks
    untried = [t for t in tasks if not t.task.exhausted]
    due = any(lacks_baseline(t) for t in tasks)
    if not untried and not due:
        return NOTHING_LEFT
    if sum(t.trials for t in tasks) >= trials_wanted:
        return ALL_TRIALS
    if due or any(t.rounds == 0 or outlook.is_worth_a_round(t, min_gain) for t in untried):
        return ""
    if all(t.best_s is None for t in untried):
        return NOTHING_LEFT
    return f"the next round was expected to gain less than {percentage(min_gain)}"


def time_limit_reached(limit_s: float) -> str:
    """Say that the time is up."""
    return f"the time limit of {_time(limit_s)} was reached"


def together(reasons: Iterable[str]) -> str:
    """Join what the groups of a campaign say, each reason once."""
    return "; ".join(dict.fromkeys(reasons)) or NOTHING_LEFT


def percentage(share: float) -> str:
    """Write a share as people do: 0.001 as ``0.1 %``."""
    return f"{share * 100:.3g} %"


def _time(seconds: float) -> str:
    """Write ``600`` as ``10m`` and ``90`` as ``1m30s``, as people type it."""
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.3g}s"
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)
