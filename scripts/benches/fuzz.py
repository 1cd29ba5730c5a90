"""What comes of malformed bytes: on every RPC of a running coordinator, and in every file it reads.

A coordinator runs with devices, campaigns in every state, leases and trials. Several processes send
it random bytes, damaged messages and sound messages with values that nobody should send, to every
RPC that the descriptors name. Afterwards it must be the same process, answer, have blamed itself
for nothing, and hold a sound state.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from coordinator.state.home import Home
from scripts.benches import fuzz_files
from scripts.benches.fuzz_calls import Outcome, fuzz
from scripts.benches.fuzz_home import DEVICES, prepare, unsound
from scripts.benches.fuzz_identities import Identity, client, identities
from scripts.benches.harness import Figure, await_value, figure, note
from tunefleet.errors import TuneFleetError
from tunefleet.identity.credentials import INSECURE_VARIABLE

_QUICK_INPUTS = 5_000
_INPUTS = 1_000_000
_BATCH = 5_000
"""Inputs between two reports of progress."""
_WARM_SHARE = 0.1
"""Of the inputs, after which the memory is looked at first: caches have filled up by then."""
_START_S = 60.0
_RAW_SHARE = 1 / 2000
"""Connections that speak no gRPC at all, for each input."""
_FAULTS_SHOWN = 10


def run(*, quick: bool, arguments: Sequence[str]) -> dict[str, Figure]:
    """Fuzz a coordinator and its readers of files.

    Args:
        quick: some thousand inputs instead of a million.
        arguments: ``--inputs N --seed N --processes N --what rpc|files|both --files N --rpc NAME
            --keep DIR``.

    Returns:
        Figures by name; ``rss_growth_mb`` in MB (1e6 bytes).
    """
    parser = argparse.ArgumentParser(prog="scripts/bench fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=_QUICK_INPUTS if quick else _INPUTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--what", choices=("rpc", "files", "both"), default="both")
    parser.add_argument("--files", type=int, default=0, help="for each reader; default: 20,000")
    parser.add_argument("--rpc", action="append", default=[], metavar="SERVICE/NAME")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the home and what failed")
    options = parser.parse_args(arguments)
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="tunefleet-fuzz-", dir=_memory()) as scratch:
        place = options.keep or Path(scratch)
        if options.what in ("rpc", "both"):
            figures |= _fuzz_rpcs(place, options)
        if options.what in ("files", "both"):
            figures |= fuzz_files.run(
                place / "files", quick=quick, seed=options.seed, inputs=options.files
            )
    return figures


def _memory() -> str | None:
    """Name a folder in memory, if there is one: waiting for a disk would take most of the time."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _fuzz_rpcs(place: Path, options: argparse.Namespace) -> dict[str, Figure]:
    home = Home(place / "home")
    pools = prepare(home)
    log = place / "coordinator.log"
    with _coordinator(home, log) as process:
        address = await_value("the coordinator", lambda: _address(home), _START_S)
        everybody, known = identities(home, address)
        began = time.monotonic()
        outcome, warm_mb = _send_all(process, everybody, pools | known, options)
        took_s = time.monotonic() - began
        crashes = int(process.poll() is not None)
        unshown = 0 if crashes else _unshown(home, address)
        grown_mb = 0.0 if crashes else _rss_mb(process) - warm_mb
        process.send_signal(signal.SIGTERM)
        # A connection that never ends must not keep it from stopping.
        crashes += int(process.wait(timeout=_START_S) != 0 and not crashes)
    broken = unsound(home)
    logged = _logged_faults(log)
    _tell(outcome, broken, logged, place)
    reached = {name.partition(" ")[0] for name in outcome.codes}
    return {
        "inputs": figure([outcome.inputs]),
        "inputs_per_s": figure([outcome.inputs / took_s]),
        "crashes": figure([crashes]),
        "internal_errors": figure([max(outcome.fault_count, len(logged))]),
        "unanswered": figure([sum(outcome.late.values())]),
        "half_written_rows": figure([sum(broken.values()) + unshown]),
        "rpcs": figure([len(reached)]),
        "rpcs_accepting": figure([sum(f"{name} OK" in outcome.codes for name in reached)]),
        "rss_growth_mb": figure([grown_mb]),
    }


