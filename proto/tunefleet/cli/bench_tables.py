"""What came of a benchmark, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tunefleet.cli.tables import make_table
from tunefleet.client.wording import factor, latency, short_target

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SUBJECTS = ("untuned", "tuned", "onnxruntime")
_LEFT_OVER = 1.2
"""A task that takes so many times as long in the network as alone is shown in yellow."""

_Json = Mapping[str, Any]


def print_bench(result: _Json, console: Console, rows: int = 0) -> None:
    """Print a benchmark's result.

    Args:
        result: as :func:`tunefleet.client.bench.bench_result` returns it.
        console: where to.
        rows: of each table of operators; 0 for all.
    """
    console.print(end_to_end_table(result["groups"]))
    for group in result["groups"]:
        where = f"{short_target(group['target'])} on {group['device'] or 'no device'}"
        if group["error"]:
            console.print(f"{where} was not timed: {group['error']}", style="bold red")
        for name, subject in group["subjects"].items():
            if subject["error"]:
                console.print(f"{name}, {where}: {subject['error']}", style="bold red")
        if result["per_op"]:
            _print_group(group, where, console, rows)


def _print_group(group: _Json, where: str, console: Console, rows: int) -> None:
    subjects = group["subjects"]
    if not group["error"] and not any(subject["ops"] for subject in subjects.values()):
        message = f"The agent, {where}, does not tell where the time goes: update it."
        console.print(message, style="yellow")
    if "tuned" in subjects and subjects["tuned"]["ops"]:
        console.print(functions_table(subjects["tuned"], f"Tuned network, {where}", rows))
        console.print(_tasks_line(subjects["tuned"]), "")
    if "onnxruntime" in subjects and subjects["onnxruntime"]["ops"]:
        console.print(nodes_table(subjects["onnxruntime"], f"onnxruntime, {where}", rows))
    if group["by_operator"]:
        console.print(operators_table(group, f"By kind of operator, {where}"))


def end_to_end_table(groups: Sequence[_Json]) -> Table:
    """Make a table of latencies end to end, a row for each target."""
    columns = (*_SUBJECTS, "over untuned", "over onnxruntime", "max abs error")
    table = make_table("target", "device", *columns, right=columns)
    table.title = "Measured end to end, for one run of the model"
    for group in groups:
        times = {name: s["end_to_end_s"] for name, s in group["subjects"].items()}
        error = group["max_abs_err"]
        table.add_row(
            short_target(group["target"]),
            group["device"] or "-",
            *(latency(times.get(name)) for name in _SUBJECTS),
            *(_over(times.get(name), times.get("tuned")) for name in ("untuned", "onnxruntime")),
            "-" if error is None else f"{error:.2e}",
        )
    return table


def functions_table(subject: _Json, title: str, rows: int = 0) -> Table:
    """Make a table of the functions of a network, the most expensive first, and what remains."""
    columns = ("share", "calls", "in the network", "one call", "task alone", "ratio")
    table = make_table("function", *columns, right=columns)
    table.title = title
    shown = subject["ops"][: rows or None]
    for op in shown:
        table.add_row(
            op["name"],
            *(_share(op["share"]), str(op["calls"]), latency(op["seconds"])),
            *(latency(op["call_s"]), latency(op["task_s"]), _ratio(op["ratio"])),
        )
    _add_others(table, subject, shown)
    for what, key in (("remainder", "remainder_s"), ("end to end", "end_to_end_s")):
        share = subject[key] / subject["end_to_end_s"] if subject["end_to_end_s"] else None
        table.add_row(Text(what, style="bold"), _share(share), "", _signed(subject[key]))
    table.caption = _profiling(subject)
    table.caption_justify = "left"
    return table


def nodes_table(subject: _Json, title: str, rows: int = 0) -> Table:
    """Make a table of the nodes of an ONNX graph, as onnxruntime runs it."""
    columns = ("share", "calls", "in the network")
    table = make_table("node", "operator", *columns, right=columns)
    table.title = title
    shown = subject["ops"][: rows or None]
    for op in shown:
        table.add_row(
            op["name"], op["op"], _share(op["share"]), str(op["calls"]), latency(op["seconds"])
        )
    left = subject["ops"][len(shown) :]
    if left:
        seconds = sum(op["seconds"] for op in left)
        share = _share(sum(op["share"] or 0.0 for op in left))
        table.add_row(f"{len(left)} others", "", share, "", latency(seconds))
    table.caption = _profiling(subject)
    table.caption_justify = "left"
    return table


def operators_table(group: _Json, title: str) -> Table:
    """Make a table of what each subject spends on each kind of operator."""
    names = [name for name in _SUBJECTS if any(name in r["seconds"] for r in group["by_operator"])]
    table = make_table("operator", *names, "over onnxruntime", right=(*names, "over onnxruntime"))
    table.title = title
    for row in group["by_operator"]:
        seconds = row["seconds"]
        gain = _over(seconds.get("onnxruntime"), seconds.get("tuned"))
        loses = seconds.get("tuned", 0.0) > seconds.get("onnxruntime", float("inf"))
        table.add_row(
            row["operator"],
            *(latency(seconds.get(name)) for name in names),
            Text(gain, style="yellow" if loses else "green"),
        )
    return table


def _add_others(table: Table, subject: _Json, shown: Sequence[_Json]) -> None:
    left = subject["ops"][len(shown) :]
    if left:
        share = _share(sum(op["share"] or 0.0 for op in left))
        seconds = sum(op["seconds"] for op in left)
        table.add_row(f"{len(left)} others", share, "", latency(seconds))


def _tasks_line(subject: _Json) -> str:
    within, alone = subject["tasks_s"], subject["tasks_alone_s"]
    if within is None or not alone:
        return "None of these functions was measured as a task."
    return (
        f"The tasks take {latency(within)} in the network and took {latency(alone)} alone, "
        f"{factor(within / alone)}."
    )


def _profiling(subject: _Json) -> str:
    return (
        f"Finding this out took {_signed(subject['overhead_s'])} a run of its own, part of which "
        f"counts as the operators'; {latency(subject['between_s'])} passed between the calls. The "
        "remainder is the time end to end without the operators, and has all the noise."
    )


def _over(other: float | None, tuned: float | None) -> str:
    return factor(other / tuned) if other is not None and tuned else "-"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ratio(value: float | None) -> Text:
    return Text(factor(value), style="yellow" if value is not None and value > _LEFT_OVER else "")


def _signed(seconds: float | None) -> str:
    """Write a difference of latencies, which noise or the profiling itself can make negative."""
    if seconds is not None and seconds < 0:
        return f"-{latency(-seconds)}"
    return latency(seconds)
