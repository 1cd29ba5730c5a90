"""Whose schedules a search may start from."""

from __future__ import annotations

from coordinator.campaigns.relatives import Relatives
from coordinator.state.records import KnownTask, TaskKey


def known(
    workload: str,
    name: str = "fused_conv2d_add_relu",
    flops: float = 1e9,
    target: str = "avx512",
    fingerprint: str = "here",
) -> KnownTask:
    return KnownTask(TaskKey(workload, target, fingerprint), name, flops)


TASK = known("mine", "fused_conv2d7_add3_relu2")


def nearest(*others: KnownTask, limit: int = 10) -> list[str]:
    return [key.workload for key in Relatives(others).nearest(TASK, limit)]


def test_only_the_same_first_operator_counts() -> None:
    others = (
        known("conv", "conv2d"),
        known("matmul", "fused_matmul_add_relu"),
        known("c1", "conv1d"),
    )
    assert nearest(*others) == ["conv"]


def test_numbers_in_a_name_do_not_count() -> None:
    assert (
        nearest(known("other", "fused_conv2d_add_add"), known("same", "fused_conv2d1_add1_relu"))[0]
        == "same"
    )


def test_the_nearer_in_work_comes_first() -> None:
    assert nearest(known("far", flops=1e11), known("near", flops=2e9)) == ["near", "far"]


def test_the_task_itself_is_no_relative_but_its_other_targets_are() -> None:
    elsewhere = known("mine", target="avx2")
    assert Relatives([TASK, elsewhere]).nearest(TASK, 10) == [elsewhere.key]


def test_what_was_measured_here_comes_before_what_was_measured_elsewhere() -> None:
    assert nearest(known("there", fingerprint="there"), known("here")) == ["here", "there"]


def test_no_more_than_wanted_come_back() -> None:
    assert nearest(known("a"), known("b"), known("c"), limit=2) == ["a", "b"]


def test_a_task_without_floating_point_operations_has_relatives_too() -> None:
    task = known("mine", "transpose", flops=0.0)
    assert len(Relatives([known("other", "transpose", flops=0.0)]).nearest(task, 10)) == 1
