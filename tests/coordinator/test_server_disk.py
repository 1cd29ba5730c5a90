"""A coordinator whose disk is nearly full begins nothing new, and loses nothing of what runs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_harness import Server, failure_of, running_server
from store_samples import KEY, campaign, task, trial

from coordinator.server.disk import LEAST_FREE_BYTES, DiskGuard
from coordinator.state.home import Home
from coordinator.state.sql import open_store
from scripts.benches.chaos_disk import SmallDisk
from tunefleet.conversions import trial_to_proto
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.leases import RoundSpec
from tunefleet.v1 import agent_service_pb2, blob_service_pb2, lease_pb2, user_service_pb2

ROUND = RoundSpec(KEY.workload, "1" * 64, KEY.target, trials=8, seed=1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with a device and two rounds to lease."""
    async with running_server(tmp_path) as started:
        await started.register(target=KEY.target)
        started.core.store.create_campaign(campaign(), "")
        started.core.store.add_tasks("c-1", [task()])
        started.planner.works += [ROUND, replace(ROUND, seed=2)]
        yield started


def leave(server: Server, free_bytes: int) -> None:
    """Have so much room left on the disk."""
    server.core.disk.free_bytes = lambda _: free_bytes


async def acquire(server: Server) -> Any:
    request = agent_service_pb2.AcquireLeaseRequest(device_id="id-pi4")
    return await server.agents.AcquireLease(request)


async def test_no_new_work_is_leased_until_there_is_room(server: Server) -> None:
    leave(server, LEAST_FREE_BYTES - 1)
    failure = await failure_of(acquire(server))
    assert (failure.reason, failure.code) == ("DISK_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "255 MiB left" in failure.message
    leave(server, LEAST_FREE_BYTES)
    assert (await acquire(server)).HasField("lease")


async def test_what_runs_can_end(server: Server) -> None:
    lease = (await acquire(server)).lease
    leave(server, 0)
    assert (await acquire(server)).lease.lease_id == lease.lease_id, "it is held already"
    names = {"device_id": "id-pi4", "lease_id": lease.lease_id}
    token = lease.fencing_token
    reported = await server.agents.ReportTrials(
        agent_service_pb2.ReportTrialsRequest(
            **names, fencing_token=token, trials=[trial_to_proto(trial(1, lease.lease_id))]
        )
    )
    assert len(reported.stored_trial_ids) == 1
    done = lease_pb2.LEASE_OUTCOME_DONE
    await server.agents.CompleteLease(
        agent_service_pb2.CompleteLeaseRequest(**names, fencing_token=token, outcome=done)
    )
    assert (await failure_of(acquire(server))).reason == "DISK_FULL"


async def test_neither_campaigns_nor_blobs_are_taken_in(server: Server) -> None:
    leave(server, 0)
    created = server.campaigns.CreateCampaign(user_service_pb2.CreateCampaignRequest())
    assert (await failure_of(created)).reason == "DISK_FULL"
    content = b"a model"
    digest = hashlib.sha256(content).hexdigest()

    async def chunks() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
        yield blob_service_pb2.PutBlobRequest(digest=digest, chunk=content)

    assert (await failure_of(server.blobs.PutBlob(chunks()))).reason == "DISK_FULL"
    assert not server.core.blobs.has(digest)


def test_the_disk_of_the_folder_is_what_counts(tmp_path: Path) -> None:
    DiskGuard(tmp_path, least_free_bytes=1).require_room()
    with pytest.raises(TuneFleetError, match="left"):
        DiskGuard(tmp_path, least_free_bytes=2**62).require_room()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of its own below the test's folder."""
    folder = tmp_path / "home"
    try:
        yield SmallDisk(folder, size_mib=300)
    except OSError as e:
        pytest.skip(f"no disk may be mounted here: {e}")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)


@pytest.mark.parametrize("before", ["nothing", "a home"])
def test_one_that_is_started_on_a_full_disk_says_so(
    small_disk: SmallDisk, tmp_path: Path, before: str
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    if before == "a home":
        open_store(home.database_url).close()
    small_disk.fill()
    command = [sys.executable, "-m", "coordinator", "--home", home.root, "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == Reason.DISK_FULL.value.exit_code
    assert done.stderr.splitlines()[-1] == "Make room, then start it again."
