"""A fleet for each test module, and a small network to tune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, write_small_network


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A running coordinator without agents; everything is ended after the test."""
    made = Fleet(tmp_path)
    made.start_coordinator()
    yield made
    made.close()


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with two convolutions, pooling and a dense layer."""
    return write_small_network(tmp_path_factory.mktemp("model") / "small.onnx")
