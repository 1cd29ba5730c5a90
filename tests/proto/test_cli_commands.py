"""The tunefleet command as a process of its own, against a real server on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory_fleet import (
    InMemoryFleet,
    make_campaign,
    make_device,
    make_done,
    serving,
    unused_address,
)

from tunefleet.errors import Reason
from tunefleet.v1 import campaign_pb2, device_pb2, user_service_pb2

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def state() -> InMemoryFleet:
    return InMemoryFleet(devices=[make_device()], campaigns={"c0ffee01": make_campaign()})


@pytest.fixture
def environment(state, tmp_path) -> Iterator[dict[str, str]]:
    with serving(state) as address:
        yield {**os.environ, "TUNEFLEET_COORDINATOR": address, "COLUMNS": "200"}


@pytest.fixture
def cli(environment, tmp_path) -> Cli:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tunefleet.cli", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def model(tmp_path) -> Path:
    (tmp_path / "net.onnx").write_bytes(b"model" * 1000)
    return tmp_path / "net.onnx"


def stdout_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_unreachable_coordinator(cli):
    address = unused_address()
    done = cli("campaigns", "list", "--coordinator", address)
    assert done.returncode == Reason.COORDINATOR_UNREACHABLE.value.exit_code
    error, hint = done.stderr.splitlines()
    assert error == f"error: no coordinator answers at {address}: Connection refused"
    assert hint.startswith("hint: Start one with `tunefleet up`")


def test_unknown_campaign(cli):
    done = cli("campaigns", "show", "nope")
    assert done.returncode == Reason.CAMPAIGN_UNKNOWN.value.exit_code
    assert done.stderr.startswith("error: no campaign is nope\nhint: ")


def test_error_is_json_too_where_json_is_wanted(cli):
    done = cli("devices", "show", "nope", "--format", "json")
    assert done.returncode == Reason.DEVICE_UNKNOWN.value.exit_code
    error = json.loads(done.stdout)["error"]
    assert error["reason"] == "DEVICE_UNKNOWN"
    assert error["hint"] == f"{Reason.DEVICE_UNKNOWN.value.hint} (sent)"
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tune", "missing.onnx"], Reason.MODEL_INVALID),
        (["tune", "net.onnx", "--shape", "1,3,224,224"], Reason.INVALID_ARGUMENT),
        (["tune", "net.onnx", "--shape", "x=1,-3"], Reason.INVALID_ARGUMENT),
        (["tune", "net.onnx", "--time", "10"], Reason.INVALID_ARGUMENT),
        (["tune", "net.onnx", "--trials", "0"], Reason.INVALID_ARGUMENT),
        (["tune", "net.onnx", "--min-gain", "1"], Reason.INVALID_ARGUMENT),
        (["tune", "net.onnx", "--target", "llvm -mcpu"], Reason.INVALID_ARGUMENT),
        (["tune", "net.onnx", "--coordinator", "nowhere"], Reason.INVALID_ARGUMENT),
        (["tune", "net.onnx", "--devices", "arch=none"], Reason.NO_DEVICE_MATCHES),
        (["tune"], Reason.INVALID_ARGUMENT),
        (["tnue", "net.onnx"], Reason.INVALID_ARGUMENT),
        (["campaigns", "list", "--format", "yaml"], Reason.INVALID_ARGUMENT),
        (["campaigns", "export", "c0ffee01"], Reason.CAMPAIGN_STATE),
        (["model", "show", "v9"], Reason.MODEL_VERSION_UNKNOWN),
    ],
)
def test_failure_has_its_exit_code_and_two_lines(cli, model, arguments, reason):
    done = cli(*arguments)
    assert done.returncode == reason.value.exit_code
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def test_campaigns_list_as_json(cli):
    (campaign,) = stdout_json(cli("campaigns", "list", "--format", "json"))["campaigns"]
    assert campaign["campaign_id"] == "c0ffee01"
    assert campaign["state"] == "tuning"
    assert (campaign["trials"], campaign["trials_wanted"]) == (40, 100)
    assert campaign["created_at"] == "2023-11-14T22:13:20+00:00"
    assert campaign["ended_at"] is None


def test_campaign_show_as_json_has_its_tasks(cli):
    tasks = stdout_json(cli("campaigns", "show", "c0ff", "--format", "json"))["campaign"]["tasks"]
    assert tasks[0]["name"] == "conv2d"
    assert tasks[0]["speedup"] == pytest.approx(25)
    assert tasks[0]["gflops"] == pytest.approx(100)
    assert tasks[1]["best_s"] is None


def test_campaigns_for_people(cli):
    listing, sheet = cli("campaigns", "list"), cli("campaigns", "show", "c0ffee01")
    assert "40/100" in listing.stdout
    assert "llvm znver4, 2 threads" in sheet.stdout
    assert "50,000.0 µs" in sheet.stdout


def test_devices_as_json(cli):
    (device,) = stdout_json(cli("devices", "list", "--format", "json"))["devices"]
    assert device == stdout_json(cli("devices", "show", "box", "--format", "json"))["device"]
    assert device["profile"]["measured"]["gflops_single_core"] == 101.5
    assert device["profile"]["l3_bytes"] is None
    assert device["labels"] == {"site": "lab"}


def test_device_sheet_has_units_and_says_what_is_unknown(cli):
    lines = cli("devices", "show", "box").stdout.splitlines()
    values = {line[:27].strip(): line[27:].strip() for line in lines}
    sheet = "\n".join(lines)
    assert "Test CPU [rev 2]" in sheet
    assert "101.5 GFLOP/s" in sheet
    assert "1 MiB" in sheet
    assert values["parallel loop start"].endswith("unknown")


def test_a_quarantine_is_explained_and_can_be_ended(cli, state):
    (device,) = state.devices
    device.state = device_pb2.DEVICE_STATE_QUARANTINED
    device.quarantine.reason = "its reference kernel took 4 ms"
    assert "quarantined" in cli("devices", "list").stdout
    assert "its reference kernel took 4 ms" in cli("devices", "show", "box").stdout
    told = stdout_json(cli("devices", "show", "box", "--format", "json"))["device"]["quarantine"]
    assert told["reason"] == "its reference kernel took 4 ms"

    assert cli("devices", "release", "nope").returncode == Reason.DEVICE_UNKNOWN.value.exit_code
    assert "Device box is online." in cli("devices", "release", "box", "--forget").stdout
    assert state.forgotten == ["box"]
    assert "kernel" not in cli("devices", "show", "box").stdout.replace("kernel   ", "")


def test_collect_asks_for_what_was_said(cli, state, model):
    done = cli(
        *("collect", str(model), "--families", "dense,conv1d", "--workloads", "7"),
        *("--per-task", "5", "--target", "llvm -mcpu=haswell", "--target", "llvm -mcpu=znver4"),
        *("--seed", "3", "--detach", "--format", "json"),
    )
    assert len(stdout_json(done)["campaigns"]) == 2
    of_model, of_families = (request.spec for request in state.created)
    assert (of_model.model_filename, list(of_model.families)) == ("net.onnx", [])
    assert (list(of_families.families), of_families.workloads) == (["dense", "conv1d"], 7)
    for spec in (of_model, of_families):
        assert spec.purpose == campaign_pb2.CAMPAIGN_PURPOSE_COLLECT
        assert (spec.trials_per_task, spec.seed) == (5, 3)
        assert len(spec.targets) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "nothing to collect from"), (("--families", "conv9d"), "no family conv9d")],
)
def test_collect_says_what_is_missing(cli, state, arguments, message):
    done = cli("collect", *arguments)
    assert done.returncode == Reason.INVALID_ARGUMENT.value.exit_code
    assert message in done.stderr
    assert state.created == []


def test_models_as_json_and_for_people(cli, state):
    state.models.append(
        user_service_pb2.ModelVersion(
            version="v2", current=True, metrics={"pca_heldout": 0.8125, "loss": 0.25}, trials=9
        )
    )
    (version,) = stdout_json(cli("model", "list", "--format", "json"))["models"]
    assert version["metrics"] == {"pca_heldout": 0.8125, "loss": 0.25}
    assert stdout_json(cli("model", "show", "v2", "--format", "json"))["model"] == version
    listed = cli("model", "list").stdout
    assert "0.812" in listed
    assert "0.250" not in listed, "only what versions are judged by fits into a listing"
    assert "0.25" in cli("model", "show", "v2").stdout


def test_listed_models_say_which_are_not_in_use_and_why(cli, state):
    state.models += [
        user_service_pb2.ModelVersion(version="u1", why="uploaded"),
        user_service_pb2.ModelVersion(version="v2", rolled_back=True, trials=96),
        user_service_pb2.ModelVersion(version="base", current=True, promoted=True),
    ]
    lines = {
        line.split()[0]: line for line in cli("model", "list").stdout.splitlines() if line.strip()
    }
    assert "rolled back" in lines["v2"]
    assert lines["u1"].split()[2] == "no"
    assert lines["base"].split()[2:4] == ["yes", "-"]
    assert "elsewhere" in cli("model", "show", "base").stdout


def test_a_refusal_to_promote_says_how_to_insist(cli, state):
    state.models.append(user_service_pb2.ModelVersion(version="v2"))
    done = cli("model", "promote", "v2")
    assert done.returncode == Reason.MODEL_RANKS_WORSE.value.exit_code
    error, hint = done.stderr.splitlines()
    assert error == "error: v2 ranks worse"
    assert "--force" in hint
    told = stdout_json(cli("model", "promote", "v2", "--force", "--format", "json"))
    assert told["model"]["current"]


def test_going_back_from_no_model_is_refused(cli, state):
    done = cli("model", "rollback")
    assert done.returncode == Reason.MODEL_VERSION_STATE.value.exit_code
    assert "agents rank with no model" in done.stderr
    assert state.model_requests == []


def test_empty_listings_say_what_to_do(cli, state):
    state.devices.clear()
    state.campaigns.clear()
    assert "tunefleet-agent run" in cli("devices", "list").stdout
    assert "tunefleet tune MODEL" in cli("campaigns", "list").stdout


def test_tune_fetches_the_results(cli, state, model, tmp_path):
    done = make_done(state.blobs, {"report.json": b"{}", "tuned/lib.so": b"elf"})
    state.watched = [[make_campaign(), done]]
    budget = ("--trials", "7", "--time", "1h30m", "--min-gain", "0.5%")
    finished = cli("tune", "net.onnx", "--output", "out", *budget)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out/tuned/lib.so").read_bytes() == b"elf"
    assert state.created[0].spec.time_limit.seconds == 5400
    assert state.created[0].spec.min_gain == 0.005
    assert "the next round was expected to gain less than 0.5 %" in finished.stdout
    assert "10.00 ms" in finished.stdout
    assert "3.00e-06" in finished.stdout
    assert str(tmp_path / "out") in finished.stdout


def test_tune_as_json_prints_one_object_and_names_the_folder_itself(cli, state, model, tmp_path):
    done = make_done(state.blobs, {"report.json": b"{}"})
    state.watched = [[make_campaign(), done]]
    result = stdout_json(cli("tune", "net.onnx", "--format", "json"))
    assert result["output_dir"] == str(tmp_path / "tunefleet-out/net-c0ffee01")
    assert [Path(f).read_bytes() for f in result["files"]] == [b"{}"]
    assert result["campaign"]["targets"][0]["benchmark_s"]["tuned"] == 0.01


def test_detached_tune_returns_at_once(cli, model):
    result = stdout_json(cli("tune", "net.onnx", "--detach", "--format", "json"))
    assert result["campaign"]["campaign_id"] == "c0ffee01"


def test_tune_ends_with_the_code_of_the_campaigns_error(cli, state, model):
    error = campaign_pb2.CampaignError(reason="SHAPE_REQUIRED", message="input x is symbolic")
    state.watched = [[make_campaign(state=campaign_pb2.CAMPAIGN_STATE_FAILED, error=error)]]
    done = cli("tune", "net.onnx")
    assert done.returncode == Reason.SHAPE_REQUIRED.value.exit_code
    assert done.stderr.startswith("error: input x is symbolic\nhint: Give each symbolic")


def test_watch_says_that_the_connection_broke_and_goes_on(cli, state):
    state.watched = [[make_campaign()], [make_done(state.blobs, {})]]
    done = cli("campaigns", "watch", "c0ffee01")
    assert done.returncode == 0, done.stderr
    assert "Connection lost" in done.stdout
    assert "The coordinator is back." in done.stdout


def test_interrupted_watch_says_how_to_come_back(environment, tmp_path):
    watching = subprocess.Popen(
        [sys.executable, "-m", "tunefleet.cli", "campaigns", "watch", "c0ffee01"],
        env={**environment, "PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert "40/100" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, stderr = watching.communicate(timeout=30)
    assert watching.returncode == Reason.INTERRUPTED.value.exit_code
    assert "the campaign c0ffee01 goes on" in stderr
    assert "tunefleet campaigns watch c0ffee01" in stderr


@pytest.mark.parametrize(
    ("command", "word"), [("pause", "paused"), ("resume", "tuning"), ("cancel", "cancelled")]
)
def test_steering_says_the_new_state(cli, command, word):
    assert cli("campaigns", command, "c0ffee01").stdout == f"Campaign c0ffee01 is {word}.\n"


def test_pausing_what_is_done_is_refused(cli, state):
    state.campaigns["c0ffee01"] = make_done(state.blobs, {})
    done = cli("campaigns", "pause", "c0ffee01")
    assert done.returncode == Reason.CAMPAIGN_STATE.value.exit_code
