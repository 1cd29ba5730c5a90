"""Run as a process: serves once, then prints which top-level modules that has imported."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from coordinator.main import main  # noqa: F401 - what the command imports counts too
from coordinator.server.app import serve
from coordinator.server.core import ServerConfig


async def serve_once() -> None:
    stop = asyncio.Event()
    config = ServerConfig(Path(sys.argv[1]), "127.0.0.1:0")
    await serve(config, ready=lambda _: stop.set(), stop=stop)


asyncio.run(serve_once())
sys.stdout.write(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
