"""What reads files of others, each with sound ones to begin with: the fuzzer damages these.

Every reader is called as the jobs call it. What it may raise is what a job tells its user by name;
anything else would be told as an error of our own.
"""

# ruff: noqa: PLC0415 - what a reader needs is imported where it runs, in a process of its own

from __future__ import annotations

import json
import math
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benches.fuzz_home import DEVICES, TARGET, prepare, profile
from tunefleet.errors import TuneFleetError

_STEPS: list[list[Any]] = [
    ["GetSBlock", [], ["matmul", "main"], ["b0"]],
    ["GetLoops", ["b0"], [], ["l1", "l2"]],
    ["SamplePerfectTile", ["l1"], [2, 64], ["v3", "v4"]],
    ["Split", ["l1", "v3", "v4"], [True, False], ["l5", "l6"]],
    ["Annotate", ["l5"], ["meta_schedule.unroll_explicit"], []],
]
TRACE = json.dumps([_STEPS, [[2, [8, 4]]]])


@dataclass(frozen=True)
class Subject:
    """A reader."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    """Makes sound files."""
    read: Callable[[Path], None]
    """Reads a file."""
    expected: tuple[type[Exception], ...] = (TuneFleetError,)
    """What it raises for a file that cannot be used."""
    json_lines: bool = False
    """Whether the values of JSON in it are worth changing."""
    may_crash: bool = False
    """Whether it is code of others that is known to die of some files: its job dies alone."""
    share: float = 1.0
    """Of the inputs, beside others' 1."""


def subjects() -> list[Subject]:
    """List every reader."""
    return [
        Subject("trace", lambda _: [TRACE.encode(), b"[[],[]]"], _trace, (ValueError,), True),
        Subject(
            "target", lambda _: [TARGET.encode(), b"llvm -mcpu=a"], _target, (ValueError,), True
        ),
        Subject("profile", lambda _: [profile().to_json().encode()], _profile, (ValueError,), True),
        Subject("row", lambda _: [json.dumps(_row()).encode()], _checked_row, (ValueError,), True),
        Subject("tenset", lambda _: [_tenset_line()], _tenset, json_lines=True),
        Subject("parquet", _parquet, _trials),
        Subject("backup", _backup, _restore, json_lines=True, share=0.1),
        Subject("onnx", _onnx, _read_onnx, may_crash=True, share=0.3),
        Subject("cost model", _onnx, _check_graph, may_crash=True, share=0.3),
        Subject("checkpoint", _npz, _checkpoint, share=0.3),
        Subject("torch program", _torch, _program, may_crash=True, share=0.03),
        Subject("TIR", _tir, _tir_module, (Exception,), True, may_crash=True, share=0.3),
    ]


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def _trace(path: Path) -> None:
    from coordinator.dataset.checks import check_trace
    from tunefleet.schedules.trace import trace_steps

    trace_steps(check_trace(_text(path)))


def _target(path: Path) -> None:
    from tunefleet.targets import canonical_target, target_cores, target_simd_bits

    target = canonical_target(_text(path))
    target_cores(target)
    target_simd_bits(target, profile())


def _profile(path: Path) -> None:
    from coordinator.dataset.checks import profile_fingerprint
    from tunefleet.conversions import profile_to_proto
    from tunefleet.devices import DeviceProfile
    from tunefleet.features import hardware_vector

    profile_fingerprint(_text(path))
    read = DeviceProfile.from_json(_text(path))
    # What was let through must be usable.
    profile_to_proto(read)
    assert all(math.isnan(v) or math.isfinite(v) for v in hardware_vector(read, TARGET))


def _row() -> dict[str, Any]:
    from coordinator.dataset.writing import trial_row

    row = trial_row(_record(), profile().to_json())
    del row["features"]
    return {key: value for key, value in row.items() if not isinstance(value, bytes)}


