"""What a person reads: a table of all findings, then what to change, then what to do first."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.doctor.finding import Finding, Status
from agent.doctor.fixing import Outcome, Result

_STYLES = {
    Status.OK: "green",
    Status.UNKNOWN: "dim",
    Status.WARN: "bold yellow",
    Status.BAD: "bold red",
}
_RESULT_STYLES = {
    Result.CHANGED: "green",
    Result.RESTORED: "green",
    Result.UNCHANGED: "dim",
    Result.LEFT: "bold yellow",
    Result.FAILED: "bold red",
}


def print_findings(findings: Sequence[Finding], home: Path, console: Console) -> None:
    """Print everything that was found, the worst again with reasons and remedies."""
    table = _make_table("check", "status", "what was seen")
    for finding in findings:
        status = Text(finding.status, style=_STYLES[finding.status])
        table.add_row(finding.name, status, finding.seen)
    console.print(table)
    harmful = [
        finding
        for status in (Status.BAD, Status.WARN)
        for finding in findings
        if finding.status is status
    ]
    for finding in harmful:
        heading = Text(f"{finding.name}: ", style=_STYLES[finding.status])
        console.print(heading.append(finding.seen, style="default not bold"), soft_wrap=True)
        console.print(Text(f"  why: {finding.why}"))
        console.print(Text(f"  do:  {finding.advice}"))
        if finding.command:
            # Not broken into lines, so that it can be copied.
            console.print(Text(f"  $ {finding.command}", style="cyan"), soft_wrap=True)
        console.print()
    console.print(_first_thing(harmful, home), soft_wrap=True)


def print_outcomes(
    outcomes: Sequence[Outcome], home: Path, console: Console, *, undoing: bool
) -> None:
    """Print what became of each setting."""
    if not outcomes:
        nothing = (
            f"Nothing to undo: no change of a doctor's is noted in {home}."
            if undoing
            else "Nothing that --fix could change."
        )
        console.print(nothing, soft_wrap=True)
        return
    table = _make_table("setting", "result", "value")
    for outcome in outcomes:
        result = Text(outcome.result, style=_RESULT_STYLES[outcome.result])
        value = outcome.reason or outcome.present or "-"
        table.add_row(outcome.path, result, value)
    console.print(table)
    open_ones = [outcome for outcome in outcomes if outcome.command]
    for outcome in open_ones:
        console.print(Text(f"  $ {outcome.command}", style="cyan"), soft_wrap=True)
    results = {outcome.result for outcome in outcomes}
    if Result.FAILED in results:
        again = own_command("--undo" if undoing else "--fix", home)
        console.print(f"Or all at once: {again}", soft_wrap=True)
    if results & {Result.CHANGED, Result.RESTORED}:
        console.print("Restart an agent that runs here, so that it measures itself anew.")


def print_undo(home: Path, console: Console) -> None:
    """Print how to restore what was changed."""
    undo = own_command("--undo", home)
    console.print(f"To restore the settings that --fix has changed: {undo}", soft_wrap=True)


def own_command(option: str, home: Path) -> str:
    """Return what to type to run the doctor as root, on the same folder."""
    script = Path(sys.argv[0])
    program = (
        [str(script.absolute())]
        if script.name == "tunefleet-agent"
        else [sys.executable, "-m", "agent"]
    )
    become_root = [] if os.geteuid() == 0 else ["sudo"]
    return shlex.join([*become_root, *program, "doctor", option, "--home", str(home)])


def _first_thing(harmful: Sequence[Finding], home: Path) -> Text:
    if not harmful:
        return Text("Nothing here harms measurements, as far as the machine tells.", style="green")
    first = harmful[0]
    fixable = ", ".join(finding.name for finding in harmful if finding.fixable)
    let_fix = f"let the doctor change {fixable}: {own_command('--fix', home)}"
    if first.fixable:
        return Text(f"First, {let_fix}", style="bold")
    text = f"First, {first.name}: {first.advice}"
    if first.command:
        text += f" $ {first.command}"
    return Text(f"{text}\nThen {let_fix}" if fixable else text, style="bold")


def _make_table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    return table
