from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_harness import PATIENCE_S, Server, failure_of, registration, running_server
from store_samples import KEY, PROFILE, UNMEASURED, campaign, device, task, trial

from coordinator.state.records import LeaseState
from tunefleet.conversions import seconds, trial_to_proto
from tunefleet.lease_conversions import featurized_to_proto, lease_from_proto
from tunefleet.leases import (
    BenchmarkResult,
    BenchmarkSpec,
    FeaturizedTrace,
    FeaturizeSpec,
    NamedTrace,
    RoundSpec,
)
from tunefleet.targets import derive_target
from tunefleet.v1 import agent_service_pb2 as pb
from tunefleet.v1 import lease_pb2, trial_pb2, user_service_pb2

ROUND = RoundSpec(KEY.workload, "1" * 64, KEY.target, trials=8, seed=1)
BENCHMARK = BenchmarkSpec(KEY.target, (), "2" * 64, "3" * 64, threads=2)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path) as started:
        yield started


@pytest.fixture
async def tuning(server: Server) -> Server:
    """A server with a registered device and a campaign that has one task and one round."""
    await server.register(target=KEY.target)
    server.core.store.create_campaign(campaign(), "")
    server.core.store.add_tasks("c-1", [task()])
    server.planner.works.append(ROUND)
    return server


async def acquire(server: Server, device_id: str = "id-pi4") -> Any:
    return await server.agents.AcquireLease(pb.AcquireLeaseRequest(device_id=device_id))


def report(lease: Any, *numbers: int, **changes: Any) -> pb.ReportTrialsRequest:
    fields: dict[str, Any] = {
        "device_id": "id-pi4",
        "lease_id": lease.lease_id,
        "fencing_token": lease.fencing_token,
        "trials": [trial_to_proto(trial(n, lease.lease_id)) for n in numbers],
    }
    return pb.ReportTrialsRequest(**(fields | changes))


def completion(lease: Any, **changes: Any) -> pb.CompleteLeaseRequest:
    fields: dict[str, Any] = {
        "device_id": "id-pi4",
        "lease_id": lease.lease_id,
        "fencing_token": lease.fencing_token,
        "outcome": lease_pb2.LEASE_OUTCOME_DONE,
    }
    return pb.CompleteLeaseRequest(**(fields | changes))


