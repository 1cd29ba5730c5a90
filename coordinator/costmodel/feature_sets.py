"""The descriptions of a program that cost models learn from, and which one a model is for.

``stores`` are the values of TVM's feature extractor, a row a buffer store of the lowered program,
after one row for the whole schedule (:mod:`tunefleet.schedules.row`): what agents compute, and so
what they can rank by. ``steps`` are a schedule's own steps
(:mod:`coordinator.costmodel.steps`): they need no lowering, and are all that can be known of
programs that this TVM cannot lower.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coordinator.costmodel.steps import MAX_STEPS, STEP_FEATURES, step_schema_digest
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import (
    HARDWARE_FEATURES,
    MAX_ROWS,
    PROGRAM_FEATURES_PER_STORE,
    schema_digest,
)

if TYPE_CHECKING:
    from coordinator.costmodel.model import ModelConfig


@dataclass(frozen=True)
class FeatureSet:
    """One way to describe a program as a sequence of tokens."""

    name: str
    token: str
    """What a token is, in words."""
    width: int
    """Values a token; no two sets have equally many."""
    most: int
    """Tokens of one program a model looks at."""
    schema: Callable[[], str]
    """Gives 16 hex digits that name the meaning of every value, the hardware's included."""
    scheduled: bool = False
    """Whether the first token is the row of the whole schedule."""

    def sized(self, config: ModelConfig) -> ModelConfig:
        """Return a network's sizes with its inputs made for these features.

        Relations of a program's values to the hardware's are of stores alone.
        """
        relations = config.relations and self is STORES
        return replace(
            config,
            token_width=self.width,
            max_tokens=self.most,
            relations=relations,
            scheduled=self.scheduled,
        )


def _steps_schema() -> str:
    schema = {"steps": step_schema_digest(), "hardware": HARDWARE_FEATURES}
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:16]


STORES = FeatureSet(
    "stores",
    "buffer store, after one for the whole schedule",
    PROGRAM_FEATURES_PER_STORE,
    MAX_ROWS,
    schema_digest,
    scheduled=True,
)
STEPS = FeatureSet("steps", "schedule step", STEP_FEATURES, MAX_STEPS, _steps_schema)

FEATURE_SETS: dict[str, FeatureSet] = {STORES.name: STORES, STEPS.name: STEPS}
"""By name."""


def chosen_features(name: str | None) -> FeatureSet | None:
    """Return the set that somebody named, if anybody did. Raises INVALID_ARGUMENT."""
    return feature_set(name) if name else None


def feature_set(name: str) -> FeatureSet:
    """Return the set of that name. Raises INVALID_ARGUMENT."""
    if name not in FEATURE_SETS:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"there are no features {name!r}",
            hint=f"There are {' and '.join(FEATURE_SETS)}.",
        )
    return FEATURE_SETS[name]


def of_width(width: int) -> FeatureSet:
    """Return the set whose tokens have so many values. Raises ValueError if there is none."""
    for features in FEATURE_SETS.values():
        if features.width == width:
            return features
    known = " or ".join(f"{features.width} ({name})" for name, features in FEATURE_SETS.items())
    raise ValueError(f"its tokens have {width} values, not {known}")


def of_schema(digest: str | None) -> FeatureSet | None:
    """Return the set that a schema digest names, ``None`` where it is of another release."""
    return next((known for known in FEATURE_SETS.values() if known.schema() == digest), None)


def other_schema(digest: str | None, wanted: Collection[FeatureSet]) -> str:
    """Say of a model, in words to go after its name, that it is for other features."""
    found = of_schema(digest)
    named = f" ({found.name})" if found else ", of another release"
    known = " or ".join(f"{features.schema()} ({features.name})" for features in wanted)
    return f"is for features of schema {digest or '(none)'}{named}; wanted is {known}"


def train_anew(wanted: Collection[FeatureSet]) -> str:
    """Say how to get a model for some features."""
    option = "" if STORES in wanted else f" --features {next(iter(wanted)).name}"
    return f"Train it anew with this release: `tunefleet model train DATASET --out DIR{option}`."
