"""What a dataset says of itself: its licence, its description, and the features it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coordinator.costmodel.feature_sets import STORES, FeatureSet
from coordinator.dataset.reading import Table, find_parts, open_trials
from coordinator.dataset.schema import About, invalid
from tunefleet.features import stores_digest


def about_dataset(place: Path, features: FeatureSet = STORES) -> About:
    """Return what a folder or file says of itself; see :func:`about_tables`.

    Raises:
        TuneFleetError: DATASET_INVALID, it is none or has other features than this release.
    """
    tables = [open_trials(path) for path in find_parts(place).trials]
    return about_tables(tables, place, features)


def about_tables(tables: Sequence[Table], place: Path, features: FeatureSet = STORES) -> About:
    """Return what tables of trials say of themselves, if they can be put into one.

    Args:
        tables: of trials.
        place: where they lie, for people.
        features: what is wanted of them; schedule steps are read from traces, which every release
            reads.

    Raises:
        TuneFleetError: DATASET_INVALID, they have other features than this release.
    """
    for table in tables:
        if features is STORES and table.about.feature_schema != stores_digest():
            raise invalid(
                f"the features in {place} are of schema "
                f"{table.about.feature_schema[:20] or '(none)'}, this release has "
                f"{stores_digest()}: import it with --featurize and export it again first"
            )
    licences = dict.fromkeys(table.about.licence for table in tables if table.about.licence)
    return About("; ".join(licences), tables[0].about.description)