def _send_all(
    process: subprocess.Popen[bytes],
    everybody: Sequence[Identity],
    pools: dict[str, list[Any]],
    options: argparse.Namespace,
) -> tuple[Outcome, float]:
    """Send everything; returns what came of it and the memory once a tenth was sent, in MB."""
    total = Outcome()
    warm_mb = _rss_mb(process)
    batches = range(0, options.inputs, _BATCH)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        sent = [
            pool.submit(
                fuzz,
                *(everybody, pools, f"{options.seed}/{begin}"),
                min(_BATCH, options.inputs - begin),
                options.rpc,
            )
            for begin in batches
        ]
        for done in as_completed(sent):
            total.add(done.result())
            if process.poll() is not None:
                note(f"fuzz: the coordinator has ended with {process.returncode}")
                pool.shutdown(cancel_futures=True)
                break
            for door in {who.address for who in everybody}:
                _speak_nonsense(door, max(1, int(_BATCH * _RAW_SHARE)), total.inputs)
            if total.inputs <= max(_BATCH, options.inputs * _WARM_SHARE):
                warm_mb = _rss_mb(process)
            memory = f"{_rss_mb(process):.0f} MB"
            note(f"fuzz: {total.inputs} inputs, {total.fault_count} faults, {memory}")
    return total, warm_mb


def _speak_nonsense(address: str, connections: int, seed: int) -> None:
    """Open connections that send bytes which are no TLS, or begin as such."""
    rng = random.Random(f"raw/{seed}")
    host, _, port = address.rpartition(":")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    for _ in range(connections):
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            begin = rng.choice(
                (b"", hello, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n")
            )
            try:
                raw.sendall(begin + rng.randbytes(rng.choice((1, 9, 200, 70_000))))
                raw.settimeout(0.05)
                raw.recv(4096)
            except OSError:
                continue


def _unshown(home: Home, address: str) -> int:
    """Ask for everything that is stored; returns how much of it cannot be shown."""
    unshown = 0
    with client(home, address) as fleet:
        asked: list[Callable[[], object]] = [fleet.devices, fleet.campaigns, fleet.models]
        asked += [partial(fleet.device, name) for name in DEVICES]
        try:
            asked += [campaign.refresh for campaign in fleet.campaigns()]
        except TuneFleetError as e:
            note(f"fuzz: {e.message}")
        for ask in asked:
            try:
                ask()
            except TuneFleetError as e:
                unshown += 1
                note(f"fuzz: cannot be shown any more: {ask}: {e.message}")
    return unshown


@contextmanager
def _coordinator(home: Home, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "scripts.benches.fuzz_coordinator", "--home", str(home.root)]
    environment = dict(os.environ) | {"XDG_CONFIG_HOME": str(log.parent / "config")}
    environment.pop(INSECURE_VARIABLE, None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0"], stdout=output, stderr=output, env=environment
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _address(home: Home) -> str | None:
    return home.address_file.read_text().strip() if home.address_file.exists() else None


def _rss_mb(process: subprocess.Popen[bytes]) -> float:
    try:
        return float(psutil.Process(process.pid).memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def _logged_faults(log: Path) -> list[str]:
    """Return the tracebacks and failed calls that the coordinator noted."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            if line.startswith("Traceback"):
                found.append(line)
            continue
        if isinstance(entry, dict) and "exception" in entry:
            found.append(
                f"{entry.get('event')} {entry.get('method', '')}: {entry['exception'][-600:]}"
            )
    return found


def _tell(outcome: Outcome, broken: dict[str, int], logged: list[str], place: Path) -> None:
    note(json.dumps(dict(sorted(outcome.codes.items())), indent=1))
    for what, count in broken.items():
        note(f"fuzz: {count} {what}")
    for line in list(dict.fromkeys(logged))[:_FAULTS_SHOWN]:
        note(f"fuzz: logged: {line}")
    for rpc, details in list(dict.fromkeys((rpc, why) for rpc, why, _ in outcome.faults))[
        :_FAULTS_SHOWN
    ]:
        note(f"fuzz: {rpc}: {details[:300]}")
    for what, count in outcome.late.items():
        note(f"fuzz: not answered in time: {count} of {what}")
    for number, (rpc, _, sent) in enumerate(outcome.faults):
        (place / f"fault-{number}-{rpc.replace('/', '.')}.bin").write_bytes(sent)
