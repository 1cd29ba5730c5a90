"""A TCP proxy that misbehaves on demand: between one agent and its coordinator.

It carries bytes and knows nothing of what they mean, so it stands between peers that encrypt as
well. Half-open connections are those whose bytes it keeps to itself: the peers' kernels go on
acknowledging, nobody answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future

_CHUNK_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """One address for one agent. Its methods may be called from any thread."""

    def __init__(self, upstream: tuple[str, int], loop: asyncio.AbstractEventLoop) -> None:
        """Prepare; :meth:`start` begins to listen.

        Args:
            upstream: host and port of the coordinator.
            loop: runs in a thread of its own, see :class:`ProxyThread`.
        """
        self._upstream = upstream
        self._loop = loop
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self._delay_s = 0.0
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    def start(self) -> str:
        """Listen on a free port of the loopback; returns ``HOST:PORT``."""
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def cut(self) -> int:
        """Reset all connections; returns how many there were."""
        return self._do(self._cut)

    def refuse(self, *, on: bool) -> None:
        """Reset all connections and every new one, or take new ones again."""
        self._do(lambda: self._refuse(on=on))

    def silence(self, *, on: bool) -> None:
        """Keep all bytes back while connections stay open, or let them pass again."""
        self._do(self._passing.clear if on else self._passing.set)

    def delay(self, seconds: float) -> None:
        """Let bytes pass so many seconds late, both ways; 0 to let them pass at once."""

        def change() -> None:
            self._delay_s = seconds

        self._do(change)

    def heal(self) -> None:
        """End all misbehaving."""
        self.refuse(on=False)
        self.silence(on=False)
        self.delay(0.0)

    async def _start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self.address

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        if self._refusing:
            connection.reset()
            return
        self._connections.add(connection)
        try:
            # Who is silent does not even connect: else the coordinator would see the client's end.
            await self._passing.wait()
            upstream_reader, upstream = await asyncio.open_connection(*self._upstream)
            connection.writers.append(upstream)
            await asyncio.gather(self._pump(reader, upstream), self._pump(upstream_reader, writer))
        except OSError:
            pass
        finally:
            self._connections.discard(connection)
            connection.reset()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Carry bytes one way, each as late as the delay was when it came, in their order."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def take() -> None:
            try:
                while chunk := await source.read(_CHUNK_BYTES):
                    await waiting.put((self._loop.time() + self._delay_s, chunk))
            finally:
                waiting.put_nowait((self._loop.time() + self._delay_s, b""))

        taking = asyncio.create_task(take())
        try:
            while True:
                due, chunk = await waiting.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._passing.wait()
                if not chunk:
                    break
                sink.write(chunk)
                await sink.drain()
            with contextlib.suppress(OSError):
                sink.write_eof()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    def _cut(self) -> int:
        cut = list(self._connections)
        for connection in cut:
            connection.reset()
        return len(cut)

    def _refuse(self, *, on: bool) -> None:
        self._refusing = on
        if on:
            self._cut()

    def _do(self, action: Callable[[], int | None]) -> int:
        done: Future[int] = Future()

        def act() -> None:
            try:
                done.set_result(action() or 0)
            except BaseException as e:
                done.set_exception(e)

        self._loop.call_soon_threadsafe(act)
        return done.result(timeout=10.0)


class _Connection:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]

    def reset(self) -> None:
        """Close both ends with RST, as a router that forgot the connection would."""
        for writer in self.writers:
            sock: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class ProxyThread:
    """The thread in which proxies run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and every connection with it."""
        asyncio.run_coroutine_threadsafe(_cancel_others(), self.loop).result(timeout=10.0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10.0)
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
