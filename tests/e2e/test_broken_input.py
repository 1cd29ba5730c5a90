"""Everything a user can get wrong has its own message and exit code, and costs nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.e2e.fleet import Fleet, eventually
from tests.e2e.test_campaign import online
from tunefleet.errors import Reason

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A coordinator with an agent that measures itself; none of these tests may harm them."""
    fleet = Fleet(tmp_path_factory.mktemp("desk"))
    fleet.start_coordinator()
    fleet.start_agent("desk")
    eventually("the agent's profile", lambda: online(fleet) == ["desk"])
    yield fleet
    fleet.close()


def save(path: Path, node: onnx.NodeProto, batch: int | str = 1) -> Path:
    """Write a model of one operator; ``batch`` may be a symbol."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def fails(fleet: Fleet, reason: Reason, *arguments: str) -> str:
    """Run a command that must fail for a reason, and return what it says."""
    done = fleet.tunefleet(*arguments)
    said = done.stdout + done.stderr
    assert done.returncode == reason.value.exit_code, said
    assert "Traceback" not in said
    return said


def test_a_file_that_is_not_a_model(desk: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("not a model at all")
    assert "notes.onnx" in fails(desk, Reason.MODEL_INVALID, "tune", str(path))


def test_an_operator_that_cannot_be_imported_is_named(desk: Fleet, tmp_path: Path) -> None:
    broken = helper.make_node("Det", ["x"], ["y"], name="odd")
    path = save(tmp_path / "odd.onnx", broken)
    assert "Det" in fails(desk, Reason.MODEL_UNSUPPORTED, "tune", str(path))


def test_a_symbolic_shape_asks_for_the_input_by_name(desk: Fleet, tmp_path: Path) -> None:
    path = save(tmp_path / "open.onnx", helper.make_node("Det", ["x"], ["y"]), batch="N")
    said = fails(desk, Reason.SHAPE_REQUIRED, "tune", str(path))
    assert "x" in said
    assert "--shape" in said


def test_no_device_matches(desk: Fleet, network: Path) -> None:
    said = fails(desk, Reason.NO_DEVICE_MATCHES, "tune", str(network), "--devices", "arch=vax")
    assert "desk" in said, "the devices there are should be named"


def test_an_unknown_campaign(desk: Fleet) -> None:
    fails(desk, Reason.CAMPAIGN_UNKNOWN, "campaigns", "show", "c-nope")


def test_an_unreachable_coordinator(network: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunefleet.cli", "tune", str(network), "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TUNEFLEET_COORDINATOR": "127.0.0.1:9"},
    )
    assert done.returncode == Reason.COORDINATOR_UNREACHABLE.value.exit_code
    error = json.loads(done.stdout)["error"]
    assert error["reason"] == "COORDINATOR_UNREACHABLE"
    assert error["hint"]


def test_a_server_refuses_to_listen_beyond_loopback(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "coordinator"),
            *("--home", str(tmp_path / "home"), "--listen", "0.0.0.0:0"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Reason.NOT_LOOPBACK.value.exit_code, done.stderr
    assert "plain text" in done.stderr + done.stdout


def test_the_fleet_is_unharmed(desk: Fleet) -> None:
    assert online(desk) == ["desk"]
    assert desk.coordinator is not None
    assert desk.coordinator.alive()