def _record() -> Any:
    from coordinator.state.records import TaskKey
    from coordinator.state.trial_records import TrialRecord
    from tunefleet.features import PROGRAM_FEATURES_PER_STORE
    from tunefleet.trials import Conditions, ProgramFeatures, Trial, Verdict

    width = PROGRAM_FEATURES_PER_STORE
    trial = Trial(
        *("a" * 32, "l-1", "0" * 16, TRACE, Verdict.OK, (0.1, 0.2, 0.3)),
        features=ProgramFeatures(1, struct.pack(f"<{width}f", *[1.0] * width)),
        conditions=Conditions(clock_mhz=3000.0, attempts=1, throttled=False),
    )
    key = TaskKey("0" * 16, TARGET, profile().fingerprint())
    return TrialRecord(key, DEVICES[0], "c-1", "conv2d", {"net": 1}, trial)


def _checked_row(path: Path) -> None:
    from coordinator.dataset.checks import read_trial
    from coordinator.state.sql_ingest import trial_values
    from tunefleet.conversions import trial_to_proto

    try:
        row = json.loads(_text(path))
    except RecursionError:
        return  # it stands for a row of a table, which is no JSON
    if not isinstance(row, dict) or _row().keys() - row.keys():
        return  # a table has all columns
    typed = {name: _as_in_a_table(name, value) for name, value in row.items()}
    record, _ = read_trial(typed, b"")
    # What was let through must be usable.
    json.dumps(trial_values(record.trial), allow_nan=False)
    trial_to_proto(record.trial)
    assert all(0 <= weight < 2**31 for weight in record.sources.values())


def _as_in_a_table(name: str, value: Any) -> Any:
    """Give a value the type that its column has; files of other types are refused as a whole."""
    kind = type(_row()[name]) if name in _row() else str
    if name == "samples_s" and isinstance(value, list):
        return [float(v) if isinstance(v, float) else None for v in value]
    return value if isinstance(value, kind) or value is None else None


def _tenset_line() -> bytes:
    key = json.dumps(["0" * 32, 1, 56, 56, 64, 3, 3, 64, 64, 1, 56, 56, 64])
    steps = [
        ["CI", 1],
        ["SP", 2, 0, 512, [4, 2, 8], 1],
        ["RE", 2, [0, 4, 1, 2, 5, 3]],
        ["FSP", 3, 0, 2, 2],
        ["AN", 3, 0, 3],
        ["PR", 2, 0, "auto_unroll_max_step$64"],
    ]
    task = [key, "llvm -mcpu=skylake-avx512 -num-cores=16", [16, 64, 64, 0, 0, 0, 0, 0], "", 1, []]
    return json.dumps(
        {"i": [task, [[], steps]], "r": [[0.1, 0.2], 0, 1.5, 1], "v": "v0.6"}
    ).encode()


def _tenset(path: Path) -> None:
    from coordinator.dataset.tenset import BrokenLine, Damage, read_tenset

    for row in read_tenset(path, Damage()):
        if not isinstance(row, BrokenLine):
            row.steps()
            row.candidate()
            assert row.latency_s is None or row.latency_s > 0
            _ = row.noise


def _parquet(folder: Path) -> list[bytes]:
    from coordinator.dataset.schema import About
    from coordinator.dataset.writing import trial_row, trials_writer

    path = folder / "trials.parquet"
    with trials_writer(path, About()) as table:
        for _ in range(3):
            table.add(trial_row(_record(), profile().to_json()))
    return [path.read_bytes()]


def _trials(path: Path) -> None:
    from coordinator.dataset.reading import open_trials, read_trials

    for _ in read_trials(open_trials(path)):
        pass


