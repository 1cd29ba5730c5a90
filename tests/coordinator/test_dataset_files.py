"""Datasets as files: what is written comes back, and what is wrong is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_samples import KEY, NOW, PROFILE, campaign, device, lease, task, trial

from coordinator.dataset.export_job import export_dataset
from coordinator.dataset.reading import (
    Refused,
    find_parts,
    open_trials,
    read_devices,
    read_trials,
    read_workloads,
)
from coordinator.dataset.schema import TRIAL_COLUMNS, About
from coordinator.dataset.stats_job import dataset_stats
from coordinator.dataset.writing import ROW_GROUP_TRIALS, trial_row, trials_writer
from coordinator.state.blobs import BlobStore
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from coordinator.state.trial_records import ProfileRecord, TrialRecord
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import PROGRAM_FEATURES_PER_STORE
from tunefleet.trials import Conditions, ProgramFeatures, Trial, Verdict


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(url(tmp_path))
    opened.put_device(device())
    opened.create_campaign(campaign(), "")
    opened.grant_lease(lease())
    yield opened
    opened.close()


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def export(folder: Path, **changes: Any) -> dict[str, Any]:
    """Export everything in the folder's store to ``out``."""
    spec = {
        "database_url": url(folder),
        "blobs_dir": str(folder / "blobs"),
        "out_dir": str(folder / "out"),
        "campaign_ids": [],
        "targets": [],
        "device_ids": [],
        "features": True,
    }
    return export_dataset(spec | changes, lambda *_: None)


def record(number: int, **changes: Any) -> TrialRecord:
    made = trial(number, **changes)
    return TrialRecord(KEY, "id-pi4", "c-1", "conv2d", {"resnet50": 2}, made)


def written(folder: Path, *records: TrialRecord) -> Path:
    path = folder / "trials.parquet"
    with trials_writer(path, About()) as table:
        for each in records:
            table.add(trial_row(each, PROFILE.to_json()))
    return path


def read(path: Path) -> list[TrialRecord | Refused]:
    rows = [row for batch in read_trials(open_trials(path)) for row in batch]
    return [row if isinstance(row, Refused) else row[0] for row in rows]


ODD_VALUES = struct.pack("<4f", -0.0, 1e-45, 3.4028235e38, 0.1)


