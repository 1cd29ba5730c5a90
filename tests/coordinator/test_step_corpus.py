"""Corpora of schedule steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_samples import PROFILE
from tenset_lines import CUDA, KEY, TARGET, record, tiled, write

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.dataset import is_held_out
from coordinator.costmodel.steps import KINDS, MAX_STEPS, STEP_FEATURES, encode
from coordinator.study.corpus import Corpus, load_corpus
from coordinator.study.step_corpus import step_arrays
from coordinator.study.tenset_corpus import load_tenset
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import HARDWARE_FEATURES, hardware_vector
from tunefleet.schedules.trace import trace_steps
from tunefleet.targets import canonical_target


@pytest.fixture(scope="module")
def sample(some_shipped: Path) -> Corpus:
    """A few rows of a dataset, not in its order."""
    corpus = load_corpus(some_shipped)
    return corpus.take(np.random.default_rng(1).permutation(len(corpus))[:200])


@pytest.fixture(scope="module")
def arrays(some_shipped: Path, sample: Corpus) -> RowArrays:
    return step_arrays(some_shipped, sample)


def test_steps_stand_in_place_of_stores_row_by_row(
    some_shipped: Path, sample: Corpus, arrays: RowArrays
) -> None:
    traces = traces_of(some_shipped)
    assert arrays.features.shape == (arrays.stores.sum(), STEP_FEATURES)
    assert arrays.stores.max() <= MAX_STEPS
    for row, trial_id in enumerate(sample.trial_ids):
        first, count = arrays.first_store[row], arrays.stores[row]
        expected = encode(trace_steps(traces[trial_id]))
        np.testing.assert_array_equal(arrays.features[first : first + count], expected)
    for name in ("log_latency", "group", "candidate", "hardware", "held_out", "weight"):
        np.testing.assert_array_equal(getattr(arrays, name), getattr(sample.arrays, name))


def traces_of(place: Path) -> dict[str, str]:
    table = pq.read_table(place / "trials.parquet", columns=["trial_id", "trace"]).to_pydict()
    return dict(zip(table["trial_id"], table["trace"], strict=True))


def test_model_inputs_have_the_width_of_steps(arrays: RowArrays) -> None:
    rows = np.array([5, 2, 11])
    features, mask, hardware = arrays.padded(rows)
    assert features.shape == (3, arrays.stores[rows].max(), STEP_FEATURES)
    np.testing.assert_array_equal(mask.sum(axis=1), arrays.stores[rows])
    assert hardware.shape == (3, len(HARDWARE_FEATURES))
    for whole, part in zip((features, mask), arrays.take(rows).padded(np.arange(3)), strict=False):
        np.testing.assert_array_equal(whole, part)


def test_a_corpus_of_another_dataset_is_refused(some_shipped: Path, sample: Corpus) -> None:
    one = sample.take(np.array([0]))
    stranger = Corpus(**{**vars(one), "trial_ids": ("of-nobody",)})
    with pytest.raises(TuneFleetError, match="lacks 1 trials") as raised:
        step_arrays(some_shipped, stranger)
    assert raised.value.reason is Reason.DATASET_INVALID


def folder(tmp_path: Path, per_task: int = 30) -> Path:
    """Two devices, two tasks each, one broken line."""
    for device, target in [("platinum-8272", TARGET), ("t4", CUDA)]:
        for number, key in enumerate([KEY, KEY.replace("56", "28")]):
            lines: list[Any] = [
                record(tiled(unroll=n), key=key, target=target, costs=[0.001 * (n + 1)])
                for n in range(per_task)
            ]
            write(tmp_path / "measure_records" / device / f"{number}.json", [*lines, "{"])
    return tmp_path


def test_a_sample_of_each_task_is_kept(tmp_path: Path) -> None:
    corpus, damage = load_tenset(folder(tmp_path), per_task=7)
    assert (damage.lines, damage.broken) == (4 * 31, 4)
    assert len(corpus) == 4 * 7
    assert (len(corpus.workloads), len(corpus.targets)) == (2, 2)
    assert {key[2] for key in corpus.arrays.group_keys} == {"platinum-8272", "t4"}
    assert np.bincount(corpus.arrays.group).tolist() == [7, 7, 7, 7]
    for row in range(len(corpus)):
        workload, target, _ = corpus.arrays.group_keys[corpus.arrays.group[row]]
        assert corpus.workloads[corpus.workload[row]] == workload
        assert corpus.targets[corpus.target[row]] == target
    assert len(set(corpus.trial_ids)) == len(corpus)


def test_a_row_is_the_line_it_is_named_after(tmp_path: Path) -> None:
    corpus, _ = load_tenset(folder(tmp_path), per_task=7)
    lines = [int(name.rpartition(":")[2]) for name in corpus.trial_ids]
    np.testing.assert_allclose(np.exp(corpus.arrays.log_latency), [0.001 * n for n in lines])
    # One step of each program is the limit of unrolling, which is the line's number less one.
    unroll = corpus.arrays.features[:, KINDS.index("auto_unroll")] == 1.0
    limits = corpus.arrays.features[unroll, len(KINDS) + 1 + 3]
    np.testing.assert_allclose(limits, np.log2(lines), rtol=1e-6)


def test_equal_seeds_sample_equally_and_others_do_not(tmp_path: Path) -> None:
    place = folder(tmp_path)
    names = [load_tenset(place, per_task=7, seed=seed)[0].trial_ids for seed in (1, 1, 2)]
    assert names[0] == names[1]
    assert names[0] != names[2]


def test_every_line_has_the_same_chance(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "b.json", [record(tiled(unroll=n)) for n in range(20)])
    drawn = [
        int(name.rpartition(":")[2]) - 1
        for seed in range(200)
        for name in load_tenset(path, per_task=5, seed=seed)[0].trial_ids
    ]
    counts = np.bincount(drawn, minlength=20)
    # 200 draws of one in four: 50 each, with a standard deviation of 6.
    assert counts.sum() == 1_000
    assert 25 < counts.min() <= counts.max() < 75


def test_a_device_is_described_by_whoever_knows_it(tmp_path: Path) -> None:
    corpus, _ = load_tenset(folder(tmp_path), profiles={"platinum-8272": PROFILE}, per_task=2)
    devices = np.array([corpus.arrays.group_keys[group][2] for group in corpus.arrays.group])
    known = corpus.arrays.hardware[devices == "platinum-8272"]
    expected = np.array(hardware_vector(PROFILE, canonical_target(TARGET)), np.float32)
    np.testing.assert_array_equal(known, np.tile(expected, (len(known), 1)))
    assert np.isnan(corpus.arrays.hardware[devices == "t4"]).all()


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[float] = []
    load_tenset(folder(tmp_path), per_task=1, progress=lambda share, _: told.append(share))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_failures_are_kept_without_latency(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "b.json", [record(), record(costs=[1e10], error=7)])
    corpus, _ = load_tenset(path)
    assert corpus.measured().tolist() == [True, False]


def test_equal_programs_are_held_out_on_every_device(tmp_path: Path) -> None:
    corpus, _ = load_tenset(folder(tmp_path), per_task=30)
    held_out = corpus.arrays.held_out.reshape(4, 30)
    np.testing.assert_array_equal(held_out[:2], held_out[2:])
    assert 0 < held_out.sum() < held_out.size
    assert is_held_out(f"{int(corpus.arrays.candidate[held_out.ravel()][0]):x}")


def test_networks_become_sources(tmp_path: Path) -> None:
    place = folder(tmp_path)
    info = place / "network_info"
    info.mkdir()
    (info / "((vgg_16,[(1,3,224,224)]),llvm).task.pkl").write_text(KEY)
    corpus, _ = load_tenset(place, per_task=1)
    assert [dict(sources) for sources in corpus.sources] == [{"vgg_16": 1}, {}]
    assert corpus.networks == ("vgg_16",)


def test_nothing_but_damage_is_refused_with_the_first_of_it(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b.json", ["{"])
    with pytest.raises(TuneFleetError, match=r"a/b.json, line 1") as raised:
        load_tenset(tmp_path)
    assert raised.value.reason is Reason.DATASET_INVALID
