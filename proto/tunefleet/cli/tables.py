"""Tables and details of campaigns, devices and cost models, as rich renderables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunefleet.client import CampaignStatus, Device, ModelVersion
from tunefleet.client.wording import ago, duration, short_target, size
from tunefleet.devices import MeasuredProfile

STATE_STYLES = {
    "importing": "cyan",
    "tuning": "bold cyan",
    "paused": "yellow",
    "finishing": "cyan",
    "done": "bold green",
    "failed": "bold red",
    "cancelled": "dim",
    "online": "bold green",
    "offline": "red",
    "profiling": "cyan",
    "quarantined": "bold yellow",
    "imported": "dim",
    "draining": "yellow",
    "drained": "yellow",
}

_JUDGED_BY = {
    "pca_heldout": "held-out PCA",
    "pca_parent_heldout": "parent's",
    "top1": "top-1",
    "top5": "top-5",
}
"""Metrics shown in listings; `model show` has them all."""

_MEASURED_LABELS = {
    "gflops_single_core": ("compute, one core", "GFLOP/s"),
    "gflops_all_cores": ("compute, all cores", "GFLOP/s"),
    "bandwidth_l1_gbs": ("bandwidth L1", "GB/s"),
    "bandwidth_l2_gbs": ("bandwidth L2", "GB/s"),
    "bandwidth_l3_gbs": ("bandwidth L3", "GB/s"),
    "bandwidth_memory_gbs": ("bandwidth memory, one core", "GB/s"),
    "bandwidth_memory_all_cores_gbs": ("bandwidth memory, all cores", "GB/s"),
    "parallel_launch_us": ("parallel loop start", "µs"),
}


def make_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Make an empty table; the columns named in ``right`` hold numbers."""
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        title_justify="left",
        title_style="bold cyan",
    )
    numbers = frozenset(right)
    for column in columns:
        number = column in numbers
        table.add_column(
            column, justify="right" if number else "left", no_wrap=number, overflow="ellipsis"
        )
    return table