def odd_features(stores: int) -> ProgramFeatures:
    """Make features of which other encodings would lose a bit."""
    values = ODD_VALUES * (stores * PROGRAM_FEATURES_PER_STORE // 4)
    return ProgramFeatures(stores, values)


FULL = record(
    1,
    error="slow\nand odd: ü",
    features=odd_features(3),
    explored=True,
    build_s=0.125,
    run_s=1 / 3,
    started_at_unix_s=NOW + 1 / 7,
    conditions=Conditions(clock_mhz=1e3 / 7, memory_available_bytes=2**40),
)
BARE = record(
    2,
    verdict=Verdict.BUILD_ERROR,
    samples_s=(),
    features=None,
    predicted=None,
    model_version="",
)


class TestRoundTrip:
    def test_every_field_and_every_bit_comes_back(self, tmp_path: Path) -> None:
        assert read(written(tmp_path, FULL, BARE)) == [FULL, BARE]

    def test_row_groups_of_many_trials_come_back_in_order(self, tmp_path: Path) -> None:
        many = [record(n, features=odd_features(n % 4 + 1)) for n in range(1, 2500)]
        path = written(tmp_path, *many)
        assert read(path) == many
        assert pq.ParquetFile(path).metadata.num_row_groups == 1 + 2499 // ROW_GROUP_TRIALS

    def test_an_export_holds_trials_workloads_devices_and_a_card(
        self, store: Store, tmp_path: Path
    ) -> None:
        digest = BlobStore(tmp_path / "blobs").put(b'{"the": "module"}')
        known = replace(task(), workload_digest=digest, sources={"resnet50": 2})
        store.add_tasks("c-1", [known, replace(known, key=replace(KEY, workload="b" * 16))])
        store.ingest_trials("id-pi4", "l-1", 1, [trial(1), trial(2)], NOW)
        export(tmp_path, licence="CC-BY-4.0", description="Two trials.")
        parts = find_parts(tmp_path / "out")
        assert parts.workloads is not None
        assert parts.devices is not None
        assert read(parts.trials[0]) == [record(1), record(2)]
        [(workload, module)] = read_workloads(parts.workloads)
        assert (workload.workload, workload.name, module) == (
            KEY.workload,
            "conv2d",
            '{"the": "module"}',
        )
        assert list(read_devices(parts.devices)) == [ProfileRecord("id-pi4", "pi4", PROFILE)]
        card = (tmp_path / "out" / "README.md").read_text()
        for told in ("CC-BY-4.0", "Two trials.", "resnet50", "znver4", "Some CPU"):
            assert told in card

    def test_features_are_left_out_on_request(self, store: Store, tmp_path: Path) -> None:
        store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        export(tmp_path, features=False)
        (row,) = read(tmp_path / "out" / "trials.parquet")
        assert isinstance(row, TrialRecord)
        assert row.trial == trial(1, features=None)

    def test_an_export_of_nothing_is_refused(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(TuneFleetError, match="nothing to export") as raised:
            export(tmp_path)
        assert raised.value.reason is Reason.DATASET_INVALID

    def test_a_workload_whose_module_is_gone_does_not_spoil_the_rest(
        self, store: Store, tmp_path: Path
    ) -> None:
        store.add_tasks("c-1", [task()])
        store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        export(tmp_path)
        [(_, module)] = read_workloads(tmp_path / "out" / "workloads.parquet")
        assert module is None

    def test_forty_thousand_trials_would_stay_far_below_twenty_megabytes(
        self, tmp_path: Path
    ) -> None:
        # The real size is measured on real trials; this catches an encoding that went astray.
        path = written(tmp_path, *[record(n, features=odd_features(4)) for n in range(1, 2001)])
        assert path.stat().st_size * 20 < 8e6


def rewritten(path: Path, column: str, values: list[Any]) -> Path:
    """Write a table of trials again with other values in one column."""
    table = pq.read_table(path)
    kind = TRIAL_COLUMNS.field(column).type
    table = table.set_column(table.column_names.index(column), column, pa.array(values, kind))
    pq.write_table(table, path)
    return path


class TestBadRows:
    @pytest.mark.parametrize(
        ("column", "value", "why"),
        [
            ("samples_s", [1e-3, -1e-3], "positive time"),
            ("samples_s", [float("nan")], "positive time"),
            ("samples_s", [], "needs samples"),
            ("samples_s", None, "samples are missing"),
            ("verdict", "great", "verdict"),
            ("features", [float("nan")] * 172, "finite"),
            ("features", [1.0] * 171, "171 feature values"),
            ("features", [1.0] * 172 * 33, "at most 32"),
            ("features", [None] * 172, "feature values"),
            ("trace", "{}", "list of instructions"),
            ("trace", "not json", "not JSON"),
            ("trace", "[" * 100_000, "not JSON"),
            ("candidate", "xyz", "16 hex digits"),
            ("workload", None, "16 hex digits"),
            ("target", '{"kind": "llvm"}', "canonical"),
            ("target", "", "empty"),
            ("fingerprint", "0" * 16, "fingerprint"),
            ("device_id", "../etc", "plain characters"),
            ("device_id", "a b", "plain characters"),
            ("device_profile", "[]", "profile"),
            ("predicted", float("inf"), "predicted"),
            ("build_s", -1.0, "build_s"),
            ("started_at_unix_s", 1e300, "started_at"),
            ("conditions", '{"clock_mhz": "fast"}', "clock_mhz"),
            ("conditions", '{"clock_mhz": NaN}', "clock_mhz"),
            ("sources", '{"a": "b"}', "weight"),
            ("error", "x" * 70_000, "error"),
            ("trial_id", "", "trial_id"),
        ],
    )
    def test_a_bad_row_is_named_and_the_others_stay(
        self, tmp_path: Path, column: str, value: Any, why: str
    ) -> None:
        path = written(tmp_path, record(1), record(2))
        kept = pq.read_table(path)[column][1].as_py()
        bad, good = read(rewritten(path, column, [value, kept]))
        assert good == record(2)
        assert isinstance(bad, Refused)
        assert why in bad.why
        assert bad.name == (trial(1).trial_id if column != "trial_id" else "row 0")

    def test_what_is_stored_without_arrow_types_may_not_be_text(self, tmp_path: Path) -> None:
        path = written(tmp_path, record(1), record(2))
        table = pq.read_table(path)
        raw = pa.array([b"\xff\xfe", b"fine"], pa.binary())
        broken = pa.StringArray.from_buffers(2, *raw.buffers()[1:])
        at = table.column_names.index("error")
        pq.write_table(table.set_column(at, "error", broken), path)
        bad, good = read(path)
        assert isinstance(bad, Refused)
        assert "UTF-8" in bad.why
        assert isinstance(good, TrialRecord)

    def test_what_a_newer_release_noted_besides_is_ignored(self, tmp_path: Path) -> None:
        path = written(tmp_path, record(1))
        conditions = '{"phase_of_the_moon": 3}'
        (row,) = read(rewritten(path, "conditions", [conditions]))
        assert row == record(1)


def refusal_of(path: Path) -> str:
    with pytest.raises(TuneFleetError) as raised:
        read(path)
    assert raised.value.reason is Reason.DATASET_INVALID
    return raised.value.message


class TestBadFiles:
    def test_a_file_of_another_version_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, record(1))
        table = pq.read_table(path)
        metadata = {**table.schema.metadata, b"tunefleet.dataset": b"99"}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        assert "version 99" in refusal_of(path)

    def test_a_file_of_somebody_elses_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.parquet"
        pq.write_table(pa.table({"a": [1]}), path)
        assert "tunefleet dataset export" in refusal_of(path)

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, share: float) -> None:
        path = written(tmp_path, *[record(n) for n in range(1, 100)])
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "not a whole Parquet file" in refusal_of(path)

    def test_a_spoilt_page_is_noticed(self, tmp_path: Path) -> None:
        path = written(tmp_path, *[record(n) for n in range(1, 100)])
        content = bytearray(path.read_bytes())
        traces = pq.ParquetFile(path).metadata.row_group(0).column(9)
        content[traces.data_page_offset + traces.total_compressed_size - 20] ^= 0xFF
        path.write_bytes(content)
        assert "damaged" in refusal_of(path)

    def test_a_column_whose_name_is_no_text_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, record(1))
        path.write_bytes(path.read_bytes().replace(b"trial_id", b"trial_\xff\xfe"))
        with pytest.raises(TuneFleetError) as raised:
            open_trials(path)
        assert raised.value.reason is Reason.DATASET_INVALID

    def test_a_missing_column_and_a_wrong_type_are_named(self, tmp_path: Path) -> None:
        path = written(tmp_path, record(1))
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["trace"]), path)
        assert "no column trace" in refusal_of(path)
        at = table.column_names.index("build_s")
        pq.write_table(table.set_column(at, "build_s", pa.array(["soon"])), path)
        assert "string in the column build_s" in refusal_of(path)

    def test_a_folder_without_trials_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TuneFleetError, match=r"holds no trials\.parquet"):
            find_parts(tmp_path)

    def test_an_extension_type_comes_as_what_it_is_stored_as(self, tmp_path: Path) -> None:
        path = written(tmp_path, record(1))
        table = pq.read_table(path)
        at = table.column_names.index("error")
        marked = pa.field("error", pa.string(), metadata={"ARROW:extension:name": "evil.pickle"})
        pq.write_table(table.set_column(at, marked, table["error"]), path)
        assert read(path) == [record(1)]


class TestStats:
    def test_a_folder_is_counted_and_checked(self, tmp_path: Path) -> None:
        path = written(tmp_path, record(1), record(3), BARE)
        rewritten(path, "build_s", [None, -1.0, None])
        counted = dataset_stats({"place": str(tmp_path)}, lambda *_: None)
        assert (counted["trials"], counted["measured"], counted["featured"]) == (2, 1, 1)
        assert counted["verdicts"] == {"ok": 1, "build_error": 1}
        assert (counted["rejected"], list(counted["refusals"])) == (1, ["build_s is -1.0 s"])
        assert [s["name"] for s in counted["sources"]] == ["resnet50"]
        assert json.loads(json.dumps(counted)) == counted

    def test_a_trial_without_samples_counts_without_a_latency(self) -> None:
        assert Trial("t", "l", "0" * 16, "[[],[]]", Verdict.LOST).latency_s is None
