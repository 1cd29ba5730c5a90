"""The processes that search and measure are there when they are wanted, and gone when not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from processes import eventually

from agent.session.pace import Pace
from agent.session.workers import Workers


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    made = Workers(tmp_path, threads=1, pace=Pace(), idle_s=0.2)
    yield made
    await made.close()


def pids(workers: Workers) -> list[int]:
    return [p for p in (workers.searcher.pid, workers.measurer.pid) if p is not None]


async def test_both_start_at_once_and_end_without_work(workers: Workers) -> None:
    workers.warm_up()
    await eventually(lambda: len(pids(workers)) == 2, timeout_s=120)
    started = pids(workers)
    await eventually(lambda: not pids(workers), timeout_s=120)
    await eventually(lambda: not any(psutil.pid_exists(pid) for pid in started))


async def test_work_keeps_what_was_started_for_it(workers: Workers) -> None:
    workers.warm_up()
    async with workers.in_use():
        await eventually(lambda: len(pids(workers)) == 2, timeout_s=120)
        started = pids(workers)
        workers.warm_up()
        await Pace().sleep(1.0)
        assert pids(workers) == started
    await eventually(lambda: not pids(workers), timeout_s=120)


async def test_closing_ends_what_is_still_starting(workers: Workers) -> None:
    workers.warm_up()
    await eventually(lambda: workers.searcher.pid is not None, timeout_s=120)
    started = pids(workers)
    await workers.close()
    assert not pids(workers)
    await eventually(lambda: not any(psutil.pid_exists(pid) for pid in started))
