"""What else could keep trials or hand out devices: Optuna's gRPC storage, TVM's RPC tracker."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from scripts.benches.harness import await_value

_CLIENTS = 2
"""Processes that call Optuna's storage; more of them, or threads, only take cores from it."""
_THREADS = 8
_START_LIMIT_S = 120.0

_TRACKER_MAGIC = 0x2F271
_PUT, _REQUEST = 3, 4
_BOARDS = 64
_RUNNERS = 64
"""Devices and measuring workers that talk to the tracker at a time."""


def optuna_rates(url: str, seconds: float) -> dict[str, float]:
    """Store trials through Optuna's gRPC storage.

    Args:
        url: of the database behind it.
        seconds: to store for, each time.

    Returns:
        Trials stored per second: ``bare_trials_per_s`` (a value and five parameters, added in one
        call), ``trials_per_s`` (the same with a trace and features like ours as attributes),
        ``tells_per_s`` (asked and told, as its users do).
    """
    port = _free_port()
    server = [sys.executable, "-m", __name__, "serve", "--url", url, "--port", str(port)]
    with _process(server):
        await_value("Optuna's server", lambda: _accepts(port), _START_LIMIT_S)
        return {
            name: _optuna_rate(port, kind, seconds)
            for name, kind in (
                ("bare_trials_per_s", "bare"),
                ("trials_per_s", "whole"),
                ("tells_per_s", "tell"),
            )
        }


def _optuna_rate(port: int, kind: str, seconds: float) -> float:
    command = [
        *(sys.executable, "-m", __name__, "store", "--port", str(port)),
        *("--kind", kind, "--seconds", str(seconds)),
    ]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(_CLIENTS)
    ]
    for client in clients:
        assert client.stdout is not None
        client.stdout.readline()  # it is ready
    for client in clients:
        assert client.stdin is not None
        client.stdin.close()  # go
    rates = []
    for client in clients:
        assert client.stdout is not None
        rates.append(float(client.stdout.read()))
        client.wait()
    return sum(rates)


def _serve_optuna(url: str, port: int) -> None:
    from optuna.storages import get_storage, run_grpc_proxy_server  # noqa: PLC0415 (heavy)

    run_grpc_proxy_server(get_storage(url), host="127.0.0.1", port=port)


def _store_in_optuna(port: int, kind: str, seconds: float) -> None:
    import optuna  # noqa: PLC0415 (heavy)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
    study = optuna.create_study(
        storage=storage,
        study_name=kind,
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),
    )
    spaces = {f"p{n}": optuna.distributions.IntDistribution(0, 63) for n in range(5)}
    attributes = {"trace": "x" * 3000, "features": "y" * 2133, "samples_s": [1e-3] * 5}
    made = optuna.trial.create_trial(
        value=1e-3,
        params=dict.fromkeys(spaces, 7),
        distributions=spaces,
        user_attrs=attributes if kind == "whole" else {},
    )

    def store() -> None:
        if kind == "tell":
            study.tell(study.ask(spaces), 1e-3)
        else:
            study.add_trial(made)

    store()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    print(_rate(store, seconds))


def _rate(work: Callable[[], None], seconds: float) -> float:
    """Work in threads for some time; returns how often it was done per second."""
    done = [0] * _THREADS
    until = time.monotonic() + seconds

    def repeat(thread: int) -> None:
        while time.monotonic() < until:
            work()
            done[thread] += 1

    began = time.monotonic()
    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - began)


def tracker_rates(seconds: float) -> dict[str, float]:
    """Have TVM's RPC tracker match boards and measuring workers.

    Args:
        seconds: to go on for, each time.

    Returns:
        Matches per second, each a PUT of a board and a REQUEST of a worker: ``requests_per_s``
        with a new connection for each request, as TVM's RPCRunner makes them;
        ``kept_requests_per_s`` over connections that are kept.
    """
    port = _free_port()
    command = [
        *(sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--silent"),
        *("--port", str(port), "--port-end", str(port + 1)),
    ]
    with _process(command):
        await_value("TVM's tracker", lambda: _accepts(port), _START_LIMIT_S)
        return {
            "requests_per_s": _match(port, seconds, keep=False),
            "kept_requests_per_s": _match(port, seconds, keep=True),
        }


class _Line:
    """One connection to the tracker, with one message under way at a time."""

    def __init__(self, port: int, ways: selectors.BaseSelector) -> None:
        self._port = port
        self._ways = ways
        self.connect()

    def connect(self) -> None:
        """Connect and exchange the protocol's first words."""
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(struct.pack("<i", _TRACKER_MAGIC))
        assert struct.unpack("<i", self._socket.recv(4, socket.MSG_WAITALL))[0] == _TRACKER_MAGIC
        self._answer = b""
        self._ways.register(self._socket, selectors.EVENT_READ, self)

    def close(self) -> None:
        """Hang up."""
        self._ways.unregister(self._socket)
        self._socket.close()

    def send(self, message: Sequence[object]) -> None:
        """Send one message."""
        text = json.dumps(message).encode()
        self._socket.sendall(struct.pack("<i", len(text)) + text)

    def answered(self) -> bool:
        """Read what came; returns whether that was the rest of an answer."""
        self._answer += self._socket.recv(65536)
        if len(self._answer) < 4:
            return False
        size = struct.unpack("<i", self._answer[:4])[0]
        if len(self._answer) < 4 + size:
            return False
        self._answer = b""
        return True


def _match(port: int, seconds: float, *, keep: bool) -> float:
    """Return the requests answered per second.

    A board that was taken is on offer again at once, so that no request waits for one for long.
    """
    ways = selectors.DefaultSelector()
    key = f"board{keep}"
    boards = [_Line(port, ways) for _ in range(_BOARDS)]
    runners = {_Line(port, ways) for _ in range(_RUNNERS)}
    numbers = itertools.count()
    free: list[_Line] = []

    def offer(board: _Line) -> None:
        board.send([_PUT, key, [9090, f"{key}:{next(numbers)}"], None])

    def serve(line: _Line) -> int:
        """Go on after an answer; returns the requests that it answered."""
        if line not in runners:
            free.append(line)
            return 0
        if not keep:
            line.close()
            line.connect()
        line.send([_REQUEST, key, "", 1])
        if free:
            offer(free.pop())
        return 1

    for board in boards:
        offer(board)
    for runner in runners:
        runner.send([_REQUEST, key, "", 1])
    matched = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        answered = [way.data for way, _ in ways.select(1.0) if way.data.answered()]
        matched += sum(serve(line) for line in answered)
    took = time.monotonic() - began
    for line in (*boards, *runners):
        line.close()
    return matched / took


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    # TVM's tracker does its work in a child that outlives it.
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _accepts(port: int) -> bool | None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return None
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("serve", "store"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url")
    parser.add_argument("--kind")
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    if options.do == "serve":
        _serve_optuna(options.url, options.port)
    else:
        _store_in_optuna(options.port, options.kind, options.seconds)


if __name__ == "__main__":
    _main()