class TestRegistration:
    async def test_a_device_of_a_dataset_gives_its_name_up(self, server: Server) -> None:
        server.core.store.put_device(device("pi4", device_id="id-of-another", imported=True))
        await server.register("pi4")
        assert server.core.store.get_device("id-pi4").name == "pi4"
        assert server.core.store.get_device("id-of-another").name == "pi4-nother"

    async def test_the_target_is_derived_from_the_profile(self, server: Server) -> None:
        answer = await server.register()
        assert answer.target == derive_target(PROFILE)
        assert seconds(answer.heartbeat_interval) > 0
        stored = server.core.store.get_device("pi4")
        assert (stored.profile, stored.labels) == (PROFILE, {"site": "lab"})

    async def test_a_given_target_is_made_canonical(self, server: Server) -> None:
        answer = await server.register(target="llvm -num-cores=2 -mcpu=znver4")
        assert answer.target == KEY.target

    async def test_an_agent_with_other_features_is_turned_away(self, server: Server) -> None:
        failure = await failure_of(server.register(feature_schema="0123456789abcdef"))
        assert (failure.reason, failure.code) == (
            "INCOMPATIBLE",
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        assert "0123456789abcdef" in failure.message
        assert failure.hint

    @pytest.mark.parametrize(
        "changes",
        [
            {"device_id": ""},
            {"device_id": "../x"},
            {"name": "a,b"},
            {"labels": {"a=b": "c"}},
            {"target": "{"},
            {"profile": replace(PROFILE, logical_cores=0)},
        ],
        ids=["no id", "odd id", "odd name", "odd label", "broken target", "no cores"],
    )
    async def test_a_registration_that_makes_no_sense_is_refused(
        self, server: Server, changes: dict[str, Any]
    ) -> None:
        failure = await failure_of(server.register(**changes))
        assert failure.reason == "INVALID_ARGUMENT"
        assert server.core.store.list_devices() == []

    async def test_an_architecture_without_a_target_needs_one_given(self, server: Server) -> None:
        odd = registration(profile=replace(PROFILE, arch="riscv64"))
        failure = await failure_of(server.agents.RegisterAgent(odd))
        assert failure.reason == "INVALID_ARGUMENT"
        assert "riscv64" in failure.message

    async def test_two_agents_with_one_hosts_name_get_names_of_their_own(
        self, server: Server
    ) -> None:
        await server.register("host", device_id="agent-aaaaaa")
        for _ in range(2):
            await server.register("host", device_id="agent-bbbbbb")
        names = [device.name for device in server.core.store.list_devices()]
        assert names == ["host", "host-bbbbbb"]


class TestLeasing:
    async def test_a_round_is_leased_renewed_reported_and_completed(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        assert lease_from_proto(lease).work == ROUND
        renewed = await tuning.agents.RenewLease(
            pb.RenewLeaseRequest(
                device_id="id-pi4", lease_id=lease.lease_id, fencing_token=lease.fencing_token
            )
        )
        assert seconds(renewed.ttl) > 0
        stored = await tuning.agents.ReportTrials(report(lease, 1, 2))
        assert len(stored.stored_trial_ids) == 2
        await tuning.agents.CompleteLease(
            completion(lease, space_exhausted=True, phase_seconds={"search": 1.5})
        )
        (progress,) = tuning.core.store.task_progress("c-1")
        assert (progress.trials, progress.rounds, progress.task.exhausted) == (2, 1, True)
        assert tuning.core.store.list_leases()[0].phase_seconds == {"search": 1.5}

    async def test_asking_again_brings_the_same_lease(self, tuning: Server) -> None:
        tuning.planner.works.append(ROUND)
        assert (await acquire(tuning)).lease == (await acquire(tuning)).lease
        assert len(tuning.planner.works) == 1

    async def test_without_work_an_agent_is_told_when_to_ask_again(self, tuning: Server) -> None:
        tuning.planner.works.clear()
        answer = await acquire(tuning)
        assert not answer.HasField("lease")
        assert seconds(answer.retry_after) > 0

    async def test_a_device_that_has_not_measured_itself_gets_no_work(self, tuning: Server) -> None:
        await tuning.agents.RegisterAgent(registration("new", profile=UNMEASURED))
        assert not (await acquire(tuning, "id-new")).HasField("lease")

    async def test_an_agent_that_is_not_registered_is_told_so(self, tuning: Server) -> None:
        heartbeat = tuning.agents.SendHeartbeat(pb.SendHeartbeatRequest(device_id="stranger"))
        by_name = acquire(tuning, "pi4")
        for call in (heartbeat, by_name):
            failure = await failure_of(call)
            assert (failure.reason, failure.code) == (
                "AGENT_UNKNOWN",
                grpc.StatusCode.NOT_FOUND,
            )

    async def test_a_lease_cannot_be_used_with_another_token(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        renew = pb.RenewLeaseRequest(
            device_id="id-pi4", lease_id=lease.lease_id, fencing_token=lease.fencing_token + 1
        )
        failure = await failure_of(tuning.agents.RenewLease(renew))
        assert failure.reason == "LEASE_LOST"
        failure = await failure_of(
            tuning.agents.CompleteLease(completion(lease, fencing_token=lease.fencing_token + 1))
        )
        assert failure.reason == "LEASE_LOST"

    async def test_completing_twice_is_allowed(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        for _ in range(2):
            await tuning.agents.CompleteLease(completion(lease))
        assert tuning.core.store.list_leases()[0].state is LeaseState.DONE

    async def test_an_unknown_outcome_is_refused(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        unset = completion(lease, outcome=lease_pb2.LEASE_OUTCOME_UNSPECIFIED)
        failure = await failure_of(tuning.agents.CompleteLease(unset))
        assert failure.reason == "INVALID_ARGUMENT"

    async def test_the_planner_hears_what_a_benchmark_found(self, tuning: Server) -> None:
        tuning.planner.works[:] = [BENCHMARK]
        lease = (await acquire(tuning)).lease
        result = lease_pb2.BenchmarkResult(name="tuned", samples_s=[0.1], max_abs_err=1e-6)
        await tuning.agents.CompleteLease(completion(lease, benchmark=[result]))
        found = [BenchmarkResult("tuned", (0.1,), 1e-6)]
        assert tuning.planner.benchmarks == [(lease.lease_id, found, "")]

    async def test_a_benchmark_that_is_given_back_found_nothing(self, tuning: Server) -> None:
        tuning.planner.works[:] = [BENCHMARK]
        lease = (await acquire(tuning)).lease
        await tuning.agents.CompleteLease(
            completion(lease, outcome=lease_pb2.LEASE_OUTCOME_RETURNED)
        )
        assert tuning.planner.benchmarks == []

    async def test_the_planner_hears_which_features_were_computed(self, tuning: Server) -> None:
        traces = (NamedTrace("a" * 16, "[[],[]]"), NamedTrace("b" * 16, "[[],[]]"))
        tuning.planner.works[:] = [FeaturizeSpec(KEY.workload, "2" * 64, KEY.target, traces)]
        lease = (await acquire(tuning)).lease
        assert [t.candidate for t in lease.featurize.traces] == ["a" * 16, "b" * 16]
        found = [
            FeaturizedTrace("a" * 16, trial(1).features),
            FeaturizedTrace("b" * 16, error="does not apply"),
        ]
        messages = [featurized_to_proto(result) for result in found]
        await tuning.agents.CompleteLease(completion(lease, featurized=messages))
        assert tuning.planner.features == [(lease.lease_id, found, "")]

    async def test_features_of_the_wrong_size_are_none(self, tuning: Server) -> None:
        tuning.planner.works[:] = [FeaturizeSpec(KEY.workload, "2" * 64, KEY.target, ())]
        lease = (await acquire(tuning)).lease
        message = lease_pb2.FeaturizedTrace(
            candidate="a" * 16, features=trial_pb2.ProgramFeatures(stores=2, data=b"short")
        )
        await tuning.agents.CompleteLease(completion(lease, featurized=[message]))
        [(_, results, error)] = tuning.planner.features
        assert results == []
        assert "features of 2 stores" in error


class TestReports:
    async def test_a_repeated_report_is_acknowledged_and_stored_once(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        for _ in range(2):
            answer = await tuning.agents.ReportTrials(report(lease, 1, 2))
            assert len(answer.stored_trial_ids) == 2
        assert tuning.core.store.count_trials() == 2

    async def test_a_trial_that_cannot_be_read_spoils_none_of_the_others(
        self, tuning: Server
    ) -> None:
        lease = (await acquire(tuning)).lease
        request = report(lease, 1, 2, 3, 4)
        request.trials[0].verdict = 99  # type: ignore[assignment]
        request.trials[1].candidate = "not hex"
        request.trials[2].features.stores = 7
        answer = await tuning.agents.ReportTrials(request)
        assert list(answer.stored_trial_ids) == [request.trials[3].trial_id]
        assert [r.trial_id for r in answer.rejected] == [t.trial_id for t in request.trials[:3]]
        assert all(r.reason for r in answer.rejected)

    async def test_trials_with_a_wrong_token_are_rejected(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        answer = await tuning.agents.ReportTrials(
            report(lease, 1, fencing_token=lease.fencing_token + 1)
        )
        assert (len(answer.stored_trial_ids), len(answer.rejected)) == (0, 1)

    async def test_late_trials_of_a_cancelled_lease_are_stored(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        tuning.core.store.cancel_leases("c-1")
        answer = await tuning.agents.ReportTrials(report(lease, 1))
        assert len(answer.stored_trial_ids) == 1

    async def test_a_report_of_too_many_trials_is_refused(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        request = report(lease, trials=[trial_to_proto(trial(1, features=None))] * 513)
        failure = await failure_of(tuning.agents.ReportTrials(request))
        assert failure.reason == "INVALID_ARGUMENT"


class TestPresence:
    async def test_a_heartbeat_names_the_leases_that_ended(self, tuning: Server) -> None:
        lease = (await acquire(tuning)).lease
        beat = pb.SendHeartbeatRequest(device_id="id-pi4", lease_ids=[lease.lease_id, "l-old"])
        answer = await tuning.agents.SendHeartbeat(beat)
        assert list(answer.cancelled_lease_ids) == ["l-old"]
        tuning.core.store.cancel_leases("c-1")
        answer = await tuning.agents.SendHeartbeat(beat)
        assert list(answer.cancelled_lease_ids) == [lease.lease_id, "l-old"]

    async def test_a_heartbeat_is_remembered(self, tuning: Server) -> None:
        tuning.core.store.touch_device("id-pi4", 0.0)
        await tuning.agents.SendHeartbeat(pb.SendHeartbeatRequest(device_id="id-pi4"))
        assert tuning.core.store.get_device("pi4").last_seen_unix_s > 0

    async def test_hints_come_over_the_control_stream(self, tuning: Server) -> None:
        async with asyncio.timeout(PATIENCE_S):
            stream = tuning.agents.Control(pb.ControlRequest(device_id="id-pi4"))
            assert (await stream.read()).hint == pb.HINT_UNSPECIFIED
            tuning.core.bus.notify_work()
            assert (await stream.read()).hint == pb.HINT_WORK_AVAILABLE
            tuning.core.bus.notify_leases("id-other")
            tuning.core.bus.notify_leases("id-pi4")
            assert (await stream.read()).hint == pb.HINT_LEASE_CHANGED
            tuning.stop.set()
            assert (await stream.read()).hint == pb.HINT_STOPPING
            assert await stream.read() is grpc.aio.EOF

    async def test_the_control_stream_needs_a_registration(self, server: Server) -> None:
        stream = server.agents.Control(pb.ControlRequest(device_id="stranger"))
        assert (await failure_of(stream.read())).reason == "AGENT_UNKNOWN"

    async def test_agents_hear_of_work_when_a_lease_ends(self, tuning: Server) -> None:
        await tuning.register("twin")
        lease = (await acquire(tuning)).lease
        async with asyncio.timeout(PATIENCE_S):
            stream = tuning.agents.Control(pb.ControlRequest(device_id="id-twin"))
            assert (await stream.read()).hint == pb.HINT_UNSPECIFIED
            await tuning.agents.CompleteLease(completion(lease))
            assert (await stream.read()).hint == pb.HINT_WORK_AVAILABLE


@pytest.mark.parametrize("off_s", [-2 * 86400.0, 0.0, 2 * 86400.0])
async def test_a_clock_that_is_wrong_is_shown(server: Server, off_s: float) -> None:
    await server.register()
    heartbeat = pb.SendHeartbeatRequest(device_id="id-pi4", clock_unix_s=time.time() + off_s)
    await server.agents.SendHeartbeat(heartbeat)
    listed = await server.devices.ListDevices(user_service_pb2.ListDevicesRequest())
    assert listed.devices[0].clock_offset_s == pytest.approx(off_s, abs=PATIENCE_S)


async def test_a_report_that_there_is_no_memory_for_is_to_come_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.register()
    request = pb.ReportTrialsRequest(device_id="id-pi4", lease_id="l-1")
    await server.agents.ReportTrials(request)
    monkeypatch.setattr("coordinator.server.agents.service.MAX_TRIALS_WAITING", -1)
    failure = await failure_of(server.agents.ReportTrials(request))
    assert failure.reason == "RATE_LIMITED"
