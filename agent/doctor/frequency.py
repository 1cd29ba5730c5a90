"""Do the cores run at a steady, high clock? Governor, turbo, and the clock they reach."""

from __future__ import annotations

from pathlib import Path

from agent.doctor.finding import Change, Finding, Status, ok, unknown, write_command
from agent.doctor.machine import Machine, read_number
from agent.profile.sysfs import read_text

PERFORMANCE = "performance"

# With these drivers the hardware itself raises the clock under load, and quickly, under the
# governor called powersave. With others powersave stays at the lowest clock.
_SELF_GOVERNING_DRIVERS = frozenset({"intel_pstate", "amd-pstate-epp"})

CLOCK_WARN_SHARE = 0.9
"""Share of the highest clock below which latencies are visibly longer than they need be. Server
CPUs reach their highest clock with few cores busy, so some percent less are no cause for alarm."""
CLOCK_BAD_SHARE = 0.7
"""A core under load this far below its highest clock is held back by something."""

_LIST_AT_MOST = 2
"""Files named one by one in a command; of more, a pattern is easier to read."""


def check_governor(machine: Machine) -> Finding:
    """Look for frequency governors other than ``performance`` on the CPUs we may use."""
    name = "governor"
    governors: dict[Path, str] = {}
    for policy in machine.frequency_policies():
        governor = read_text(policy / "scaling_governor")
        if governor is not None:
            governors[policy] = governor
    if not governors:
        return unknown(
            name,
            machine.untold("how clocks are governed"),
            "Ask whoever runs the host for steady clocks." if machine.virtual else "",
        )
    wrong = {
        policy: governor
        for policy, governor in governors.items()
        if governor != PERFORMANCE and not _fixed_clock(policy)
    }
    if not wrong:
        return ok(name, " and ".join(sorted(set(governors.values()))))
    self_governing = all(
        governor == "powersave" and read_text(policy / "scaling_driver") in _SELF_GOVERNING_DRIVERS
        for policy, governor in wrong.items()
    )
    where = "all cores" if len(wrong) == len(governors) else f"{len(wrong)} of {len(governors)}"
    seen = f"{' and '.join(sorted(set(wrong.values())))} on {where}"
    why = "the clock rises only while a measurement already runs, so equal programs differ in time"
    able = [policy for policy in wrong if _offers_performance(policy)]
    paths = [machine.shown(policy / "scaling_governor") for policy in able]
    return Finding(
        name,
        Status.WARN if self_governing else Status.BAD,
        seen,
        why,
        "Use the governor performance while measuring."
        if able
        else "The kernel offers no governor performance here; fix the clock by scaling_min_freq.",
        _governor_command(machine, paths),
        tuple(Change(path, PERFORMANCE) for path in paths),
    )


def check_turbo(machine: Machine) -> Finding:
    """Look for clocks above the nominal one, which last as long as heat and neighbours allow."""
    name = "turbo"
    settings = _turbo_settings(machine)
    if not settings:
        what = "whether clocks are raised above the nominal one"
        return unknown(name, machine.untold(what))
    boosting = {path: off for path, off in settings.items() if machine.text(path) != off}
    if not boosting:
        return ok(name, "off")
    changes = tuple(Change(path, off) for path, off in boosting.items())
    return Finding(
        name,
        Status.WARN,
        "on",
        "how far the clock is raised depends on heat and on how many cores are busy, so a result "
        "of now is not that of an hour ago",
        "Switch it off while measuring; latencies are then longer, and steady.",
        write_command([change.path for change in changes], changes[0].value),
        changes,
    )


def check_clock(machine: Machine) -> Finding:
    """Compare the present clock with the highest. Call it while a core has work."""
    name = "clock"
    reached: list[tuple[float, str]] = []
    turbo_off = _turbo_is_off(machine)
    for policy in machine.frequency_policies():
        now, highest = read_number(policy / "scaling_cur_freq"), _highest_khz(policy, turbo_off)
        if now and highest:
            seen = f"{now / 1e3:,.0f} of {highest / 1e3:,.0f} MHz"
            limit = read_number(policy / "scaling_max_freq")
            if limit and limit < highest:
                seen += f", limited to {limit / 1e3:,.0f} MHz by scaling_max_freq"
            reached.append((now / highest, seen))
    if not reached:
        return unknown(name, machine.untold("its clock and the highest one"))
    # Idle cores rest at a low clock: the busiest core's is the one that counts.
    share, seen = max(reached)
    if share >= CLOCK_WARN_SHARE:
        return ok(name, seen)
    return Finding(
        name,
        Status.WARN if share >= CLOCK_BAD_SHARE else Status.BAD,
        seen,
        "a core under load is held back, by heat, by a limit of power or by a setting",
        "Look at governor, temperature and power above; then at scaling_max_freq and at the "
        "firmware's limits.",
    )


def check_clocksource(machine: Machine) -> Finding:
    """Look for a slow source of time, which every sample would include."""
    name, folder = "clocksource", "/sys/devices/system/clocksource/clocksource0"
    current = machine.text(f"{folder}/current_clocksource")
    if current is None:
        return unknown(name, machine.untold("what it reads time from"))
    if current not in {"hpet", "acpi_pm", "jiffies", "refined-jiffies"}:
        return ok(name, current)
    tsc = "tsc" in (machine.text(f"{folder}/available_clocksource") or "").split()
    return Finding(
        name,
        Status.WARN,
        current,
        "reading the time takes a microsecond or more, or has coarse steps, and is part of every "
        "sample",
        "Use tsc if the kernel holds it for stable (see `dmesg | grep -i tsc`)."
        if tsc
        else "See `dmesg | grep -i clocksource` for why the kernel chose it.",
        write_command([f"{folder}/current_clocksource"], "tsc") if tsc else "",
    )


def _offers_performance(policy: Path) -> bool:
    return PERFORMANCE in (read_text(policy / "scaling_available_governors") or "").split()


def _fixed_clock(policy: Path) -> bool:
    """Whether lowest and highest permitted clock are the same, so that no governor can choose."""
    lowest = read_number(policy / "scaling_min_freq")
    return lowest is not None and lowest == read_number(policy / "scaling_max_freq")


def _governor_command(machine: Machine, paths: list[str]) -> str:
    if not paths:
        return ""
    everywhere = list(machine.cpu_root.glob("cpufreq/policy*/scaling_governor"))
    if len(paths) > _LIST_AT_MOST and len(paths) == len(everywhere):
        pattern = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        return f"echo {PERFORMANCE} | sudo tee {pattern}"
    return write_command(paths, PERFORMANCE)


def _turbo_settings(machine: Machine) -> dict[str, str]:
    """Return the switches of turbo there are, with the value that means off."""
    for path, off in (
        ("/sys/devices/system/cpu/intel_pstate/no_turbo", "1"),
        ("/sys/devices/system/cpu/cpufreq/boost", "0"),
    ):
        if machine.text(path) is not None:
            return {path: off}
    # Some drivers have a switch for each policy only.
    switches = (policy / "boost" for policy in machine.frequency_policies())
    return {machine.shown(switch): "0" for switch in switches if read_text(switch) is not None}


def _turbo_is_off(machine: Machine) -> bool:
    settings = _turbo_settings(machine)
    return bool(settings) and all(machine.text(path) == off for path, off in settings.items())


def _highest_khz(policy: Path, turbo_off: bool) -> int | None:
    highest = read_number(policy / "cpuinfo_max_freq")
    base = read_number(policy / "base_frequency") if turbo_off else None
    return min(base, highest) if base and highest else highest
