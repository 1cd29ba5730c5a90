"""The bench command as a process of its own, and the tables that it prints."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from in_memory_fleet import (
    TARGET,
    InMemoryFleet,
    make_campaign,
    make_device,
    make_done,
    serving,
)
from rich.console import Console

from tunefleet.cli.bench_tables import print_bench
from tunefleet.errors import Reason
from tunefleet.v1 import campaign_pb2


def op(name: str, seconds: float, **changes: Any) -> dict[str, Any]:
    row = {"name": name, "op": "", "operator": "convolution", "calls": 2, "seconds": seconds}
    row |= {"share": seconds / 0.01, "call_s": seconds / 2, "workload": ""}
    return row | {"task_s": None, "ratio": None} | changes


def subject(end_to_end_s: float | None, **changes: Any) -> dict[str, Any]:
    unknown = ("profiled", "overhead", "between", "ops", "remainder", "tasks", "tasks_alone")
    plain = {"end_to_end_s": end_to_end_s, "ops": [], "error": ""}
    return plain | dict.fromkeys(f"{name}_s" for name in unknown) | changes


def make_result(*, per_op: bool = True) -> dict[str, Any]:
    ops = [
        op("fused_conv2d_relu", 0.008, workload="ab", task_s=0.002, ratio=2.0),
        op("vm.builtin.reshape", 0.001, operator="virtual machine"),
        op("mean", 0.0005),
    ]
    tuned = subject(
        0.01, ops=ops, remainder_s=-0.0005, overhead_s=0.003, tasks_s=0.008, tasks_alone_s=0.004
    )
    onnx = subject(0.005, ops=[op("c1", 0.004, op="Conv")], remainder_s=0.001, overhead_s=0.0001)
    group = {
        "target": TARGET,
        "fingerprint": "f00d",
        "device": "box",
        "error": "",
        "max_abs_err": 2e-6,
        "subjects": {
            "tuned": tuned if per_op else subject(0.01),
            "onnxruntime": onnx if per_op else subject(0.005),
            "untuned": subject(None, error="it crashed"),
        },
        "by_operator": [
            {"operator": "convolution", "seconds": {"tuned": 0.0085, "onnxruntime": 0.004}},
            {"operator": "virtual machine", "seconds": {"tuned": 0.001}},
        ]
        if per_op
        else [],
    }
    return {"campaign_id": "c-1", "per_op": per_op, "groups": [group]}


def printed(result: dict[str, Any], rows: int = 0) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=160, markup=False)
    print_bench(result, console, rows)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_functions_stand_beside_their_tasks() -> None:
    lines = printed(make_result())
    assert "fused_conv2d_relu 80.0% 2 8.00 ms 4.00 ms 2.00 ms 2.00x" in lines
    assert "vm.builtin.reshape 10.0% 2 1.00 ms 500 µs - -" in lines
    assert "remainder -5.0% -500 µs" in lines
    assert "The tasks take 8.00 ms in the network and took 4.00 ms alone, 2.00x." in lines


def test_kinds_of_operators_are_compared_with_onnxruntime() -> None:
    lines = printed(make_result())
    assert "convolution 8.50 ms 4.00 ms 0.47x" in lines
    assert "virtual machine 1.00 ms - -" in lines
    assert "c1 Conv 40.0% 2 4.00 ms" in lines


def test_long_tables_are_cut_and_the_rest_is_added_up() -> None:
    assert "2 others 15.0% 1.50 ms" in printed(make_result(), rows=1)


def test_a_subject_that_failed_is_told() -> None:
    lines = printed(make_result(per_op=False))
    assert "untuned, llvm znver4, 2 threads on box: it crashed" in lines
    assert not [line for line in lines if "remainder" in line]


def test_an_agent_that_tells_nothing_of_operators_is_named() -> None:
    lines = printed(make_result(per_op=False) | {"per_op": True})
    told = "The agent, llvm znver4, 2 threads on box, does not tell where the time goes: update it."
    assert told in lines


@pytest.fixture
def state() -> InMemoryFleet:
    """A coordinator whose only campaign is the benchmark itself."""
    return InMemoryFleet(devices=[make_device()], campaigns={"c0ffee01": make_campaign()})


@pytest.fixture
def environment(state: InMemoryFleet) -> Iterator[dict[str, str]]:
    with serving(state) as address:
        yield {**os.environ, "TUNEFLEET_COORDINATOR": address, "PYTHONUNBUFFERED": "1"}


def test_json_brings_the_result(state: InMemoryFleet, environment: dict[str, str]) -> None:
    files = {"bench.json": json.dumps(make_result()).encode()}
    state.watched = [[make_done(state.blobs, files)]]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tunefleet.cli", "bench", "net", "--per-op"),
            *("--device", "box", "--format", "json"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == make_result()
    [request] = state.created
    assert request.spec.purpose == campaign_pb2.CAMPAIGN_PURPOSE_BENCH
    assert (request.spec.bench.campaign_id, request.spec.bench.per_op) == ("net", True)
    assert request.spec.device_selector == "id=d1"


def test_leaving_cancels_it(state: InMemoryFleet, environment: dict[str, str]) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "tunefleet.cli", "bench", "net"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=60)
    assert waiting.returncode == Reason.INTERRUPTED.value.exit_code
    assert "the benchmark c0ffee01 is cancelled" in stderr
    assert state.campaigns["c0ffee01"].state == campaign_pb2.CAMPAIGN_STATE_CANCELLED
