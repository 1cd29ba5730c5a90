"""The chaos bench's calls: what the server sees of each harm, what the agent, what the journal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from scripts.benches.chaos_agent import Harm, Interceptor, Tampering, install
from scripts.benches.chaos_journal import Journal, Witness, read_journals
from tunefleet.v1 import agent_service_pb2 as pb
from tunefleet.v1 import agent_service_pb2_grpc, trial_pb2

PATIENCE_S = 20.0
REPORT = pb.ReportTrialsRequest(trials=[trial_pb2.Trial(trial_id="t-1")])


class Coordinator(agent_service_pb2_grpc.AgentServiceServicer):
    """Stores whatever is reported."""

    def __init__(self) -> None:
        self.reports = 0

    async def ReportTrials(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Acknowledge."""
        self.reports += 1
        return pb.ReportTrialsResponse(
            stored_trial_ids=[trial.trial_id for trial in request.trials],
            rejected=[pb.RejectedTrial(trial_id="t-9", reason="too late")],
        )


@dataclass
class Always(Tampering):
    """Does the same harm to every call."""

    harm: Harm | None = None

    def draw(self, call: str) -> Harm | None:
        return self.harm

    def lateness_s(self) -> float:
        return 0.01


@dataclass
class Rig:
    """A coordinator, and an agent's stub whose calls suffer."""

    coordinator: Coordinator
    tampering: Always
    stub: Any
    journal: Path
    opened: list[Any] = field(default_factory=list)

    def witness(self) -> Witness:
        return read_journals([self.journal])


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A server, and a channel opened as an agent opens one."""
    # Put back what is installed.
    for name in ("insecure_channel", "secure_channel"):
        monkeypatch.setattr(grpc.aio, name, getattr(grpc.aio, name))
    server, coordinator = grpc.aio.server(), Coordinator()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(coordinator, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tampering = Always(random.Random(0), tmp_path / "peace")
    with Journal(tmp_path / "journal") as journal:
        install(Interceptor(journal, tampering))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = agent_service_pb2_grpc.AgentServiceStub(channel)
            yield Rig(coordinator, tampering, stub, tmp_path / "journal")
    await server.stop(None)


async def test_an_answer_is_journalled_and_passed_on(rig: Rig) -> None:
    answer = await rig.stub.ReportTrials(REPORT, timeout=PATIENCE_S)
    assert answer.stored_trial_ids == ["t-1"]
    assert rig.witness() == Witness({"t-1"}, {"t-9": "too late"})


async def test_a_doubled_call_reaches_the_coordinator_twice(rig: Rig) -> None:
    rig.tampering.harm = Harm.DUPLICATED
    answer = await rig.stub.ReportTrials(REPORT, timeout=PATIENCE_S)
    assert answer.stored_trial_ids == ["t-1"]
    assert rig.coordinator.reports == 2
    assert rig.witness().faults == {"duplicated": 1}


async def test_an_unanswered_call_was_served_and_is_journalled(rig: Rig) -> None:
    rig.tampering.harm = Harm.UNANSWERED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await rig.stub.ReportTrials(REPORT, timeout=PATIENCE_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert rig.coordinator.reports == 1
    assert rig.witness().acknowledged == {"t-1"}


async def test_a_late_call_arrives_after_its_sender_gave_it_up(rig: Rig) -> None:
    rig.tampering.harm = Harm.LATE
    with pytest.raises(grpc.aio.AioRpcError):
        await rig.stub.ReportTrials(REPORT, timeout=PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while not rig.witness().acknowledged:
            await asyncio.sleep(0.01)
    assert rig.coordinator.reports == 1


async def test_a_call_that_fails_by_itself_fails_as_it_would(rig: Rig) -> None:
    rig.tampering.harm = Harm.DUPLICATED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await rig.stub.RenewLease(pb.RenewLeaseRequest(), timeout=PATIENCE_S)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_in_peace_no_call_suffers(tmp_path: Path) -> None:
    tampering = Tampering(random.Random(0), tmp_path / "peace", share_of_reports=1.0)
    assert tampering.draw("ReportTrials") is not None
    (tmp_path / "peace").touch()
    assert tampering.draw("ReportTrials") is None


def test_reports_suffer_more_often_than_heartbeats(tmp_path: Path) -> None:
    tampering = Tampering(random.Random(0), tmp_path / "peace")
    reports = sum(tampering.draw("ReportTrials") is not None for _ in range(1000))
    heartbeats = sum(tampering.draw("SendHeartbeat") is not None for _ in range(1000))
    assert 4 * heartbeats < reports
