"""Follows a campaign: a live view on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from tunefleet.cli.live_view import CampaignView
from tunefleet.errors import Reason, TuneFleetError

if TYPE_CHECKING:
    from rich.console import Console

    from tunefleet.client import Campaign, CampaignStatus

REFRESHES_PER_S = 4
PLAIN_INTERVAL_S = 5.0
"""Least time between plain lines while the state stays the same."""


def follow(campaign: Campaign, console: Console) -> None:
    """Show a campaign's progress until it has ended.

    Raises:
        TuneFleetError: INTERRUPTED, the person left with Ctrl-C and the campaign goes on;
            COORDINATOR_UNREACHABLE, it stayed away.
    """
    try:
        if console.is_terminal:
            _follow_live(campaign, console)
        else:
            PlainLines(console.print).follow(campaign)
    except KeyboardInterrupt as e:
        raise TuneFleetError(
            Reason.INTERRUPTED,
            f"left the view; the campaign {campaign.id} goes on",
            hint=f"Come back with `tunefleet campaigns watch {campaign.id}`, "
            f"end it with `tunefleet campaigns cancel {campaign.id}`.",
        ) from e


def _follow_live(campaign: Campaign, console: Console) -> None:
    view = CampaignView(campaign.status)
    with Live(view, console=console, refresh_per_second=REFRESHES_PER_S, transient=True):
        for status in campaign.watch(on_lost=view.connection_lost):
            view.update(status)
    console.print(str(campaign.status))


class PlainLines:
    """Prints a line when something has changed, but not too often."""

    def __init__(
        self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._last: CampaignStatus | None = None
        self._last_at = 0.0
        self._lost = False

    def follow(self, campaign: Campaign) -> None:
        """Print a campaign's progress until it has ended."""
        for status in campaign.watch(on_lost=self.connection_lost):
            self.update(status)

    def update(self, status: CampaignStatus) -> None:
        """Take a new status and print it if it is worth a line."""
        if self._lost:
            self._say("The coordinator is back.")
            self._lost = False
        last = self._last
        turned = last is None or (last.state, last.error) != (status.state, status.error)
        moved = last is not None and (last.trials, last.activity) != (
            status.trials,
            status.activity,
        )
        if turned or (moved and self._clock() - self._last_at >= PLAIN_INTERVAL_S):
            self._say(str(status))
            self._last, self._last_at = status, self._clock()

    def connection_lost(self, error: TuneFleetError) -> None:
        """Say once that the connection is lost; it is being opened again meanwhile."""
        if not self._lost:
            self._say(f"Connection lost ({error.message}); trying again. The campaign goes on.")
        self._lost = True


class TransferBar:
    """A progress bar for bytes, shown on terminals only."""

    def __init__(self, console: Console, title: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=None)

    def advance(self, done: int, total: int) -> None:
        """Show the bytes done and the bytes in all."""
        self._progress.update(self._task, completed=done, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


class ActivityBar:
    """Shows how far work is: a bar on a terminal, now and then a line anywhere else."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._last_at = -PLAIN_INTERVAL_S
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("waiting", total=1.0)

    def advance(self, share: float, activity: str) -> None:
        """Show the share done, 0 to 1, and what is being done."""
        if self._console.is_terminal:
            self._progress.update(self._task, completed=share, description=activity or "done")
        elif activity and self._clock() - self._last_at >= PLAIN_INTERVAL_S:
            self._console.print(f"{share:.0%} {activity}")
            self._last_at = self._clock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
