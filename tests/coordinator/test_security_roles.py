"""Attacks by those who were let in: agents that act as others, people beyond their role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from secure_server import SecureServer, secure_server
from server_harness import failure_of, registration
from store_samples import KEY, campaign, task, trial

from tunefleet.conversions import trial_to_proto
from tunefleet.leases import RoundSpec
from tunefleet.v1 import (
    agent_service_pb2,
    blob_service_pb2,
    lease_pb2,
    user_service_pb2,
)
from tunefleet.v1 import (
    identity_service_pb2 as identity_pb,
)

WORKLOAD = b"a workload's module"
SECRET = b"somebody else's model"


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecureServer]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    async with secure_server(tmp_path / "home") as started:
        yield started


@pytest.fixture
async def tuning(server: SecureServer) -> SecureServer:
    """A server with a campaign of one task, for whose round a device may ask."""
    core = server.core
    core.store.create_campaign(campaign(), "")
    core.store.add_tasks("c-1", [task()])
    digest = core.blobs.put(WORKLOAD)
    server.planner.works.append(RoundSpec(KEY.workload, digest, KEY.target, trials=8, seed=1))
    return server


async def lease_of(peer: Any, device_id: str) -> Any:
    await peer.agents.RegisterAgent(registration(device_id[3:], target=KEY.target))
    request = agent_service_pb2.AcquireLeaseRequest(device_id=device_id)
    return (await peer.agents.AcquireLease(request)).lease


class TestAgents:
    async def test_an_agent_cannot_speak_for_another(self, tuning: SecureServer) -> None:
        mallory = await tuning.agent("id-mallory")
        for call, request in (
            (mallory.agents.RegisterAgent, registration("pi4")),
            (mallory.agents.AcquireLease, agent_service_pb2.AcquireLeaseRequest(device_id="id-x")),
            (mallory.agents.SendHeartbeat, agent_service_pb2.SendHeartbeatRequest(device_id="x")),
        ):
            assert (await failure_of(call(request))).reason == "FORBIDDEN"

    async def test_an_agent_cannot_touch_anothers_lease(self, tuning: SecureServer) -> None:
        victim, mallory = await tuning.agent("id-pi4"), await tuning.agent("id-mallory")
        lease = await lease_of(victim, "id-pi4")
        await mallory.agents.RegisterAgent(registration("mallory", target=KEY.target))
        stolen = {
            "device_id": "id-mallory",
            "lease_id": lease.lease_id,
            "fencing_token": lease.fencing_token,
        }
        renewal = agent_service_pb2.RenewLeaseRequest(**stolen)
        assert (await failure_of(mallory.agents.RenewLease(renewal))).reason == "LEASE_LOST"
        ending = agent_service_pb2.CompleteLeaseRequest(
            **stolen, outcome=lease_pb2.LEASE_OUTCOME_DONE
        )
        assert (await failure_of(mallory.agents.CompleteLease(ending))).reason == "LEASE_LOST"
        report = agent_service_pb2.ReportTrialsRequest(
            **stolen, trials=[trial_to_proto(trial(1, lease.lease_id))]
        )
        answer = await mallory.agents.ReportTrials(report)
        assert not answer.stored_trial_ids
        assert [each.reason for each in answer.rejected] == ["the lease never was this device's"]

    async def test_a_replayed_report_counts_once(self, tuning: SecureServer) -> None:
        agent = await tuning.agent()
        lease = await lease_of(agent, "id-pi4")
        report = agent_service_pb2.ReportTrialsRequest(
            device_id="id-pi4",
            lease_id=lease.lease_id,
            fencing_token=lease.fencing_token,
            trials=[trial_to_proto(trial(1, lease.lease_id))],
        )
        first = await agent.agents.ReportTrials(report)
        again = await agent.agents.ReportTrials(report)
        assert list(first.stored_trial_ids) == list(again.stored_trial_ids)
        assert tuning.core.store.task_progress("c-1")[0].trials == 1

    async def test_an_agent_fetches_what_its_lease_names_and_nothing_else(
        self, tuning: SecureServer
    ) -> None:
        agent = await tuning.agent()
        other = tuning.core.blobs.put(SECRET)
        lease = await lease_of(agent, "id-pi4")
        named = blob_service_pb2.GetBlobRequest(digest=lease.round.workload_digest)
        assert b"".join([r.chunk async for r in agent.blobs.GetBlob(named)]) == WORKLOAD
        unnamed = blob_service_pb2.GetBlobRequest(digest=other)
        assert (await failure_of(agent.blobs.GetBlob(unnamed).read())).reason == "FORBIDDEN"

    async def test_an_agent_may_nothing_that_users_may(self, server: SecureServer) -> None:
        agent = await server.agent()
        promotion = user_service_pb2.PromoteModelVersionRequest(version="v1", force=True)
        call = agent.models.PromoteModelVersion(promotion)
        assert (await failure_of(call.read())).reason == "FORBIDDEN"
        listing = user_service_pb2.ListCampaignsRequest()
        assert (await failure_of(agent.campaigns.ListCampaigns(listing))).reason == "FORBIDDEN"
        token = identity_pb.CreateTokenRequest(role=identity_pb.ROLE_ADMIN, name="me", uses=1)
        assert (await failure_of(agent.identities.CreateToken(token))).reason == "FORBIDDEN"

    async def test_labels_of_the_token_stand_against_the_agents_own(
        self, server: SecureServer
    ) -> None:
        agent = await server.agent(labels={"site": "vault"})
        await agent.agents.RegisterAgent(registration(labels={"site": "lab", "rack": "1"}))
        labels = server.core.store.get_device("id-pi4").labels
        assert labels == {"site": "vault", "rack": "1"}


class TestUsers:
    @pytest.mark.parametrize(
        ("role", "looks", "operates", "administers"),
        [
            ("viewer", True, False, False),
            ("operator", True, True, False),
            ("admin", True, True, True),
        ],
    )
    async def test_roles_bound_what_users_may(
        self, server: SecureServer, role: str, looks: bool, operates: bool, administers: bool
    ) -> None:
        user = await server.user(role)
        calls = (
            (user.devices.ListDevices(user_service_pb2.ListDevicesRequest()), looks),
            (
                user.campaigns.CancelCampaign(
                    user_service_pb2.CancelCampaignRequest(campaign_id="c-9")
                ),
                operates,
            ),
            (user.identities.ListTokens(identity_pb.ListTokensRequest()), administers),
        )
        for call, allowed in calls:
            try:
                await call
                reason = ""
            except grpc.aio.AioRpcError as e:
                reason = e.code().name
            assert (reason != "PERMISSION_DENIED") is allowed

    async def test_a_user_is_no_agent(self, server: SecureServer) -> None:
        admin = server.admin
        assert (await failure_of(admin.agents.RegisterAgent(registration()))).reason == "FORBIDDEN"

    async def test_what_people_do_and_are_refused_is_noted(self, server: SecureServer) -> None:
        viewer = await server.user("viewer", "eve")
        cancel = user_service_pb2.CancelCampaignRequest(campaign_id="c-9")
        assert (await failure_of(viewer.campaigns.CancelCampaign(cancel))).reason == "FORBIDDEN"
        entries = server.core.store.list_audit(10)
        noted = [(e.actor, e.action, e.outcome) for e in entries]
        assert noted == [
            ("user:eve", "CampaignService/CancelCampaign", "FORBIDDEN"),
            ("user:eve", "EnrolmentService/Enrol", "OK"),
            ("user:admin", "IdentityService/CreateToken", "OK"),
        ]
        assert "c-9" in entries[0].detail
        assert "tft1" not in repr(entries)
