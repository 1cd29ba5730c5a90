"""``tunefleet drain`` and ``tunefleet devices drain`` against a real coordinator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from server_harness import PATIENCE_S, Server, running_server
from store_samples import KEY, campaign, task

from coordinator.state.records import LeaseState
from tunefleet.cli import drain
from tunefleet.cli.app import run
from tunefleet.errors import Reason
from tunefleet.leases import RoundSpec
from tunefleet.v1 import agent_service_pb2 as pb

ROUND = RoundSpec(KEY.workload, "1" * 64, KEY.target, trials=8, seed=1)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server of which a device is at work on a round."""
    monkeypatch.setattr(drain, "LOOK_INTERVAL_S", 0.01)
    async with running_server(tmp_path) as started:
        await started.register("pi4", target=KEY.target)
        started.core.store.create_campaign(campaign(), "")
        started.core.store.add_tasks("c-1", [task()])
        started.planner.works.append(ROUND)
        await acquire(started)
        yield started


async def acquire(server: Server) -> Any:
    return await server.agents.AcquireLease(pb.AcquireLeaseRequest(device_id="id-pi4"))


def end_round(server: Server) -> None:
    [lease] = server.core.drain.active()
    server.core.store.end_lease(lease.lease_id, lease.fencing_token, LeaseState.DONE)


async def command(server: Server, *arguments: str) -> int:
    return await asyncio.to_thread(run, [*arguments, "--coordinator", server.address])


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the JSON object that a command printed; the server here logs to the same place."""
    out = capsys.readouterr().out
    return json.loads(out[out.index("{\n") :])


async def test_drain_waits_for_the_rounds_under_way(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    draining = asyncio.create_task(command(server, "drain", "--timeout", f"{PATIENCE_S:.0f}s"))
    while not server.core.drain.on:
        await asyncio.sleep(0.01)
    end_round(server)
    assert await draining == 0
    assert "The coordinator is drained" in capsys.readouterr().out


async def test_drain_gives_up_in_time_and_stays_drained(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command(server, "drain", "--timeout", "0.1s") == Reason.TIMED_OUT.value.exit_code
    told = capsys.readouterr().err
    assert "Waiting for 1 round under way on pi4" in told
    assert server.core.drain.on
    assert await command(server, "drain", "--resume") == 0
    assert not server.core.drain.on


async def test_drain_tells_scripts_what_the_coordinator_is(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    end_round(server)
    assert await command(server, "drain", "--format", "json") == 0
    found = printed(capsys)["coordinator"]
    assert (found["draining"], found["active_leases"]) == (True, 0)


async def test_a_device_is_drained_and_given_work_again(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command(server, "devices", "drain", "pi4") == 0
    assert "Device pi4 is draining." in capsys.readouterr().out
    end_round(server)
    assert await command(server, "devices", "drain", "pi4", "--wait", "1m") == 0
    assert "Device pi4 is drained." in capsys.readouterr().out
    assert await command(server, "devices", "undrain", "pi4") == 0
    assert "Device pi4 is online." in capsys.readouterr().out


async def test_devices_tell_how_much_waits_on_them(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    await server.agents.SendHeartbeat(
        pb.SendHeartbeatRequest(
            device_id="id-pi4", outbox_trials=1234, outbox_bytes=2**28, outbox_limit_bytes=2**29
        )
    )
    assert await command(server, "devices", "list") == 0
    assert "1,234 (50%)" in capsys.readouterr().out
    assert await command(server, "devices", "show", "pi4") == 0
    assert "1,234 trials, 256 MiB of 512 MiB" in " ".join(capsys.readouterr().out.split())
