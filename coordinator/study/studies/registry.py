"""The studies, by name."""

from __future__ import annotations

from coordinator.study.studies.ablation import study_ablation
from coordinator.study.studies.base import Study
from coordinator.study.studies.calibration import study_calibration
from coordinator.study.studies.curves import study_curves
from coordinator.study.studies.features import study_features
from coordinator.study.studies.pruning import study_pruning
from coordinator.study.studies.splits import study_splits
from coordinator.study.studies.transfer import study_transfer

STUDIES: dict[str, Study] = {
    "splits": study_splits,
    "pruning": study_pruning,
    "transfer": study_transfer,
    "ablation": study_ablation,
    "features": study_features,
    "curves": study_curves,
    "calibration": study_calibration,
}
