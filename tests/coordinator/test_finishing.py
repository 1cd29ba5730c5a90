from __future__ import annotations

from pathlib import Path

import pytest
from store_samples import FINGERPRINT, TARGET, campaign

from coordinator.campaigns.finishing import group_dir
from coordinator.state.records import GroupRecord

RESULTS = Path("/results")


def groups(*targets: str) -> tuple[GroupRecord, ...]:
    return tuple(GroupRecord(target, FINGERPRINT, "", "") for target in targets)


def test_the_results_of_a_single_group_lie_in_the_folder_itself() -> None:
    assert group_dir(RESULTS, campaign(groups=groups(TARGET)), 0) == RESULTS


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (TARGET, "1-znver4"),
        ('{"kind":"llvm"}', "1-llvm"),
        # Stored by a release that did not look at targets so closely.
        ('{"kind":"llvm","mcpu":"x/../../../etc"}', "1-x__________etc"),
        ('{"kind":"llvm","mcpu":".."}', "1-__"),
    ],
)
def test_a_group_among_several_has_a_folder_that_its_target_cannot_lead_out_of(
    target: str, name: str
) -> None:
    folder = group_dir(RESULTS, campaign(groups=groups(TARGET, target)), 1)
    assert folder == RESULTS / name
