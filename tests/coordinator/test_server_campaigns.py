from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_harness import PATIENCE_S, Server, failure_of, running_server
from store_samples import FINGERPRINT, KEY, NOW, OTHER_KEY, campaign, lease, model, task, trial

from coordinator.state.records import CampaignState, GroupRecord, LeaseState, Quarantine
from tunefleet.conversions import duration, seconds
from tunefleet.v1 import campaign_pb2, device_pb2
from tunefleet.v1 import user_service_pb2 as pb


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path) as started:
        yield started


@pytest.fixture
async def fleet(server: Server) -> Server:
    """A server that knows two devices, of which one has a target given."""
    await server.register("pi4", target=KEY.target)
    await server.register("nuc", labels={"site": "office", "gpu": "yes"})
    return server


def spec(server: Server, **changes: Any) -> campaign_pb2.CampaignSpec:
    fields: dict[str, Any] = {
        "model_digest": server.core.blobs.put(b"model"),
        "model_filename": "squeezenet.onnx",
    }
    return campaign_pb2.CampaignSpec(**(fields | changes))


async def create(server: Server, key: str = "", **changes: Any) -> campaign_pb2.Campaign:
    request = pb.CreateCampaignRequest(spec=spec(server, **changes), idempotency_key=key)
    answer: pb.CreateCampaignResponse = await server.campaigns.CreateCampaign(request)
    return answer.campaign