def state_text(state: str) -> Text:
    """Colour the name of a state."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def campaigns_table(campaigns: Sequence[CampaignStatus]) -> Table:
    """Make a table of campaigns."""
    table = make_table(
        "id", "name", "state", "trials", "devices", "created", "tuning time", right=("trials",)
    )
    for c in campaigns:
        table.add_row(
            c.campaign_id,
            c.name,
            state_text(c.state),
            f"{c.trials}/{c.trials_wanted or '?'}",
            ", ".join(c.devices) or "-",
            ago(c.created_at),
            duration(c.tuning_s),
        )
    return table


def devices_table(devices: Sequence[Device]) -> Table:
    """Make a table of devices."""
    table = make_table(
        *("name", "state", "CPU", "cores", "target", "trials", "unsent", "seen"),
        right=("cores", "trials", "unsent"),
    )
    for d in devices:
        table.add_row(
            d.name,
            state_text(d.state),
            d.profile.cpu_model or d.profile.arch,
            str(d.profile.logical_cores),
            short_target(d.target),
            f"{d.trials:,}",
            _unsent(d),
            ago(d.last_seen),
        )
    return table


def models_table(versions: Sequence[ModelVersion]) -> Table:
    """Make a table of versions of the cost model, with what they are judged by."""
    table = make_table(
        *("version", "parent", "in use", "trials", *_JUDGED_BY.values(), "trained in", "made"),
        right=("trials", *_JUDGED_BY.values()),
    )
    for v in versions:
        values = [f"{v.metrics[m]:.3f}" if m in v.metrics else "-" for m in _JUDGED_BY]
        in_use = "yes" if v.current else _not_in_use(v)
        table.add_row(
            *(v.version, v.parent or "-", in_use, f"{v.trials:,}" if v.trials else "-", *values),
            *(duration(v.training_s) if v.training_s else "-", ago(v.created_at)),
            style="" if v.current else "dim",
        )
    return table


def _not_in_use(version: ModelVersion) -> str:
    if version.rolled_back:
        return "rolled back"
    return "" if version.promoted else "no"


def device_details(device: Device) -> RenderableType:
    """Make a sheet of everything known of a device."""
    profile = device.profile
    clock = None if profile.clock_max_mhz is None else f"{profile.clock_max_mhz:,.0f} MHz"
    simd = None if profile.simd_bits is None else f"{profile.simd_bits} bits"
    about = details(
        ("name", device.name),
        ("id", device.device_id),
        ("state", state_text(device.state)),
        ("quarantine", _quarantine(device)),
        ("drained", "yes, it gets no more work" if device.draining else "no"),
        ("last seen", ago(device.last_seen)),
        ("trials", f"{device.trials:,}"),
        ("not sent yet", _outbox(device)),
        ("clock", _clock(device)),
        ("labels", ", ".join(f"{k}={v}" for k, v in device.labels.items()) or "none"),
        ("target", device.target or None),
        ("fingerprint", device.fingerprint),
        ("agent", device.agent_version or None),
    )
    hardware = details(
        ("architecture", profile.arch),
        ("CPU", profile.cpu_model),
        ("LLVM's name", profile.llvm_cpu),
        ("SIMD width", simd),
        ("instruction sets", ", ".join(profile.isa_features) or None),
        ("cores in use", str(profile.logical_cores)),
        ("physical cores", _number(profile.physical_cores)),
        ("L1 data cache", size(profile.l1d_bytes)),
        ("L2 cache", size(profile.l2_bytes)),
        ("L3 cache", size(profile.l3_bytes)),
        ("cache line", size(profile.cache_line_bytes)),
        ("highest clock", clock),
        ("memory", size(profile.memory_bytes)),
        ("system", profile.os_name),
        ("kernel", profile.kernel),
        ("C library", profile.libc),
        *((f"{name} version", version) for name, version in sorted(profile.versions.items())),
    )
    return Group(
        about, _heading("Hardware"), hardware, _heading("Measured"), _measured(profile.measured)
    )


def _unsent(device: Device) -> str:
    """Say how many trials wait on a device, and how full its disk space for them is."""
    if not device.outbox_trials:
        return "-"
    if not device.outbox_limit_bytes:
        return f"{device.outbox_trials:,}"
    return f"{device.outbox_trials:,} ({device.outbox_bytes / device.outbox_limit_bytes:.0%})"


def _clock(device: Device) -> str | None:
    """Say how a device's clock stands; a second is what a heartbeat's way may take."""
    offset_s = device.clock_offset_s
    if offset_s is None:
        return None
    if abs(offset_s) < 1.0:
        return "right"
    return f"{duration(abs(offset_s))} {'ahead' if offset_s > 0 else 'behind'}"


def _outbox(device: Device) -> str:
    if not device.outbox_trials:
        return "nothing"
    what = f"{device.outbox_trials:,} trials, {size(device.outbox_bytes)}"
    if not device.outbox_limit_bytes:
        return what
    return f"{what} of {size(device.outbox_limit_bytes)}, beyond which it takes no more work"


def _quarantine(device: Device) -> str:
    if device.quarantine is None:
        return "none"
    until = f"{device.quarantine.until.astimezone():%H:%M:%S}"
    return f"since {ago(device.quarantine.since)}, tried again at {until}: " + (
        device.quarantine.reason
    )


def model_details(version: ModelVersion) -> RenderableType:
    """Make a sheet of everything known of a version of the cost model."""
    about = details(
        ("version", version.version),
        ("parent", version.parent or "none"),
        ("in use", "yes" if version.current else "no"),
        ("promoted", "yes" if version.promoted else _not_in_use(version)),
        ("why", version.why or None),
        ("trials", f"{version.trials:,}" if version.trials else "none of this coordinator's"),
        ("trained in", duration(version.training_s) if version.training_s else "elsewhere"),
        ("made", ago(version.created_at)),
        ("ONNX file", version.digest),
        ("feature schema", version.feature_schema),
    )
    metrics = details(*((name, f"{value:.4g}") for name, value in version.metrics.items()))
    return Group(about, _heading("Metrics"), metrics)


def details(*rows: tuple[str, str | Text | None]) -> Table:
    """Make a sheet of labels and values; a missing value reads ``unknown``."""
    sheet = Table.grid(padding=(0, 2))
    sheet.add_column(style="dim", no_wrap=True)
    sheet.add_column(overflow="fold")
    for label, value in rows:
        sheet.add_row(label, Text("unknown", style="dim italic") if value is None else value)
    return sheet


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _measured(measured: MeasuredProfile | None) -> RenderableType:
    if measured is None:
        return Text("not yet", style="dim italic")
    rows = []
    for f in fields(MeasuredProfile):
        label, unit = _MEASURED_LABELS[f.name]
        value = getattr(measured, f.name)
        rows.append((label, None if value is None else f"{value:,.4g} {unit}"))
    return details(*rows)


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)