def _backup(folder: Path) -> list[bytes]:
    from coordinator.state.backup import back_up
    from coordinator.state.home import Home

    for leftover in ("home", "backup"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    home = Home(folder / "home")
    prepare(home)
    back_up(home, folder / "backup", lambda *_: None, now=0.0)
    return [(folder / "backup" / n).read_bytes() for n in ("backup.json", "tunefleet.db")]


def _restore(path: Path) -> None:
    from coordinator.state.backup import restore
    from coordinator.state.home import Home

    place, home = path.parent / "damaged", path.parent / "restored"
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(path.parent / "backup", place)
    data = path.read_bytes()
    (place / ("tunefleet.db" if len(data) > 10_000 else "backup.json")).write_bytes(data)
    restore(place, Home(home), lambda *_: None)


def _onnx(_: Path) -> list[bytes]:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [weight],
    )
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return [made.SerializeToString()]


def _read_onnx(path: Path) -> None:
    from coordinator.models.onnx_network import fix_inputs, prepare_graph, read_onnx

    model = read_onnx(path, path.name)
    fix_inputs(model, {})
    prepare_graph(model, path.name)


def _check_graph(path: Path) -> None:
    from coordinator.costmodel.check_job import check_graph

    check_graph(path)


def _npz(_: Path) -> list[bytes]:
    from coordinator.costmodel.base_model import base_folder
    from tunefleet.model_files import CHECKPOINT_FILE

    base = base_folder()
    return [] if base is None else [(base / CHECKPOINT_FILE).read_bytes()]


def _checkpoint(path: Path) -> None:
    from coordinator.costmodel.check_job import load_checkpoint

    load_checkpoint(path)


def _torch(folder: Path) -> list[bytes]:
    import torch

    program = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(1, 3),))
    torch.export.save(program, folder / "seed.pt2")
    return [(folder / "seed.pt2").read_bytes()]


def _program(path: Path) -> None:
    from coordinator.models.torch_archive import load_program

    load_program(path)


def _tir(_: Path) -> list[bytes]:
    import tvm
    from tvm import te

    a = te.placeholder((8,), name="a")
    function = te.create_prim_func([a, te.compute((8,), lambda i: a[i] + 1.0, name="b")])
    return [tvm.ir.save_json(tvm.IRModule({"main": function})).encode()]


def _tir_module(path: Path) -> None:
    import tvm

    from coordinator.models.tasks import estimated_flops, workload_name

    # Whatever it raises, the import of a database says of a workload that it cannot be read.
    module = tvm.ir.load_json(_text(path))
    if isinstance(module, tvm.ir.IRModule):
        workload_name(module)
        estimated_flops(module)


_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**400, 1e308, -1e308, math.nan, math.inf, "", "\0"),
    *("\ud800", "../../x", "9" * 5000, "x" * 70_000, [], {}, [[]], "true", [None] * 3, {"a": {}}),
)


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, repeat or drop some values within JSON; what is no JSON is returned as it is."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _changed(value, rng)
    return json.dumps(value).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.03:
        return rng.choice(_ODD)
    if isinstance(value, dict) and value:
        return _changed_object(value, rng)
    if isinstance(value, list) and value:
        return _changed_list(value, rng)
    if isinstance(value, str) and rng.random() < 0.3:
        inner = change_json(value.encode(errors="replace"), rng).decode(errors="replace")
        return inner if inner != value else rng.choice(_ODD)
    return rng.choice(_ODD)


def _changed_object(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    key = rng.choice(list(value))
    how = rng.random()
    if how < 0.1:
        return {k: v for k, v in value.items() if k != key}
    if how < 0.15:
        return value | {rng.choice(("", "\ud800", "x" * 300, "\0", key + "x")): rng.choice(_ODD)}
    return value | {key: _changed(value[key], rng)}


def _changed_list(value: list[Any], rng: random.Random) -> list[Any]:
    at = rng.randrange(len(value))
    how = rng.random()
    if how < 0.1:
        return value[:at] + value[at + 1 :]
    if how < 0.2:
        return value + value[at : at + 1] * rng.choice((1, 2, 2000))
    return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]


def deep(rng: random.Random) -> bytes:
    """Return JSON that is nested deeper than any parser likes."""
    depth = rng.choice((100, 1_000, 5_000, 100_000))
    return rng.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth))