class TestCreation:
    async def test_a_campaign_begins_with_its_import(self, fleet: Server) -> None:
        made = await create(
            fleet,
            shapes={"data": campaign_pb2.Shape(dims=[1, 3, 224, 224])},
            targets=["llvm -mcpu=znver4 -num-cores=2"],
            trials=64,
            time_limit=duration(90.0),
            min_gain=0.0,
            seed=7,
        )
        assert re.fullmatch(r"c-\d{8}-[0-9a-f]{6}", made.campaign_id)
        assert made.state == campaign_pb2.CAMPAIGN_STATE_IMPORTING
        stored = fleet.core.store.get_campaign(made.campaign_id).spec
        assert (stored.name, stored.targets, stored.trials) == ("squeezenet", (KEY.target,), 64)
        assert (stored.time_limit_s, stored.min_gain, stored.seed) == (90.0, 0.0, 7)
        assert stored.shapes == {"data": (1, 3, 224, 224)}

    async def test_a_client_that_names_no_least_gain_gets_the_default(self, fleet: Server) -> None:
        made = await create(fleet)
        stored = fleet.core.store.get_campaign(made.campaign_id).spec
        assert made.spec.min_gain == stored.min_gain == 0.001

    async def test_the_same_key_makes_one_campaign(self, fleet: Server) -> None:
        first, again, other = [await create(fleet, key) for key in ("k", "k", "")]
        assert first.campaign_id == again.campaign_id != other.campaign_id

    async def test_the_model_must_have_been_sent(self, fleet: Server) -> None:
        failure = await failure_of(create(fleet, model_digest="0" * 64))
        assert (failure.reason, failure.code) == ("BLOB_UNKNOWN", grpc.StatusCode.NOT_FOUND)

    async def test_a_selector_without_a_device_names_those_there_are(self, fleet: Server) -> None:
        failure = await failure_of(create(fleet, device_selector="site=moon"))
        assert failure.reason == "NO_DEVICE_MATCHES"
        assert "nuc, pi4" in failure.message

    async def test_without_any_device_an_agent_is_asked_for(self, server: Server) -> None:
        failure = await failure_of(create(server))
        assert failure.reason == "NO_DEVICE_MATCHES"
        assert "tunefleet-agent run" in failure.message

    @pytest.mark.parametrize(
        "changes",
        [
            {"trials": -1},
            {"trials": 10**12},
            {"time_limit": duration(0.0)},
            {"min_gain": 1.0},
            {"min_gain": -0.1},
            {"min_gain": math.nan},
            {"shapes": {"data": campaign_pb2.Shape(dims=[1, -1])}},
            {"targets": ["{"]},
            {"device_selector": "site="},
            {"model_digest": "../secret"},
            {"model_filename": ""},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    async def test_what_makes_no_sense_is_refused(
        self, fleet: Server, changes: dict[str, Any]
    ) -> None:
        assert (await failure_of(create(fleet, **changes))).reason == "INVALID_ARGUMENT"
        assert fleet.core.store.list_campaigns() == []


class TestReading:
    async def test_progress_latency_and_eta_are_told(self, fleet: Server) -> None:
        store = fleet.core.store
        group = GroupRecord(
            KEY.target, FINGERPRINT, "d" * 64, "e" * 64, {"tuned": (0.3, 0.1, 0.2)}, 1e-6
        )
        store.create_campaign(
            campaign(groups=(group,), trials_wanted=10, tuning_s=8.0, activity="tuning"), ""
        )
        store.add_tasks("c-1", [task(), task(OTHER_KEY, "dense")])
        store.grant_lease(lease())
        store.ingest_trials("id-pi4", "l-1", 1, [trial(2), trial(8, trace="[[],[]]")], NOW)
        store.add_model_version(model("v1"))

        request = pb.GetCampaignRequest(campaign_id="squeezenet")
        got = (await fleet.campaigns.GetCampaign(request)).campaign
        assert [t.name for t in got.tasks] == ["conv2d", "dense"]
        assert (got.tasks[0].best_s, got.tasks[0].baseline_s) == (2e-3, 8e-3)
        (target,) = got.targets
        assert (target.trials, target.trials_wanted) == (2, 10)
        assert not target.HasField("estimated_latency_s")  # the second task has none yet
        assert (dict(target.benchmark_s), target.max_abs_err) == ({"tuned": 0.2}, 1e-6)
        assert list(target.devices) == ["pi4"]
        assert got.model_version == "v1"
        # 2 trials in 8 s, 8 to go.
        assert (seconds(got.tuning_time), seconds(got.eta)) == (8.0, 32.0)

    async def test_the_estimate_is_weighted_once_every_task_has_one(self, fleet: Server) -> None:
        store = fleet.core.store
        group = GroupRecord(KEY.target, FINGERPRINT, "d" * 64, "e" * 64)
        store.create_campaign(campaign(groups=(group,)), "")
        store.add_tasks("c-1", [task()])
        store.grant_lease(lease())
        store.ingest_trials("id-pi4", "l-1", 1, [trial(2)], NOW)
        got = (await fleet.campaigns.GetCampaign(pb.GetCampaignRequest(campaign_id="c-1"))).campaign
        assert got.targets[0].estimated_latency_s == pytest.approx(3 * 2e-3)

    async def test_an_eta_never_exceeds_what_the_time_limit_leaves(self, fleet: Server) -> None:
        made = await create(fleet, time_limit=duration(90.0))
        fleet.core.store.update_campaign(
            made.campaign_id, [], state=CampaignState.TUNING, tuning_s=60.0
        )
        request = pb.GetCampaignRequest(campaign_id=made.campaign_id)
        got = (await fleet.campaigns.GetCampaign(request)).campaign
        assert seconds(got.eta) == 30.0

    async def test_listings_leave_out_tasks(self, fleet: Server) -> None:
        fleet.core.store.create_campaign(campaign(), "")
        fleet.core.store.add_tasks("c-1", [task()])
        (listed,) = (await fleet.campaigns.ListCampaigns(pb.ListCampaignsRequest())).campaigns
        assert (listed.campaign_id, list(listed.tasks)) == ("c-1", [])

    async def test_an_unknown_campaign_is_refused(self, server: Server) -> None:
        request = pb.GetCampaignRequest(campaign_id="nothing")
        failure = await failure_of(server.campaigns.GetCampaign(request))
        assert (failure.reason, failure.code) == ("CAMPAIGN_UNKNOWN", grpc.StatusCode.NOT_FOUND)


class TestChanging:
    async def test_pause_and_resume_may_be_repeated(self, fleet: Server) -> None:
        fleet.core.store.create_campaign(campaign(), "")
        for _ in range(2):
            paused = await fleet.campaigns.PauseCampaign(pb.PauseCampaignRequest(campaign_id="c-1"))
            assert paused.campaign.state == campaign_pb2.CAMPAIGN_STATE_PAUSED
        for _ in range(2):
            resumed = await fleet.campaigns.ResumeCampaign(
                pb.ResumeCampaignRequest(campaign_id="c-1")
            )
            assert resumed.campaign.state == campaign_pb2.CAMPAIGN_STATE_TUNING

    async def test_what_is_done_cannot_be_paused_or_cancelled(self, fleet: Server) -> None:
        fleet.core.store.create_campaign(campaign(state=CampaignState.DONE), "")
        pause = fleet.campaigns.PauseCampaign(pb.PauseCampaignRequest(campaign_id="c-1"))
        cancel = fleet.campaigns.CancelCampaign(pb.CancelCampaignRequest(campaign_id="c-1"))
        for call in (pause, cancel):
            failure = await failure_of(call)
            assert failure.reason == "CAMPAIGN_STATE"
            assert "done" in failure.message

    async def test_cancelling_ends_the_leases(self, fleet: Server) -> None:
        fleet.core.store.create_campaign(campaign(), "")
        fleet.core.store.grant_lease(lease())
        answer = await fleet.campaigns.CancelCampaign(pb.CancelCampaignRequest(campaign_id="c-1"))
        assert answer.campaign.state == campaign_pb2.CAMPAIGN_STATE_CANCELLED
        assert answer.campaign.HasField("ended_at")
        assert fleet.core.store.list_leases()[0].state is LeaseState.CANCELLED


class TestWatching:
    async def test_a_watch_shows_changes_and_ends_with_the_campaign(self, fleet: Server) -> None:
        fleet.core.store.create_campaign(campaign(), "")
        async with asyncio.timeout(PATIENCE_S):
            request = pb.WatchCampaignRequest(campaign_id="c-1")
            stream = aiter(fleet.campaigns.WatchCampaign(request))
            first = await anext(stream)
            assert first.campaign.state == campaign_pb2.CAMPAIGN_STATE_TUNING
            fleet.core.store.update_campaign("c-1", [], state=CampaignState.DONE)
            fleet.core.bus.notify_campaign("c-1")
            *_, last = [response async for response in stream]
            assert last.campaign.state == campaign_pb2.CAMPAIGN_STATE_DONE

    async def test_a_watch_of_an_ended_campaign_ends_at_once(self, fleet: Server) -> None:
        fleet.core.store.create_campaign(campaign(state=CampaignState.FAILED), "")
        async with asyncio.timeout(PATIENCE_S):
            stream = fleet.campaigns.WatchCampaign(pb.WatchCampaignRequest(campaign_id="c-1"))
            assert len([response async for response in stream]) == 1

    async def test_a_watcher_is_told_to_come_back_when_the_server_stops(
        self, fleet: Server
    ) -> None:
        fleet.core.store.create_campaign(campaign(), "")
        request = pb.WatchCampaignRequest(campaign_id="c-1")
        stream = aiter(fleet.campaigns.WatchCampaign(request))
        await anext(stream)
        fleet.stop.set()

        async def read_on() -> None:
            async for _ in stream:
                pass

        async with asyncio.timeout(PATIENCE_S):
            failure = await failure_of(read_on())
        assert failure.code is grpc.StatusCode.UNAVAILABLE

    async def test_an_unknown_campaign_cannot_be_watched(self, server: Server) -> None:
        stream = server.campaigns.WatchCampaign(pb.WatchCampaignRequest(campaign_id="c-1"))
        assert (await failure_of(stream.read())).reason == "CAMPAIGN_UNKNOWN"


class TestCollections:
    @pytest.mark.parametrize(
        "changes",
        [
            {"families": ["conv9d"], "workloads": 5, "trials_per_task": 4},
            {"families": ["dense"], "trials_per_task": 4},
            {"families": ["dense"], "workloads": 5},
            {"trials_per_task": 4},
            {"families": ["dense"], "workloads": 10**6, "trials_per_task": 4},
            {"model_digest": "0" * 64, "trials_per_task": -1},
        ],
    )
    async def test_what_cannot_be_collected_is_refused(
        self, fleet: Server, changes: dict[str, Any]
    ) -> None:
        collect = campaign_pb2.CAMPAIGN_PURPOSE_COLLECT
        asked = {"model_digest": "", "name": "some", "purpose": collect} | changes
        assert (await failure_of(create(fleet, **asked))).reason == "INVALID_ARGUMENT"
        assert fleet.core.store.list_campaigns() == []

    async def test_families_cannot_be_tuned(self, fleet: Server) -> None:
        assert (await failure_of(create(fleet, families=["dense"]))).reason == "INVALID_ARGUMENT"

    async def test_a_collection_of_families_needs_no_model(self, fleet: Server) -> None:
        made = await create(
            fleet,
            name="some",
            model_digest="",
            model_filename="",
            purpose=campaign_pb2.CAMPAIGN_PURPOSE_COLLECT,
            families=["dense", "dense"],
            workloads=5,
            trials_per_task=4,
        )
        stored = fleet.core.store.get_campaign(made.campaign_id).spec
        assert (stored.families, stored.workloads) == (("dense",), 5)


class TestQuarantine:
    async def test_it_is_shown_and_ended(self, fleet: Server) -> None:
        store, now = fleet.core.store, fleet.core.clock()
        store.set_quarantine("id-nuc", Quarantine("slow", now, now + 60))
        shown = (await fleet.devices.GetDevice(pb.GetDeviceRequest(device="nuc"))).device
        assert shown.state == device_pb2.DEVICE_STATE_QUARANTINED
        assert shown.quarantine.reason == "slow"
        request = pb.ReleaseDeviceRequest(device="nuc")
        released = (await fleet.devices.ReleaseDevice(request)).device
        assert released.state == device_pb2.DEVICE_STATE_ONLINE
        assert not released.HasField("quarantine")

    async def test_a_campaign_says_that_it_waits_for_it(self, fleet: Server) -> None:
        store, now = fleet.core.store, fleet.core.clock()
        store.create_campaign(campaign(), "")
        store.set_quarantine("id-nuc", Quarantine("slow", now, now + 60))
        request = pb.GetCampaignRequest(campaign_id="c-1")
        assert (await fleet.campaigns.GetCampaign(request)).campaign.activity == ""
        store.set_quarantine("id-pi4", Quarantine("slow", now, now + 60))
        activity = (await fleet.campaigns.GetCampaign(request)).campaign.activity
        assert "waiting for nuc, pi4, in quarantine" in activity


class TestDraining:
    async def test_a_campaign_says_that_its_devices_or_all_are_drained(self, fleet: Server) -> None:
        fleet.core.store.create_campaign(campaign(), "")
        request = pb.GetCampaignRequest(campaign_id="c-1")
        for name in ("nuc", "pi4"):
            assert (await fleet.campaigns.GetCampaign(request)).campaign.activity == ""
            await fleet.devices.DrainDevice(pb.DrainDeviceRequest(device=name))
        activity = (await fleet.campaigns.GetCampaign(request)).campaign.activity
        assert "waiting for nuc, pi4, drained" in activity
        await fleet.core.drain.switch(on=True)
        activity = (await fleet.campaigns.GetCampaign(request)).campaign.activity
        assert "tunefleet drain --resume" in activity


class TestDevicesAndModels:
    async def test_devices_are_listed_by_selector(self, fleet: Server) -> None:
        request = pb.ListDevicesRequest(selector="gpu")
        (listed,) = (await fleet.devices.ListDevices(request)).devices
        assert (listed.name, listed.state) == ("nuc", device_pb2.DEVICE_STATE_ONLINE)

    async def test_a_device_that_fell_silent_is_offline(self, fleet: Server) -> None:
        fleet.core.store.touch_device("id-pi4", NOW - 1e9)
        got = await fleet.devices.GetDevice(pb.GetDeviceRequest(device="pi4"))
        assert got.device.state == device_pb2.DEVICE_STATE_OFFLINE

    async def test_an_unknown_device_is_refused(self, server: Server) -> None:
        call = server.devices.GetDevice(pb.GetDeviceRequest(device="pi5"))
        assert (await failure_of(call)).reason == "DEVICE_UNKNOWN"

    async def test_model_versions_are_listed_with_the_current_one(self, server: Server) -> None:
        for version, promoted in (("v1", True), ("v2", False)):
            server.core.store.add_model_version(model(version, promoted))
        listed = (await server.models.ListModelVersions(pb.ListModelVersionsRequest())).versions
        assert [(m.version, m.current) for m in listed] == [("v2", False), ("v1", True)]
        got = await server.models.GetModelVersion(pb.GetModelVersionRequest(version="v1"))
        assert got.model_version == listed[1]

    async def test_an_unknown_model_version_is_refused(self, server: Server) -> None:
        call = server.models.GetModelVersion(pb.GetModelVersionRequest(version="v9"))
        assert (await failure_of(call)).reason == "MODEL_VERSION_UNKNOWN"
