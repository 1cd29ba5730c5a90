"""Fetching a campaign's results: whole, checked, and only where they belong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from in_memory_fleet import InMemoryFleet, make_campaign, make_done, serving

from tunefleet.client import Reason, TuneFleet, TuneFleetError


@pytest.fixture
def served() -> Iterator[tuple[InMemoryFleet, TuneFleet]]:
    state = InMemoryFleet()
    with serving(state) as address, TuneFleet(address) as fleet:
        yield state, fleet


def test_files_lie_under_their_paths(served, tmp_path):
    state, fleet = served
    files = {"report.json": b"{}", "plots/latency.svg": b"<svg/>"}
    state.campaigns["c1"] = make_done(state.blobs, files, "c1")
    paths = fleet.campaign("c1").download(tmp_path / "out")
    assert {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in paths} == files


def test_broken_transfer_is_taken_up_where_it_broke(served, tmp_path):
    state, fleet = served
    content = bytes(range(256)) * 40
    state.campaigns["c1"] = make_done(state.blobs, {"lib.so": content}, "c1")
    state.break_after_bytes = 1000
    (path,) = fleet.campaign("c1").download(tmp_path)
    assert path.read_bytes() == content
    assert state.break_after_bytes is None


@pytest.mark.parametrize(
    "path", ["../evil", "/tmp/evil", "a/../../evil", "", ".", "C:\\evil", "a\\..\\..\\evil"]
)
def test_path_that_leads_elsewhere_is_refused(served, tmp_path, path):
    state, fleet = served
    state.campaigns["c1"] = make_done(state.blobs, {"good": b"1", path: b"evil"}, "c1")
    with pytest.raises(TuneFleetError) as caught:
        fleet.campaign("c1").download(tmp_path / "out")
    assert caught.value.reason is Reason.BLOB_CORRUPT
    assert not (tmp_path / "out").exists()


def test_link_that_leads_elsewhere_is_not_followed(served, tmp_path):
    state, fleet = served
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "plots").symlink_to(tmp_path / "elsewhere")
    state.campaigns["c1"] = make_done(state.blobs, {"plots/a.svg": b"evil"}, "c1")
    with pytest.raises(TuneFleetError):
        fleet.campaign("c1").download(tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_wrong_content_is_refused_and_leaves_nothing(served, tmp_path):
    state, fleet = served
    state.campaigns["c1"] = make_done(state.blobs, {"lib.so": b"right"}, "c1")
    state.blobs.update(dict.fromkeys(state.blobs, b"wrong"))
    with pytest.raises(TuneFleetError) as caught:
        fleet.campaign("c1").download(tmp_path / "out")
    assert caught.value.reason is Reason.BLOB_CORRUPT
    assert list((tmp_path / "out").iterdir()) == []


def test_file_that_is_there_is_not_fetched_again(served, tmp_path):
    state, fleet = served
    state.campaigns["c1"] = make_done(state.blobs, {"lib.so": b"right"}, "c1")
    (tmp_path / "lib.so").write_bytes(b"right")
    state.blobs.clear()
    (path,) = fleet.campaign("c1").download(tmp_path)
    assert path.read_bytes() == b"right"


def test_campaign_without_results_says_so(served, tmp_path):
    state, fleet = served
    state.campaigns["c1"] = make_campaign("c1")
    with pytest.raises(TuneFleetError, match="tuning") as caught:
        fleet.campaign("c1").download(tmp_path)
    assert caught.value.reason is Reason.CAMPAIGN_STATE
