"""The search worker as the agent sees it: a process that outlives every bad request."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.search.client import Searcher
from agent.search.messages import ErrorKind, Request, SearchError
from tests.agent.search_fixtures import HARDWARE, TARGET, Workload, elementwise, write_model
from tunefleet.leases import RoundSpec, SearchPolicy
from tunefleet.machine_lock import MachineLock

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def addition(folder: Path) -> Workload:
    return elementwise(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def searcher(folder: Path) -> AsyncIterator[Searcher]:
    """A client whose worker, which takes seconds to start, serves test after test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEFLEET_LOCK_DIR", str(folder / "lock"))
        searcher = Searcher(folder / "search.log", timeout_s=120)
        yield searcher
        await searcher.close()


def request_for(
    workload: Workload, model: Path | None = None, hardware: tuple[float, ...] = HARDWARE
) -> Request:
    work = RoundSpec(
        workload=workload.name,
        workload_digest="",
        target=TARGET,
        trials=2,
        seed=1,
        search=SearchPolicy(population=8, generations=1),
    )
    return Request(workload.path, model, hardware, 2, work)


async def test_bad_requests_are_refused_and_the_worker_lives(
    searcher: Searcher, addition: Workload, tmp_path: Path
) -> None:
    assert (await searcher.propose(request_for(addition))).candidates
    pid = searcher.pid

    wrong_model = write_model(tmp_path / "m.onnx", feature=3, golden_error=1.0)
    wrong_workload = Workload("0" * 16, tmp_path / "missing.json")
    kinds = []
    for request in (
        request_for(addition, model=wrong_model),
        request_for(wrong_workload),
        request_for(addition, hardware=(1.0,)),
    ):
        with pytest.raises(SearchError) as refused:
            await searcher.propose(request)
        kinds.append(refused.value.kind)
    assert kinds == [ErrorKind.MODEL, ErrorKind.WORKLOAD, ErrorKind.REQUEST]

    good = write_model(tmp_path / "good.onnx", feature=3)
    assert (await searcher.propose(request_for(addition, good))).model_version == "stand-in"
    assert searcher.pid == pid


async def test_a_worker_killed_between_rounds_is_replaced(
    searcher: Searcher, addition: Workload
) -> None:
    first = await searcher.propose(request_for(addition))
    assert searcher.pid is not None
    os.kill(searcher.pid, signal.SIGKILL)
    assert (await searcher.propose(request_for(addition))).candidates == first.candidates


async def test_no_search_while_something_is_timed(
    searcher: Searcher, addition: Workload, folder: Path
) -> None:
    await searcher.propose(request_for(addition))
    with MachineLock(folder / "lock").quiet():
        search = asyncio.create_task(searcher.propose(request_for(addition)))
        done, _ = await asyncio.wait({search}, timeout=0.5)
        assert not done
    assert (await search).stats.seconds["wait"] > 0.1


async def test_a_search_that_takes_too_long_is_ended(addition: Workload, tmp_path: Path) -> None:
    hasty = Searcher(tmp_path / "hasty.log", timeout_s=0.05)
    with pytest.raises(SearchError) as ended:
        await hasty.propose(request_for(addition))
    assert ended.value.kind is ErrorKind.TIMEOUT
    assert hasty.pid is None


async def test_the_agents_side_imports_neither_tvm_nor_numpy() -> None:
    code = (
        "import sys, agent.search.client; print(sorted({'tvm','numpy','onnxruntime','torch'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_worker_loads_tvm_and_not_torch(searcher: Searcher, addition: Workload) -> None:
    await searcher.propose(request_for(addition))
    loaded = Path(f"/proc/{searcher.pid}/maps").read_text()
    assert ("libtvm" in loaded, "libtorch" in loaded) == (True, False)
