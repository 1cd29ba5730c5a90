"""Peers of other releases work, or are told exactly what to do before anything is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_harness import Server, failure_of, registration, running_server
from store_samples import KEY, PROFILE, campaign, device, task, trial

from coordinator.server import compatibility
from coordinator.server.compatibility import CAPABILITIES, fits_tvm, require_same_tvm
from tunefleet import __version__, protocol
from tunefleet.conversions import trial_to_proto
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.leases import RoundSpec
from tunefleet.protocol import Client, ProtocolRange, this_client
from tunefleet.v1 import agent_service_pb2 as pb
from tunefleet.v1 import lease_pb2, user_service_pb2, user_service_pb2_grpc

ROUND = RoundSpec(KEY.workload, "1" * 64, KEY.target, trials=8, seed=1)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(compatibility, "tvm_version", lambda: "0.27.0.post1")
    async with running_server(tmp_path) as started:
        yield started


async def refusal(server: Server, **changes: Any) -> tuple[str, str]:
    """Return what an agent is told that may not register."""
    failure = await failure_of(server.agents.RegisterAgent(registration(**changes)))
    assert failure.reason == "INCOMPATIBLE"
    return failure.message, failure.hint


def with_tvm(version: str) -> Any:
    return replace(PROFILE, versions={"apache-tvm": version})


class TestAgents:
    async def test_an_agent_of_one_release_older_works(self, server: Server) -> None:
        store = server.core.store
        answer = await server.agents.RegisterAgent(registration(target=KEY.target))
        assert answer.protocol == 1
        store.create_campaign(campaign(), "")
        store.add_tasks("c-1", [task()])
        server.planner.works.append(ROUND)
        request = pb.AcquireLeaseRequest(device_id="id-pi4")
        lease = (await server.agents.AcquireLease(request)).lease
        heartbeat = pb.SendHeartbeatRequest(device_id="id-pi4", lease_ids=[lease.lease_id])
        assert not (await server.agents.SendHeartbeat(heartbeat)).cancelled_lease_ids
        ids = {"device_id": "id-pi4", "lease_id": lease.lease_id, "fencing_token": 1}
        trials = [trial_to_proto(trial(1, lease.lease_id))]
        stored = await server.agents.ReportTrials(pb.ReportTrialsRequest(**ids, trials=trials))
        assert len(stored.stored_trial_ids) == 1
        done = pb.CompleteLeaseRequest(**ids, outcome=lease_pb2.LEASE_OUTCOME_DONE)
        await server.agents.CompleteLease(done)
        assert server.planner.rounds == [lease.lease_id]

    async def test_both_sides_learn_what_the_other_can_do(self, server: Server) -> None:
        told = {"min_protocol": 1, "max_protocol": 99, "capabilities": ["round", "fly"]}
        answer = await server.agents.RegisterAgent(registration(**told))
        assert answer.protocol == protocol.SPOKEN.newest
        assert (answer.min_protocol, answer.max_protocol) == (1, protocol.SPOKEN.newest)
        assert answer.tvm_version == "0.27.0.post1"
        assert tuple(answer.capabilities) == CAPABILITIES
        stored = server.core.store.get_device("id-pi4")
        assert stored.capabilities == ("round",)
        assert stored.protocol == protocol.SPOKEN.newest

    async def test_an_agent_that_is_too_old_is_told_what_to_install(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "SPOKEN", ProtocolRange(3, 4))
        message, hint = await refusal(server)
        assert "agent 0.1.0 speaks protocol 1-1" in message
        assert f"pip install 'tunefleet[agent]=={__version__}' 'apache-tvm==0.27.0.post1'" in hint

    async def test_an_agent_that_is_too_new_is_told_so(self, server: Server) -> None:
        _, hint = await refusal(server, min_protocol=98, max_protocol=99)
        assert "or the agent's release where the coordinator runs" in hint

    async def test_another_tvm_is_refused_before_any_trial(self, server: Server) -> None:
        message, hint = await refusal(server, profile=with_tvm("0.26.0"))
        assert "apache-tvm 0.26.0" in message
        assert "'apache-tvm==0.27.0.post1'" in hint
        assert server.core.store.list_devices() == []
        await server.register(profile=with_tvm("0.27.0.post1"))

    async def test_another_feature_schema_is_refused_before_any_trial(self, server: Server) -> None:
        message, hint = await refusal(server, feature_schema="0123")
        assert "schema 0123" in message
        assert f"'tunefleet[agent]=={__version__}'" in hint

    async def test_a_device_that_registered_before_the_coordinator_was_updated_gets_no_work(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await server.register(profile=with_tvm("0.27.0.post1"))
        monkeypatch.setattr(compatibility, "tvm_version", lambda: "0.28.0")
        request = pb.AcquireLeaseRequest(device_id="id-pi4")
        failure = await failure_of(server.agents.AcquireLease(request))
        assert failure.reason == "INCOMPATIBLE"
        assert "'apache-tvm==0.28.0'" in failure.hint

    async def test_a_device_of_which_no_schema_is_known_registers_again(
        self, server: Server
    ) -> None:
        server.core.store.put_device(device())
        request = pb.AcquireLeaseRequest(device_id="id-pi4")
        assert (await failure_of(server.agents.AcquireLease(request))).reason == "AGENT_UNKNOWN"


class TestCampaigns:
    def test_one_begun_with_another_tvm_is_not_gone_on_with(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compatibility, "tvm_version", lambda: "0.28.0")
        assert fits_tvm(campaign())
        assert fits_tvm(campaign(tvm_version="0.28.0"))
        with pytest.raises(TuneFleetError) as raised:
            require_same_tvm(campaign(tvm_version="0.27.0"))
        assert raised.value.reason is Reason.INCOMPATIBLE
        assert "apache-tvm==0.27.0" in raised.value.hint


class TestClients:
    async def test_a_client_that_is_too_old_is_told_what_to_install(self, server: Server) -> None:
        old = Client("0.0.1", ProtocolRange(98, 99)).user_agent()
        options = [("grpc.primary_user_agent", old)]
        async with grpc.aio.insecure_channel(server.address, options=options) as channel:
            stub: Any = user_service_pb2_grpc.CampaignServiceStub(channel)
            listing = stub.ListCampaigns(user_service_pb2.ListCampaignsRequest())
            failure = await failure_of(listing)
            watch = stub.WatchCampaign(user_service_pb2.WatchCampaignRequest())
            streamed = await failure_of(watch.read())
        assert (failure.reason, streamed.reason) == ("INCOMPATIBLE", "INCOMPATIBLE")
        assert "client 0.0.1 speaks protocol 98-99" in failure.message
        assert f"pip install 'tunefleet=={__version__}'" in failure.hint

    async def test_this_releases_client_and_others_are_let_through(self, server: Server) -> None:
        for user_agent in (this_client().user_agent(), "grpcurl/1.9"):
            options = [("grpc.primary_user_agent", user_agent)]
            async with grpc.aio.insecure_channel(server.address, options=options) as channel:
                stub: Any = user_service_pb2_grpc.CampaignServiceStub(channel)
                await stub.ListCampaigns(user_service_pb2.ListCampaignsRequest())
