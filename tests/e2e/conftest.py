"""A fleet for each test, and a small network to tune."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.profile.cache import Measurement
from agent.profile.profiler import measure_profile
from agent.profile.static import read_static_profile
from tests.e2e.fleet import Fleet, write_small_network


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    """What this machine measures of itself, which takes it seconds."""
    static, home = read_static_profile(), tmp_path_factory.mktemp("measured")
    profile = asyncio.run(measure_profile(static, home, None))
    assert profile.measured is not None
    return Measurement(profile.measured, profile.llvm_cpu)


@pytest.fixture
def fleet(tmp_path: Path, measured: Measurement) -> Iterator[Fleet]:
    """A running coordinator; its agents know this machine; everything is ended after the test."""
    made = Fleet(tmp_path, measured)
    made.start_coordinator()
    yield made
    made.close()


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with two convolutions, pooling and a dense layer."""
    return write_small_network(tmp_path_factory.mktemp("model") / "small.onnx")
