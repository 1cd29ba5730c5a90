"""The chaos bench's proxy: what it does to connections, as both ends see it."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from scripts.benches.chaos_proxy import Proxy, ProxyThread

PATIENCE_S = 10.0
SILENT_S = 0.2
"""Long beside the microseconds that an answer takes here."""


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it receives."""

    def handle(self) -> None:
        """Serve one connection."""
        try:
            while chunk := self.request.recv(65536):
                self.request.sendall(chunk)
        except ConnectionError:
            return


@pytest.fixture
def upstream() -> Iterator[tuple[str, int]]:
    """A server that echoes."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()


@pytest.fixture
def proxy(upstream: tuple[str, int]) -> Iterator[Proxy]:
    """A proxy before it."""
    thread = ProxyThread()
    made = Proxy(upstream, thread.loop)
    made.start()
    yield made
    thread.stop()


def connect(proxy: Proxy) -> socket.socket:
    """Open a connection through the proxy."""
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def echoed(connection: socket.socket, text: bytes) -> bytes:
    """Send bytes and return as many as come back."""
    connection.sendall(text)
    received = b""
    while len(received) < len(text):
        received += connection.recv(65536)
    return received


def falls_silent(connection: socket.socket) -> bool:
    """Whether nothing is received for a while."""
    connection.settimeout(SILENT_S)
    try:
        return connection.recv(1) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE_S)


def test_bytes_pass_both_ways_in_order(proxy: Proxy) -> None:
    text = bytes(range(256)) * 4096
    with connect(proxy) as connection:
        assert echoed(connection, text) == text


def test_the_end_of_one_side_reaches_the_other(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert echoed(connection, b"hello") == b"hello"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_cut_resets_connections_and_new_ones_pass(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        echoed(connection, b"hello")
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connect(proxy) as connection:
        assert echoed(connection, b"again") == b"again"


def test_while_it_refuses_new_connections_are_reset(proxy: Proxy) -> None:
    proxy.refuse(on=True)
    # Which may show already while it connects.
    with pytest.raises(ConnectionResetError), connect(proxy) as connection:
        connection.recv(1)
    proxy.refuse(on=False)
    with connect(proxy) as connection:
        assert echoed(connection, b"again") == b"again"


def test_silence_keeps_connections_half_open_and_loses_no_byte(proxy: Proxy) -> None:
    with connect(proxy) as connection, connect(proxy) as ending:
        echoed(connection, b"hello")
        echoed(ending, b"hello")
        proxy.silence(on=True)
        connection.sendall(b"kept")
        ending.shutdown(socket.SHUT_WR)
        assert falls_silent(connection)
        assert falls_silent(ending)
        proxy.silence(on=False)
        assert connection.recv(4) == b"kept"
        assert ending.recv(1) == b""


def test_a_connection_made_in_silence_is_open_and_nothing_passes(proxy: Proxy) -> None:
    proxy.silence(on=True)
    with connect(proxy) as connection:
        connection.sendall(b"hello")
        assert falls_silent(connection)
        proxy.heal()
        assert connection.recv(5) == b"hello"


def test_delayed_bytes_come_late_and_in_order(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        echoed(connection, b"hello")
        proxy.delay(0.2)
        begun = time.monotonic()
        connection.sendall(b"one")
        connection.sendall(b"two")
        received = b""
        while len(received) < 6:
            received += connection.recv(6)
        assert received == b"onetwo"
        # Once on the way there and once on the way back.
        assert time.monotonic() - begun >= 0.4


def test_an_upstream_that_is_away_ends_the_connection() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    thread = ProxyThread()
    proxy = Proxy(("127.0.0.1", free), thread.loop)
    proxy.start()
    # Which may show already while it connects.
    with pytest.raises(ConnectionResetError), connect(proxy) as connection:
        connection.recv(1)
    thread.stop()
