"""What people see while a campaign runs, drawn on a recorded terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from in_memory_fleet import make_campaign
from rich.console import Console

from tunefleet.cli.live_view import CampaignView
from tunefleet.cli.parsing import parse_duration, parse_shapes, parse_share
from tunefleet.cli.results import default_folder
from tunefleet.cli.watching import PlainLines
from tunefleet.client.messages import campaign_from_proto
from tunefleet.client.values import CampaignPurpose, CampaignStatus
from tunefleet.errors import Reason, TuneFleetError


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def status() -> CampaignStatus:
    return campaign_from_proto(make_campaign())


def draw(view: CampaignView, width: int = 110, height: int = 30) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width, height=height, markup=False)
    console.print(view)
    return console.export_text().splitlines()


def test_view_shows_progress_estimate_and_tasks(status):
    text = "\n".join(draw(CampaignView(status)))
    assert "40/100 trials" in text
    assert "network 10.0 ms  from 250 ms  25.0x faster" in text
    assert "measuring conv2d on box" in text
    assert "cost model v2" in text
    assert "conv2d" in text


def test_times_go_on_between_statuses(status):
    clock = Clock()
    view = CampaignView(status, clock)
    clock.now = 20.0
    text = "\n".join(draw(view))
    assert "tuning for 1 min 55 s" in text
    assert "to go 40 s" in text


def test_lost_connection_shows_until_the_next_status(status):
    view = CampaignView(status)
    view.connection_lost(TuneFleetError(Reason.COORDINATOR_UNREACHABLE, "gone"))
    assert any("connection lost, trying again" in line for line in draw(view))
    view.update(status)
    assert not any("connection lost" in line for line in draw(view))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (110, 30), (200, 50)])
def test_view_fits_the_terminal(status, width, height):
    second = replace(status.targets[0], target='{"kind":"llvm","mcpu":"haswell"}')
    tasks = [replace(status.tasks[0], name=f"conv2d_{i}" * 4) for i in range(40)]
    tasks += [replace(task, target=second.target) for task in tasks]
    busy = replace(
        status,
        targets=(status.targets[0], second),
        tasks=tuple(tasks),
        activity="measuring " * 30,
        time_limit_s=3600.0,
    )
    lines = draw(CampaignView(busy), width, height)
    assert len(lines) <= height - 1
    assert max(len(line) for line in lines) <= width


def test_target_without_an_estimate_counts_its_measured_tasks(status):
    target = replace(status.targets[0], estimated_latency_s=None)
    text = "\n".join(draw(CampaignView(replace(status, targets=(target,)))))
    assert "1 of 2 tasks measured so far" in text


def test_plain_lines_are_few_but_never_miss_a_change_of_state(status):
    clock, said = Clock(), list[str]()
    lines = PlainLines(said.append, clock)
    lines.update(status)
    lines.update(replace(status, activity="other"))
    clock.now = 6.0
    lines.update(replace(status, activity="third"))
    lines.update(replace(status, state=status.state.PAUSED))
    assert [line.split(",")[-1].strip() for line in said[:2]] == [status.activity, "third"]
    assert said[2].startswith("net paused")
    assert len(said) == 3


def test_plain_lines_tell_of_an_outage_once(status):
    said = list[str]()
    lines = PlainLines(said.append)
    lines.update(status)
    for _ in range(3):
        lines.connection_lost(TuneFleetError(Reason.COORDINATOR_UNREACHABLE, "gone"))
    lines.update(status)
    assert [line.split(" (")[0] for line in said[1:]] == [
        "Connection lost",
        "The coordinator is back.",
    ]


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.1%", 0.001), ("0.001", 0.001), ("0", 0), ("0%", 0), (" 2.5 %", 0.025), (".5", 0.5)],
)
def test_shares(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "1", "100%", "250%", "-1%", "nan", "1e-3", "a tenth"])
def test_shares_that_make_no_sense_are_refused_with_a_hint(text):
    with pytest.raises(TuneFleetError) as caught:
        parse_share(text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "0.1%" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "0s", "5d", "5m!", "s5"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(TuneFleetError) as caught:
        parse_duration(text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_shapes():
    given = ["data=1,3,224,224", "a:0=7", "x=y=1, 2"]
    assert parse_shapes(given) == {"data": (1, 3, 224, 224), "a:0": (7,), "x=y": (1, 2)}


@pytest.mark.parametrize("texts", [["x"], ["x="], ["=1"], ["x=1,"], ["x=0"], ["x=1", "x=2"]])
def test_what_is_no_shape_is_refused(texts):
    with pytest.raises(TuneFleetError):
        parse_shapes(texts)


def test_folder_for_results_stays_here_whatever_the_name(status):
    folder = default_folder(replace(status, name="../../etc/passwd"))
    assert folder.parts[0] == "tunefleet-out"
    assert len(folder.parts) == 2
    assert ".." not in folder.parts


def test_a_collection_collects_and_estimates_nothing(status):
    collecting = replace(status, purpose=CampaignPurpose.COLLECT)
    assert str(collecting).startswith("net collecting, 40/100 trials")
    text = "\n".join(draw(CampaignView(collecting, Clock())))
    assert "collecting for 1 min 35 s" in text
    assert "faster" not in text
    assert "tasks measured" not in text
