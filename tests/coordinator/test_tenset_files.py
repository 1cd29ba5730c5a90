"""TenSet's files: read line by line, what is broken counted and named."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenset_lines import CUDA, GRAPH, KEY, TARGET, record, tiled, write

from coordinator.dataset import tenset
from coordinator.dataset.tenset import BrokenLine, Damage, TensetRow, read_tenset, workload_hash
from coordinator.dataset.tenset_networks import find_networks
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Verdict

TASK = f"([{GRAPH},1,56],llvm).json"


def read(place: Path) -> tuple[list[TensetRow], Damage]:
    damage = Damage()
    found = list(read_tenset(place, damage))
    broken = [item for item in found if isinstance(item, BrokenLine)]
    assert (len(broken), broken[: tenset.MAX_NAMED]) == (damage.broken, damage.named)
    return [item for item in found if isinstance(item, TensetRow)], damage


def read_one(folder: Path, **changes: Any) -> TensetRow:
    rows, damage = read(write(folder / "platinum-8272" / TASK, [record(**changes)]))
    assert damage == Damage(lines=1)
    return rows[0]


def test_a_record_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "measure_records" / "platinum-8272" / TASK, [record()])
    [row], damage = read(tmp_path)
    assert damage == Damage(lines=1)
    assert row.place == f"measure_records/platinum-8272/{TASK}:1"
    assert row.device == "platinum-8272"
    assert json.loads(row.target)["mcpu"] == "skylake-avx512"
    assert row.workload == workload_hash(json.loads(KEY))
    assert row.verdict is Verdict.OK
    assert row.latency_s == pytest.approx(0.002)
    assert row.noise == pytest.approx(0.1)
    assert [step.kind for step in row.steps()][:3] == ["workload", "workload", "compute_inline"]


def test_the_device_is_the_folder_whatever_was_given(tmp_path: Path) -> None:
    path = write(tmp_path / "t4" / TASK, [record(target=CUDA)])
    for place in (path, path.parent, tmp_path):
        rows, _ = read(place)
        assert [row.device for row in rows] == ["t4"]


def test_a_program_has_one_name_on_all_devices(tmp_path: Path) -> None:
    names = {
        read_one(tmp_path / name, target=target).candidate()
        for name, target in [("cpu", TARGET), ("gpu", CUDA)]
    }
    spaced = KEY.replace(", ", ",  ")
    names.add(read_one(tmp_path / "spaced", key=spaced).candidate())
    assert len(names) == 1
    assert read_one(tmp_path / "tiles", transform=tiled((4, 4, 4))).candidate() not in names
    assert read_one(tmp_path / "shape", key=KEY.replace("56", "28")).candidate() not in names


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (1, Verdict.BUILD_ERROR),
        (2, Verdict.BUILD_ERROR),
        (4, Verdict.RUNTIME_ERROR),
        (6, Verdict.BUILD_ERROR),
        (7, Verdict.TIMEOUT),
        (8, Verdict.RUNTIME_ERROR),
        (0, Verdict.RUNTIME_ERROR),
    ],
)
def test_what_failed_has_no_latency(tmp_path: Path, error: int, verdict: Verdict) -> None:
    row = read_one(tmp_path, costs=[1e10], error=error)
    assert row.verdict is verdict
    assert row.latency_s is None
    assert math.isnan(row.noise)


def test_the_format_before_version_0_6_is_read_too(tmp_path: Path) -> None:
    old = record()
    old["i"][0] = old["i"][0][:2]
    rows, damage = read(write(tmp_path / "k80" / TASK, [old]))
    assert (len(rows), damage.broken) == (1, 0)


def changed(path: str, value: Any) -> str:
    """A record with something else at a path such as ``r.0``."""
    whole: Any = record()
    *before, final = [int(key) if key.isdecimal() else key for key in path.split(".")]
    part = whole
    for key in before:
        part = part[key]
    part[final] = value
    return json.dumps(whole)


BROKEN = [
    ("{", "Expecting property name"),
    ("[]", "no record"),
    ('{"i": []}', "no record"),
    ("\udcff", "utf-8"),
    ("[" * 50_000, "nested too deeply"),
    ("x" * (tenset.MAX_LINE_BYTES + 5), "longer than"),
    (changed("i", 3), "the input is no list"),
    (changed("i.0", [KEY]), "the task is no list"),
    (changed("i.0.0", 3), "the workload key is missing"),
    (changed("i.0.0", "x" * 10_000), "too long"),
    (changed("i.0.0", '{"a": 1}'), "does not begin with a name"),
    (changed("i.0.1", ""), "the target is empty"),
    (changed("i.0.1", "llvm -num-cores=many"), "num-cores must be"),
    (changed("i.0.1", '{"kind": "llvm"}'), "TVM 0.8"),
    (changed("i.1.1", "CI"), "no list"),
    (changed("i.1.1.0", ["SP", 1]), "has not the items 'iiili'"),
    (changed("r", []), "the result is no list"),
    (changed("r.0", "fast"), "the costs are missing"),
    (changed("r.0", []), "neither costs nor an error"),
    (changed("r.0", [0.0]), "not a positive time"),
    (changed("r.0", [math.nan]), "NaN"),
    (changed("r.0", [10**400]), "not a positive time"),
    (changed("r.1", None), "the error number"),
]


@pytest.mark.parametrize(("line", "why"), BROKEN)
def test_a_broken_line_is_named_and_the_others_are_read(
    tmp_path: Path, line: str, why: str
) -> None:
    good = json.dumps(record())
    path = tmp_path / "graviton2" / TASK
    path.parent.mkdir()
    path.write_text("\n".join([good, line, good]), errors="surrogateescape")
    rows, damage = read(path.parent)
    assert [row.place for row in rows] == [f"{TASK}:1", f"{TASK}:3"]
    assert (damage.lines, damage.broken) == (3, 1)
    [named] = damage.named
    assert (named.file, named.line) == (TASK, 2)
    assert why in named.why


def test_all_damage_is_counted_and_the_first_of_it_named(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.json", ["{"] * 15)
    write(tmp_path / "a" / "2.json", [record(), *["{"] * 15])
    (tmp_path / "a" / "3.json").mkdir()
    rows, damage = read(tmp_path)
    assert len(rows) == 1
    assert (damage.lines, damage.broken) == (31, 31)
    assert len(damage.named) == tenset.MAX_NAMED
    assert damage.named[-1] == BrokenLine("a/2.json", 6, damage.named[0].why)


def test_a_file_that_cannot_be_read_is_damage_too(tmp_path: Path) -> None:
    (tmp_path / "3.json").mkdir()
    rows, damage = read(tmp_path)
    assert rows == []
    assert [(item.file, item.line) for item in damage.named] == [("3.json", 0)]


def test_empty_lines_and_comments_are_no_damage(tmp_path: Path) -> None:
    rows, damage = read(write(tmp_path / "a" / TASK, ["", "# a comment", record(), "  "]))
    assert (len(rows), damage) == (1, Damage(lines=1))


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuneFleetError) as raised:
        read(tmp_path)
    assert raised.value.reason is Reason.DATASET_INVALID


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
PATHS = st.sampled_from(
    ["i", "i.0", "i.1", "r", "i.0.0", "i.0.1", "i.1.1", "i.1.1.2", "i.1.1.2.4", "r.0", "r.0.1"]
)
GARBAGE = (
    st.binary(max_size=80)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(PATHS, JSON).map(lambda pair: changed(*pair).encode())
    | st.integers(0, 600).map(lambda length: json.dumps(record()).encode()[:length])
)


@settings(deadline=None, max_examples=60)
@given(st.lists(GARBAGE, max_size=6))
def test_no_garbage_stops_the_reader(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "a.json"
    path.write_bytes(b"\n".join(lines))
    rows, damage = read(path)
    for row in rows:
        row.candidate()
        row.steps()
    assert len(rows) + damage.broken == damage.lines <= sum(line.count(b"\n") + 1 for line in lines)


def test_a_long_file_is_read_in_little_memory(tmp_path: Path) -> None:
    lines = 1_500
    path = tmp_path / "a" / TASK
    path.parent.mkdir()
    template = json.dumps(record(tiled() * 3))
    with path.open("w") as file:
        file.writelines(template.replace(" 512,", f" {512 + n},") + "\n" for n in range(lines))
    damage = Damage()
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_tenset(path, damage))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (count, damage.broken) == (lines, 0)
    assert path.stat().st_size > 3 * 2**19
    assert peak < 2**18


def test_networks_are_found_without_unpickling(tmp_path: Path) -> None:
    info = tmp_path / "network_info"
    info.mkdir()
    key = f'["{GRAPH}", 8, -1, 32]'
    escaped = f'["{GRAPH}", 7]'.replace('"', '\\"')
    filler = "x" * (2**20 - 20)  # A key lies across the border of two chunks.
    (info / "((resnet_50,[(1,3,224,224)]),llvm).task.pkl").write_text(filler + key + "\0")
    (info / "((resnet_50,[(8,3,224,224)]),llvm).task.pkl").write_text(escaped)
    (info / "((bert_base,[(1,128)]),cuda).task.pkl").write_text(f'{key} ["short", 1]')
    (info / "all_tasks.pkl").write_text(f'["{GRAPH}", 9]')
    records = write(tmp_path / "measure_records" / "t4" / TASK, [record()])
    expected = {
        workload_hash([GRAPH, 8, -1, 32]): {"resnet_50": 1, "bert_base": 1},
        workload_hash([GRAPH, 7]): {"resnet_50": 1},
    }
    for place in (tmp_path, tmp_path / "measure_records", records.parent, records):
        assert find_networks(place) == expected


def test_without_network_info_nothing_is_said(tmp_path: Path) -> None:
    assert find_networks(tmp_path) == {}
