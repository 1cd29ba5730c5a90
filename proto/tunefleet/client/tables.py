"""Tables that notebooks show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TypeVar

from tunefleet.client.values import CampaignStatus, Device, ModelVersion
from tunefleet.client.wording import ago, factor, latency, short_target

ItemT = TypeVar("ItemT")


class Listing(tuple[ItemT, ...]):
    """A tuple that a notebook shows as a table."""

    _to_html: Callable[[Sequence[ItemT]], str]

    def __new__(
        cls, items: Iterable[ItemT], to_html: Callable[[Sequence[ItemT]], str]
    ) -> Listing[ItemT]:
        """Collect items, with the function that turns them into an HTML table."""
        listing = super().__new__(cls, items)
        listing._to_html = to_html
        return listing

    def _repr_html_(self) -> str:
        return self._to_html(self)


def campaigns_html(campaigns: Sequence[CampaignStatus]) -> str:
    """Return an HTML table of campaigns."""
    return _table(
        ("id", "name", "state", "trials", "created"),
        (
            (c.campaign_id, c.name, c.state, f"{c.trials}/{c.trials_wanted}", ago(c.created_at))
            for c in campaigns
        ),
    )


def campaign_html(status: CampaignStatus) -> str:
    """Return a campaign as HTML: one line, and tables of its targets and tasks."""
    targets = _table(
        ("target", "devices", "trials", "estimated", "speedup", "measured"),
        (
            (
                short_target(t.target),
                ", ".join(t.devices),
                f"{t.trials}/{t.trials_wanted}",
                latency(t.estimated_latency_s),
                factor(t.estimated_speedup),
                ", ".join(f"{name} {latency(s)}" for name, s in t.benchmark_s.items()),
            )
            for t in status.targets
        ),
    )
    tasks = _table(
        ("task", "weight", "trials", "baseline", "best", "speedup"),
        (
            (
                t.name,
                t.weight,
                t.trials,
                latency(t.baseline_s),
                latency(t.best_s),
                factor(t.speedup),
            )
            for t in status.tasks
        ),
    )
    return f"<p><b>{escape(status.campaign_id)}</b> {escape(str(status))}</p>{targets}{tasks}"


def devices_html(devices: Sequence[Device]) -> str:
    """Return an HTML table of devices."""
    return _table(
        ("name", "state", "CPU", "cores", "target", "trials", "last seen"),
        (
            (
                d.name,
                d.state,
                d.profile.cpu_model or d.profile.arch,
                d.profile.logical_cores,
                short_target(d.target),
                d.trials,
                ago(d.last_seen),
            )
            for d in devices
        ),
    )


def models_html(versions: Sequence[ModelVersion]) -> str:
    """Return an HTML table of versions of the cost model."""
    return _table(
        ("version", "parent", "current", "trials", "metrics", "made"),
        (
            (
                v.version,
                v.parent,
                "yes" if v.current else "",
                v.trials,
                ", ".join(f"{name} {value:.3g}" for name, value in v.metrics.items()),
                ago(v.created_at),
            )
            for v in versions
        ),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
