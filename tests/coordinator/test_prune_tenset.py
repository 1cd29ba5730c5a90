"""``tunefleet dataset prune`` on TenSet's files: what is kept stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_folders import train_small, write_model
from tenset_lines import record, tiled, write, write_tenset

from coordinator.study import prune_tenset
from coordinator.study.prune_job import prune_dataset
from coordinator.study.pruning import STRATEGIES
from coordinator.study.tenset_corpus import load_tenset
from tunefleet.cli.app import run
from tunefleet.cli.local_jobs import train_model
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock
from tunefleet.model_files import ONNX_FILE

BROKEN = ["{", '{"i": []}']
DEVICES = ("platinum-8272", "e5-2673")


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def tenset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tasks of fifteen records on each of two devices."""
    return write_tenset(tmp_path_factory.mktemp("tenset") / "dataset", broken=BROKEN)


@pytest.fixture(scope="module")
def of_steps(tenset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "of-steps"
    train_model(tenset, out, parent=None, seed=0, threads=1, epochs=1)
    return out / ONNX_FILE


def pruned(place: Path, out: Path, **changes: Any) -> dict[str, Any]:
    spec = {"place": str(place), "out_dir": str(out), "model": None}
    options = {"keep": 0.4, "strategy": "random", "seed": 0}
    return prune_dataset(spec | options | changes, lambda *_: None)


def refusal(place: Path, out: Path, **changes: Any) -> TuneFleetError:
    """Prune in vain; nothing may be left behind."""
    with pytest.raises(TuneFleetError) as raised:
        pruned(place, out, **changes)
    assert list(out.parent.glob("*out*")) == []
    return raised.value


def lines_by_file(place: Path) -> dict[str, list[bytes]]:
    files = sorted(place.rglob("*.json"))
    return {str(f.relative_to(place)): f.read_bytes().splitlines(keepends=True) for f in files}


def costs_s(line: bytes) -> float:
    return float(json.loads(line)["r"][0][0])


class TestWhatIsWritten:
    @pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "per_task_uniform"])
    def test_every_file_keeps_its_share_of_lines_as_they_are(
        self, strategy: str, tenset: Path, of_steps: Path, tmp_path: Path
    ) -> None:
        result = pruned(tenset, tmp_path / "out", strategy=strategy, model=str(of_steps))
        before, after = lines_by_file(tenset), lines_by_file(tmp_path / "out")
        assert after.keys() == before.keys()
        for name, lines in after.items():
            assert len(lines) == 6
            assert lines == [line for line in before[name] if line in set(lines)]
        assert (result["before"]["trials"], result["kept"]["trials"]) == (16 * 15, 16 * 6)
        assert result["left_out"] == {"a line that cannot be used": 2}
        assert "line 16" in result["unusable"]["named"][0]["where"]

    @pytest.mark.parametrize("strategy", ["label_stratified", "combined"])
    def test_the_fastest_stay(self, strategy: str, tenset: Path, tmp_path: Path) -> None:
        pruned(tenset, tmp_path / "out", strategy=strategy, keep=0.2)
        before, after = lines_by_file(tenset), lines_by_file(tmp_path / "out")
        for name, lines in after.items():
            fastest = sorted(before[name][:15], key=costs_s)[:2]
            assert set(fastest) <= set(lines)

    def test_it_can_be_read_as_what_it_was(self, tenset: Path, tmp_path: Path) -> None:
        result = pruned(tenset, tmp_path / "out")
        corpus, damage = load_tenset(tmp_path / "out")
        assert (len(corpus), damage.broken) == (96, 0)
        assert {key[2] for key in corpus.arrays.group_keys} == set(DEVICES)
        assert corpus.networks == ("net_0", "net_1", "net_2", "net_3")
        card = (tmp_path / "out" / "README.md").read_text()
        assert "96 of the 240 usable records of 8 workloads" in card
        assert "--strategy random --keep 0.4" in card
        written = sorted(str(p) for p in (tmp_path / "out").rglob("*") if p.is_file())
        assert result["files"] == written

    @pytest.mark.parametrize("part", ["measure_records", "measure_records/e5-2673", None])
    def test_a_part_of_it_keeps_its_devices_and_networks(
        self, part: str | None, tenset: Path, tmp_path: Path
    ) -> None:
        place = tenset / part if part else next((tenset / "measure_records/e5-2673").iterdir())
        pruned(place, tmp_path / "out")
        corpus, _ = load_tenset(tmp_path / "out")
        devices = set(DEVICES) if part == "measure_records" else {"e5-2673"}
        assert {key[2] for key in corpus.arrays.group_keys} == devices
        assert set(corpus.networks) <= {"net_0", "net_1", "net_2", "net_3"}
        assert corpus.networks

    def test_the_seed_decides_and_files_differ(self, tenset: Path, tmp_path: Path) -> None:
        for number, seed in enumerate((0, 0, 1)):
            pruned(tenset, tmp_path / f"out-{number}", seed=seed)
        kept = [lines_by_file(tmp_path / f"out-{number}") for number in range(3)]
        assert kept[0] == kept[1] != kept[2]
        unrolled = [[json.loads(x)["i"][1][1][9] for x in lines] for lines in kept[0].values()]
        assert any(each != unrolled[0] for each in unrolled)

    def test_two_records_of_a_task_stay(self, tenset: Path, tmp_path: Path) -> None:
        pruned(tenset, tmp_path / "out", keep=0.01)
        assert {len(lines) for lines in lines_by_file(tmp_path / "out").values()} == {2}

    def test_a_large_file_is_pruned_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prune_tenset, "_ROWS_AT_ONCE", 256)
        many = [record(tiled(unroll=n)) for n in range(600)]
        place = write(tmp_path / "some" / "t4" / "a.json", many)
        result = pruned(place, tmp_path / "out", keep=0.5)
        assert (result["before"]["trials"], result["kept"]["trials"]) == (600, 300)
        [lines] = lines_by_file(tmp_path / "out").values()
        assert len(lines) == 300


class TestRefusals:
    def test_a_strategy_that_divides_among_tasks_is_refused(
        self, tenset: Path, tmp_path: Path
    ) -> None:
        error = refusal(tenset, tmp_path / "out", strategy="per_task_uniform")
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "divides records among tasks" in error.message
        assert "--strategy random" in error.hint

    def test_a_model_for_stores_is_refused(self, tenset: Path, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        write_model(folder / "made", train_small(MachineLock(folder / "lock")))
        model = str(folder / "made" / ONNX_FILE)
        error = refusal(tenset, tmp_path / "out", strategy="uncertain", model=model)
        assert error.reason is Reason.MODEL_INVALID
        assert "(stores)" in error.message

    def test_uncertainty_needs_a_model(self, tenset: Path, tmp_path: Path) -> None:
        error = refusal(tenset, tmp_path / "out", strategy="uncertain")
        assert "--model" in error.hint

    def test_nothing_but_damage_is_refused(self, tmp_path: Path) -> None:
        place = write(tmp_path / "some" / "a" / "b.json", BROKEN).parent
        error = refusal(place, tmp_path / "out")
        assert error.reason is Reason.DATASET_INVALID
        assert "line 1" in error.message


def test_people_see_what_was_kept_and_what_is_broken(
    tenset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "prune", str(tenset), str(tmp_path / "out"), "--keep", "0.2"]) == 0
    shown = capsys.readouterr().out
    for told in (
        *("48 of 240 trials (20.0%)", "2 of what was read could not be used", "net_0"),
        "files more",
    ):
        assert told in shown
