"""The Python client against real gRPC servers on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tenacity
from in_memory_fleet import (
    InMemoryFleet,
    make_campaign,
    make_device,
    make_done,
    serving,
    unused_address,
)

from tunefleet.client import CampaignState, Reason, TuneFleet, TuneFleetError
from tunefleet.v1 import campaign_pb2, user_service_pb2


@pytest.fixture
def served() -> Iterator[tuple[InMemoryFleet, TuneFleet]]:
    state = InMemoryFleet()
    with serving(state) as address, TuneFleet(address) as fleet:
        yield state, fleet


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(range(256)) * 10_000)
    return path


def test_tune_sends_what_was_asked_for(served, model):
    state, fleet = served
    state.campaigns["c0ffee01"] = make_campaign()
    campaign = fleet.tune(
        model,
        devices="arch=x86_64",
        trials=7,
        time_limit_s=90,
        min_gain=0.0,
        shapes={"x": (1, 3)},
        seed=5,
    )
    spec = state.created[0].spec
    assert campaign.id == "c0ffee01"
    assert (spec.name, spec.model_filename, spec.trials, spec.seed) == ("net", "net.onnx", 7, 5)
    assert spec.device_selector == "arch=x86_64"
    assert list(spec.shapes["x"].dims) == [1, 3]
    assert spec.time_limit.seconds == 90
    assert spec.HasField("min_gain"), "0 is not the coordinator's default"
    assert spec.min_gain == 0
    assert state.created[0].idempotency_key


def test_model_arrives_whole_in_chunks(served, model):
    state, fleet = served
    state.campaigns["c0ffee01"] = make_campaign()
    fleet.tune(model)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert state.blobs[digest] == model.read_bytes()
    assert state.created[0].spec.model_digest == digest


def test_model_that_the_coordinator_has_is_not_sent_again(served, model):
    state, fleet = served
    state.campaigns["c0ffee01"] = make_campaign()
    fleet.tune(model)
    fleet.tune(model)
    assert state.uploads == 1


def test_time_limit_is_absent_where_none_was_given(served, model):
    state, fleet = served
    state.campaigns["c0ffee01"] = make_campaign()
    fleet.tune(model)
    assert not state.created[0].spec.HasField("time_limit")


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "missing"])
def test_file_that_cannot_be_a_model_is_refused_before_anything_is_sent(served, tmp_path, content):
    state, fleet = served
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TuneFleetError) as caught:
        fleet.tune(path)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert state.created == []


def test_reason_sent_by_the_coordinator_is_raised(served, model):
    state, fleet = served
    state.campaigns["c0ffee01"] = make_campaign()
    with pytest.raises(TuneFleetError, match="no device matches") as caught:
        fleet.tune(model, devices="arch=none")
    assert caught.value.reason is Reason.NO_DEVICE_MATCHES
    assert caught.value.hint.endswith("(sent)")


def test_not_found_without_a_reason_is_named_by_what_was_looked_for(served):
    _, fleet = served
    with pytest.raises(TuneFleetError) as caught:
        fleet.model("v9")
    assert caught.value.reason is Reason.MODEL_VERSION_UNKNOWN


def test_nobody_listening_is_an_unreachable_coordinator():
    address = unused_address()
    with TuneFleet(address) as fleet, pytest.raises(TuneFleetError) as caught:
        fleet.devices()
    assert caught.value.reason is Reason.COORDINATOR_UNREACHABLE
    assert address in caught.value.message


@pytest.mark.parametrize("address", ["", "box", "box:", ":7460", "box:0", "box:99999", "box:http"])
def test_address_that_is_none_is_refused(address):
    with pytest.raises(TuneFleetError) as caught:
        TuneFleet(address)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_call_is_repeated_while_the_coordinator_starts(served):
    state, fleet = served
    state.devices, state.unavailable = [make_device()], 2
    assert [d.name for d in fleet.devices()] == ["box"]


def test_call_that_is_throttled_is_repeated_when_told_to(served, monkeypatch):
    state, fleet = served
    waits: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", waits.append)
    state.devices, state.throttled = [make_device()], [0.5]
    assert [d.name for d in fleet.devices()] == ["box"]
    assert waits == [0.5]


def test_unknown_profile_values_are_none(served):
    state, fleet = served
    state.devices = [make_device()]
    profile = fleet.device("box").profile
    assert profile.l2_bytes == 2**20
    assert profile.l3_bytes is None
    assert profile.measured is not None
    assert profile.measured.parallel_launch_us is None


def test_state_of_a_newer_coordinator_reads_as_unspecified(served):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1", state=99)
    assert fleet.campaign("c1").status.state is CampaignState.UNSPECIFIED


def test_wait_ends_when_the_campaign_is_done(served):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1")
    state.watched = [[make_campaign("c1"), make_done(state.blobs, {}, "c1")]]
    seen: list[CampaignState] = []
    status = fleet.campaign("c1").wait(progress=lambda s: seen.append(s.state))
    assert seen == [CampaignState.TUNING, CampaignState.DONE]
    assert status.targets[0].benchmark_s["tuned"] == 0.01


def test_watch_goes_on_after_the_connection_broke(served):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1")
    state.watched = [[make_campaign("c1")], [make_done(state.blobs, {}, "c1")]]
    lost: list[TuneFleetError] = []
    states = [s.state for s in fleet.campaign("c1").watch(on_lost=lost.append)]
    assert states == [CampaignState.TUNING, CampaignState.DONE]
    assert [e.reason for e in lost] == [Reason.COORDINATOR_UNREACHABLE]


def test_watch_that_is_throttled_goes_on(served):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1")
    state.watched, state.throttled = [[make_done(state.blobs, {}, "c1")]], [0.01]
    lost: list[TuneFleetError] = []
    states = [s.state for s in fleet.campaign("c1").watch(on_lost=lost.append)]
    assert states == [CampaignState.DONE]
    assert [e.reason for e in lost] == [Reason.RATE_LIMITED]


def test_watch_gives_up_on_a_coordinator_that_stays_away():
    state = InMemoryFleet(campaigns={"c1": make_campaign("c1")})
    with serving(state) as address:
        fleet = TuneFleet(address)
        campaign = fleet.campaign("c1")
    with fleet, pytest.raises(TuneFleetError) as caught:
        list(campaign.watch(give_up_after_s=0.2))
    assert caught.value.reason is Reason.COORDINATOR_UNREACHABLE


def test_wait_raises_the_reason_of_a_failed_campaign(served):
    state, fleet = served
    error = campaign_pb2.CampaignError(reason="MODEL_UNSUPPORTED", message="no operator Foo")
    state.campaigns["c1"] = make_campaign("c1")
    failed = make_campaign("c1", state=campaign_pb2.CAMPAIGN_STATE_FAILED, error=error)
    state.watched = [[failed]]
    with pytest.raises(TuneFleetError, match="no operator Foo") as caught:
        fleet.campaign("c1").wait()
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


def test_reason_that_is_not_in_the_catalogue_is_a_failed_campaign(served):
    state, fleet = served
    error = campaign_pb2.CampaignError(reason="FROM_THE_FUTURE", message="odd")
    failed = make_campaign("c1", state=campaign_pb2.CAMPAIGN_STATE_FAILED, error=error)
    state.campaigns["c1"] = failed
    with pytest.raises(TuneFleetError) as caught:
        fleet.campaign("c1").wait()
    assert caught.value.reason is Reason.CAMPAIGN_FAILED


def test_wait_raises_for_a_cancelled_campaign(served):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1")
    campaign = fleet.campaign("c1")
    assert campaign.cancel().state is CampaignState.CANCELLED
    with pytest.raises(TuneFleetError) as caught:
        campaign.wait()
    assert caught.value.reason is Reason.CAMPAIGN_STATE


def test_pause_and_resume_change_the_state(served):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1")
    campaign = fleet.campaign("c1")
    assert campaign.pause().state is CampaignState.PAUSED
    assert campaign.resume().state is CampaignState.TUNING


def test_listings_are_tables_in_notebooks(served):
    state, fleet = served
    state.devices = [make_device()]
    state.campaigns["c1"] = make_campaign("c1")
    state.models = [user_service_pb2.ModelVersion(version="v<1>", metrics={"pca": 0.9})]
    assert "Test CPU [rev 2]" in fleet.devices()._repr_html_()
    assert "40/100" in fleet.campaigns()._repr_html_()
    assert "v&lt;1&gt;" in fleet.models()._repr_html_()
    assert "conv2d" in fleet.campaign("c1")._repr_html_()


def test_status_prints_as_one_line(served):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1")
    line = str(fleet.campaign("c1").status)
    assert line.startswith("net tuning, 40/100 trials, estimated 10.0 ms (25.0x over untuned)")
    assert "\n" not in line
