"""Records in TenSet's format, written here: nothing of TenSet's own data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GRAPH = "0123456789abcdef0123456789abcdef"
KEY = json.dumps([GRAPH, 1, 56, 56, 64, 3, 3, 64, 64, 1, 56, 56, 64])
TARGET = "llvm -keys=cpu -link-params=0 -mcpu=skylake-avx512 -model=platinum-8272 -num-cores=16"
CUDA = "cuda -keys=cuda,gpu -arch=sm_37 -max_num_threads=1024 -thread_warp_size=32"


def tiled(lengths: Sequence[int] = (4, 2, 8), unroll: int = 64) -> list[list[Any]]:
    """A multiplication, tiled, with a local cache, as the sketch rules make it."""
    return [
        ["CI", 1],
        ["CHW", 2, "local"],
        ["SP", 2, 0, 512, list(lengths), 1],
        ["SP", 2, 4, 256, [16], 1],
        ["RE", 2, [0, 4, 1, 2, 5, 3]],
        ["FSP", 3, 0, 2, 2],
        ["CA", 2, 3, 1],
        ["FU", 3, [0, 1]],
        ["AN", 3, 0, 3],
        ["PR", 2, 0, f"auto_unroll_max_step${unroll}"],
        ["AN", 2, 5, 2],
    ]


def record(
    transform: Sequence[Any] | None = None,
    *,
    key: str = KEY,
    target: str = TARGET,
    costs: Sequence[float] = (0.002, 0.0022, 0.0018),
    error: int = 0,
) -> dict[str, Any]:
    """One record as an object."""
    steps = tiled() if transform is None else list(transform)
    return {
        "i": [[key, target, [16, 64, 64, 0, 0, 0, 0, 0], "", 1, []], [[], steps]],
        "r": [list(costs), error, 1.5, 1_626_295_478],
        "v": "v0.6",
    }


def write(place: Path, records: Sequence[dict[str, Any] | str]) -> Path:
    """Write lines, objects as JSON and texts as they are."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lines = [item if isinstance(item, str) else json.dumps(item) for item in records]
    place.write_text("".join(line + "\n" for line in lines))
    return place


def write_tenset(
    place: Path,
    *,
    tasks: int = 8,
    per_task: int = 15,
    devices: Sequence[str] = ("platinum-8272", "e5-2673"),
    broken: Sequence[str] = (),
) -> Path:
    """Write a ``dataset`` folder: programs are slower the larger the limit of their unrolling.

    Workload ``n`` is of the network ``net_N`` with N = n modulo 4; the first file of the first
    device ends with the broken lines.
    """
    info = place / "network_info"
    info.mkdir(parents=True)
    keys = [json.dumps([GRAPH, 1, 8 * (task + 1), 64]) for task in range(tasks)]
    for number in range(4):
        name = f"((net_{number},[(1,3,224,224)]),llvm).task.pkl"
        (info / name).write_text("\0".join(keys[number::4]))
    for device in devices:
        for task, key in enumerate(keys):
            lines: list[Any] = [
                record(
                    tiled(unroll=n),
                    key=key,
                    target=TARGET.replace("platinum-8272", device),
                    costs=[0.001 * (n + 1 + task), 0.001 * (n + 1 + task) * 1.01],
                )
                for n in range(per_task)
            ]
            if device == devices[0] and task == 0:
                lines += broken
            file = f"([{GRAPH},{task}],llvm).json"
            write(place / "measure_records" / device / file, lines)
    return place
