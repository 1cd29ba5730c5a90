"""What all tests share: a machine of their own, and the shipped dataset, read or cut down once."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coordinator.study.corpus import Corpus

SHIPPED = Path(__file__).parents[1] / "datasets" / "zen4-one-core"


@pytest.fixture(scope="session", autouse=True)
def own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep clear of whatever else of TuneFleet works on this machine: tests that time something
    would wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_text() -> Iterator[None]:
    """Ask for plain text, and never touch a person's credentials; tests of security undo it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEFLEET_INSECURE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def heeded_interrupts() -> None:
    """Where a shell starts the tests in the background, their processes would ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shipped() -> Corpus:
    """The whole shipped dataset, which takes seconds to read; nobody may change it."""
    from coordinator.study.corpus import load_corpus

    return load_corpus(SHIPPED)


@pytest.fixture(scope="session")
def some_shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every twentieth workload of the shipped dataset with all its 2,106 trials, as a dataset."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("shipped") / "some"
    folder.mkdir()
    shutil.copy(SHIPPED / "devices.parquet", folder)
    tables = {
        name: pq.read_table(SHIPPED / name) for name in ("workloads.parquet", "trials.parquet")
    }
    chosen = pa.array(sorted(tables["workloads.parquet"]["workload"].unique().to_pylist())[::20])
    for name, table in tables.items():
        pq.write_table(table.filter(pc.is_in(table["workload"], chosen)), folder / name)
    return folder
