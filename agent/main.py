"""The agent's process: its home, its signals, its exit code."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from agent.session.home import Home
from agent.session.logs import configure_logging
from agent.session.rpc import check_address
from agent.session.session import Session, Settings
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import is_loopback
from tunefleet.targets import canonical_target

_NEEDED = ("tvm", "onnxruntime", "numpy", "psutil")
"""Imported by the agent's workers only, but without them there is no point in starting."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    settings: Settings
    home: Path
    cores: int | None
    log_level: str
    drain_on_term: bool = False
    """Finish the round under way at the first SIGTERM, rather than give it back."""


def run_agent(options: Options) -> int:
    """Run an agent until it is told to stop.

    Returns:
        0 after the first SIGINT or SIGTERM, 130 after a second that stops it at once.

    Raises:
        TuneFleetError: the agent cannot run like this.
    """
    configure_logging(options.log_level)
    settings = _checked(options.settings)
    _check_installation()
    if options.cores is not None:
        _confine(options.cores)
    # Children are started by exec alone; gRPC's fork handlers would only cost.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # Its own messages, such as of a connection closed, would break the log's JSON lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    with Home(options.home) as home:
        if not settings.name:
            # Unique also where several agents share a machine, and the same after a restart.
            name = f"{platform.node() or 'device'}-{home.device_id()[:4]}"
            settings = replace(settings, name=name)
        return asyncio.run(_run(settings, home, drain_on_term=options.drain_on_term))


async def _run(settings: Settings, home: Home, *, drain_on_term: bool) -> int:
    session = Session(settings, home)
    running = asyncio.create_task(session.run())
    # What signals do, one after the other, and the last one again and again.
    steps: list[Callable[[], object]] = [session.stop, running.cancel]

    def on_signal(number: signal.Signals) -> None:
        if drain_on_term and number == signal.SIGTERM and len(steps) == 2 and session.drain():
            _log.info("finishing the round under way; again to give it back")
            return
        if len(steps) == 2:
            _log.info("stopping; again to stop at once")
        step = steps.pop(0) if len(steps) == 2 else steps[0]
        step()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    _log.info(
        "agent started", name=settings.name, coordinator=settings.coordinator, home=str(home.path)
    )
    try:
        await running
    except asyncio.CancelledError:
        _log.warning("stopped at once")
        return Reason.INTERRUPTED.value.exit_code
    _log.info("agent stopped")
    return 0


def _checked(settings: Settings) -> Settings:
    check_address(settings.coordinator)
    if settings.insecure and not is_loopback(settings.coordinator):
        raise TuneFleetError(
            Reason.NOT_LOOPBACK,
            f"{settings.coordinator} is another machine, which plain text (--insecure) is not for",
            "Leave --insecure out and join with a token.",
        )
    if not settings.target:
        return settings
    try:
        return replace(settings, target=canonical_target(settings.target))
    except ValueError as e:
        raise TuneFleetError(Reason.INVALID_ARGUMENT, str(e)) from e


def _check_installation() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise TuneFleetError(
            Reason.NOT_INSTALLED,
            f"the agent needs {', '.join(missing)}",
            hint="Install them with `pip install 'tunefleet[agent]'`.",
        )


def _confine(cores: int) -> None:
    """Use so many cores only, in all of the agent's processes."""
    usable = sorted(os.sched_getaffinity(0))
    if not 1 <= cores <= len(usable):
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"--cores {cores} does not fit: this process may run on {len(usable)} cores",
        )
    os.sched_setaffinity(0, usable[:cores])
