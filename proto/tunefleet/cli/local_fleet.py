"""Runs a coordinator and an agent as children of one command, and ends them together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from tunefleet.cli.options import DEFAULT_LISTEN
from tunefleet.errors import Reason, TuneFleetError

if TYPE_CHECKING:
    from rich.console import Console

READY_TIMEOUT_S = 60.0
"""A coordinator answers within seconds; one that takes this long never will."""
GRACE_S = 10.0
"""Time for a child to end by itself: an agent gives its lease back, a coordinator closes its
database."""
POLL_S = 0.1
TOKEN_TTL_S = 600.0
"""The agent joins within seconds."""
LAST_LINES = 15
"""Lines of a dead child's log that are shown."""
_STYLES = {"coordinator": "cyan", "agent": "magenta"}


@dataclass
class _Child:
    """One process, with its log."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]
    shown: int = 0
    """Bytes of the log that were shown."""

    def end(self, grace_s: float) -> None:
        """Ask it to end, then make it end, with all that it started."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tail(self) -> list[str]:
        """Return the last lines of its log."""
        return self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]


@dataclass
class _Signals:
    """Counts what asks this command to end."""

    received: list[int] = field(default_factory=list)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch what asks to end, a closed terminal included, in place of what it would do."""
        asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self) for number in asking}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_local_fleet(
    home: Path, listen: str, *, console: Console, show_logs: bool, insecure: bool = False
) -> int:
    """Run a coordinator and an agent until a signal comes or either ends.

    Args:
        home: folder for the state of both, and their logs.
        listen: address for the coordinator, HOST:PORT.
        console: where the status is told.
        show_logs: whether log lines are shown there, too.
        insecure: plain text between them.

    Returns:
        0 after SIGINT, SIGTERM or SIGHUP, else the code of the child that ended (1 for a signal).

    Raises:
        TuneFleetError: INTERNAL, the coordinator did not answer.
    """
    signals, children = _Signals(), list[_Child]()
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with signals.caught():
        try:
            coordinator_home = home / "coordinator"
            began_ns = time.time_ns()
            options = ["--home", str(coordinator_home), "--listen", listen]
            plain = ["--insecure"] if insecure else []
            children.append(_start("coordinator", ("coordinator", *options, *plain), home))
            deadline = time.monotonic() + READY_TIMEOUT_S
            address = None
            while address is None:
                if _finished(children, signals, console, show_logs=show_logs):
                    return _exit_code(children, signals, console)
                if time.monotonic() > deadline:
                    raise TuneFleetError(
                        Reason.INTERNAL,
                        f"the coordinator did not answer within {READY_TIMEOUT_S:.0f} s",
                        hint=f"Look into {children[0].log}.",
                    )
                time.sleep(POLL_S)
                address = _answering(listen, coordinator_home / "run" / "address", began_ns)
            console.print(f"Coordinator answers at {address}", style="bold")
            token = "" if insecure else _join_token(address, coordinator_home)
            options = ["--coordinator", address, "--home", str(home / "agent"), *plain]
            # Not as an argument: a list of processes would show it.
            env = {"TUNEFLEET_TOKEN": token} if token else {}
            children.append(_start("agent", ("agent", "run", *options), home, env))
            console.print(f"Agent started; logs are in {home / 'logs'}. Ctrl-C ends both.")
            console.print(f"Tune with: {_tune_command(address)}")
            while not _finished(children, signals, console, show_logs=show_logs):
                time.sleep(POLL_S)
            return _exit_code(children, signals, console)
        finally:
            # The agent goes first: it gives its work back to a coordinator that still listens.
            for child in reversed(children):
                child.end(GRACE_S if len(signals.received) < 2 else 0.0)


def _join_token(address: str, coordinator_home: Path) -> str:
    """Have a token made for the one agent, by the admin that whoever owns the home is."""
    # ruff: noqa: PLC0415 - gRPC takes longer to import than --help may take.
    from tunefleet.client import TuneFleet

    with TuneFleet(address, credentials=coordinator_home / "admin") as fleet:
        return fleet.create_token(ttl_s=TOKEN_TTL_S).text


def _start(
    name: str, arguments: tuple[str, ...], home: Path, env: Mapping[str, str] | None = None
) -> _Child:
    log = home / "logs" / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            # Ctrl-C reaches this command alone, which ends the two in the right order.
            start_new_session=True,
        )
        return _Child(name, log, process, shown=output.tell())


def _finished(
    children: list[_Child], signals: _Signals, console: Console, *, show_logs: bool
) -> bool:
    if show_logs:
        for child in children:
            _show_new_lines(child, console)
    return bool(signals.received) or any(c.process.poll() is not None for c in children)


def _show_new_lines(child: _Child, console: Console) -> None:
    with child.log.open("rb") as log:
        log.seek(child.shown)
        text = log.read()
    whole = text[: text.rfind(b"\n") + 1]
    child.shown += len(whole)
    for line in whole.decode(errors="replace").splitlines():
        console.print(f"{child.name:>11} │ ", style=_STYLES[child.name], end="")
        console.out(line)


def _exit_code(children: list[_Child], signals: _Signals, console: Console) -> int:
    if signals.received:
        console.print("Ending agent and coordinator; campaigns go on with the next start.")
        return 0
    child = next(c for c in children if c.process.poll() is not None)
    code = child.process.returncode
    how = f"ended with code {code}" if code >= 0 else f"was ended by signal {-code}"
    console.print(f"The {child.name} {how}. The end of {child.log}:", style="bold red")
    for line in child.tail():
        console.out(f"  {line}")
    return code if code > 0 else Reason.INTERNAL.value.exit_code


def _answering(listen: str, address_file: Path, began_ns: int) -> str | None:
    """Return the coordinator's address once a connection to it succeeds."""
    address = listen
    if listen.endswith(":0"):
        # A file from an earlier run names a port that somebody else may have now.
        if not address_file.exists() or address_file.stat().st_mtime_ns < began_ns:
            return None
        address = address_file.read_text().strip()
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return None
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return address
    except OSError:
        return None


def _tune_command(address: str) -> str:
    option = "" if address == DEFAULT_LISTEN else f" --coordinator {address}"
    return f"tunefleet tune MODEL{option}"
