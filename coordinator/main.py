"""``python -m coordinator``: runs a coordinator in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from coordinator.costmodel.base_model import base_folder
from coordinator.logs import configure_logging
from coordinator.server.address import DEFAULT_LISTEN
from coordinator.server.app import Wiring, serve, without_work
from coordinator.server.core import Core, ServerConfig
from coordinator.server.quota import DEFAULT_QUOTA, Quota
from coordinator.state.home import default_home
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import insecure_wanted
from tunefleet.model_files import ONNX_FILE

MOST_FILES = 65_536
"""Open at a time: connections of far more agents than one coordinator can serve."""

DATABASE_VARIABLE = "TUNEFLEET_DATABASE"
"""Environment variable with the database's URL."""


def main(
    arguments: Sequence[str] | None = None, wire: Callable[[Core], Wiring] = without_work
) -> int:
    """Run a coordinator until SIGTERM or SIGINT.

    Args:
        arguments: of the command line; those of this process for ``None``.
        wire: makes what plans and drives the work.

    Returns:
        The process's exit code: 0, or that of the error's reason.
    """
    options = _parse(arguments)
    _allow_connections()
    configure_logging(options.log_level)
    config = ServerConfig(
        options.home,
        options.listen,
        options.database,
        options.base_model,
        quota=options.blob_quota,
        drain_s=options.drain_timeout,
        insecure=options.insecure,
        enrolment_port=options.enrolment_port,
    )
    try:
        asyncio.run(_serve_until_signal(config, wire))
    except TuneFleetError as e:
        return _refuse(e)
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        message = f"the disk of {options.home} is full: {e}"
        return _refuse(TuneFleetError(Reason.DISK_FULL, message, "Make room, then start it again."))
    return 0


def _refuse(error: TuneFleetError) -> int:
    sys.stderr.write(f"error: {error.message}\n{error.hint}\n")
    return error.reason.value.exit_code


def _allow_connections() -> None:
    """Raise this process's own limit of open files: each agent is one, and 1024 are usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve_until_signal(config: ServerConfig, wire: Callable[[Core], Wiring]) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await serve(config, wire, stop=stop, hurry=hurry)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m coordinator",
        description="Run a TuneFleet coordinator.",
        epilog="The address it listens on is written to run/address in its home.",
    )
    parser.add_argument(
        "--home", type=Path, default=default_home(), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--listen",
        default=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help="port 0 picks a free one; default: %(default)s",
    )
    parser.add_argument(
        "--enrolment-port",
        type=int,
        metavar="PORT",
        help="where agents and users join; default: the port after that of --listen",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=insecure_wanted(),
        help="plain text without certificates, for everybody on this machine; loopback only",
    )
    parser.add_argument(
        "--database",
        default=os.environ.get(DATABASE_VARIABLE, ""),
        metavar="URL",
        help="such as postgresql://user@host/database; a password is safer in the variable "
        f"{DATABASE_VARIABLE}, since arguments can be seen; default: SQLite in the home",
    )
    parser.add_argument(
        "--base-model",
        type=_model_folder,
        default=base_folder(),
        metavar="DIR",
        help="cost model that a new home begins with, as `tunefleet model train` writes it, or "
        "`none`; default: the one shipped",
    )
    parser.add_argument(
        "--blob-quota",
        type=_quota,
        default=Quota.parse(DEFAULT_QUOTA),
        metavar="SIZE",
        help="how much all blobs may take before uploads are refused, such as 200GB, a share of "
        f"the disk such as 80%%, or `none`; default: {DEFAULT_QUOTA}%",
    )
    parser.add_argument(
        "--drain-timeout",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="when stopped, give out no more work and wait so long at the most for rounds under "
        "way; a second signal ends the wait; default: none, as agents go on by themselves",
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )
    return parser.parse_args(arguments)


def _quota(text: str) -> Quota:
    try:
        return Quota.parse(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def _model_folder(text: str) -> Path | None:
    if text == "none":
        return None
    folder = Path(text)
    if not (folder / ONNX_FILE).is_file():
        raise argparse.ArgumentTypeError(f"{text} is no model's folder: it holds no {ONNX_FILE}")
    return folder
