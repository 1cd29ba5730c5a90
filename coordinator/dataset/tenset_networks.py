"""Which networks TenSet's workloads come from, without unpickling anything.

TenSet lists the tasks of a network in ``network_info/((NAME,[(SHAPE)]),KIND).task.pkl``. Those are
pickles of objects that only TVM 0.8 has, and loading one would run whatever is in it. But a
workload key is a text with a hash in it that nothing else looks like, so the file is searched for
such texts and otherwise left alone. How often a network has a workload is not found that way: each
counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from coordinator.dataset.tenset import workload_hash

NETWORKS_FOLDER = "network_info"
_CHUNK_BYTES = 2**20
_LONGEST_KEY_BYTES = 8 * 1024
_FILE_NAME = re.compile(r"\(\(([A-Za-z0-9_.-]{1,64}),.*\),[a-z]+\)\.task\.pkl")
# As it is, or with the quotes escaped: a text within JSON.
_KEY = re.compile(rb'\[\\{0,3}"([0-9a-f]{32})\\{0,3}"((?:, ?-?[0-9]{1,12}){0,256})\]')


def find_networks(place: Path) -> dict[str, dict[str, int]]:
    """Find the networks of workloads.

    Args:
        place: where records are read from; ``NETWORKS_FOLDER`` is sought in it and beside it.

    Returns:
        By hash of the workload, the names of its networks (a network in several shapes is one
        network), each with 1. Empty where no such folder is found.
    """
    networks: dict[str, dict[str, int]] = {}
    for path in network_files(place):
        name = _FILE_NAME.fullmatch(path.name)
        if name is not None:
            for workload in set(_workloads(path)):
                networks.setdefault(workload, {})[name[1]] = 1
    return networks


def network_files(place: Path) -> list[Path]:
    """Find the files that tell of networks, empty where there are none.

    Args:
        place: see :func:`find_networks`.
    """
    place = place.absolute()
    for folder in (place, *place.parents[:3]):
        files = sorted((folder / NETWORKS_FOLDER).glob("*.task.pkl"))
        if files:
            return files
    return []


def _workloads(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        kept = b""
        while chunk := file.read(_CHUNK_BYTES):
            kept += chunk
            for key in _KEY.finditer(kept):
                numbers = [int(number) for number in key[2].split(b",")[1:]]
                yield workload_hash([key[1].decode(), *numbers])
            # A key that the next chunk completes begins in here.
            kept = kept[-_LONGEST_KEY_BYTES:]
