"""A parent for tests: starts a worker that is deaf, and tells its process id."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.frames import start_worker


async def main() -> None:
    worker = await start_worker("frames_test_worker", Path(sys.argv[1]))
    await worker.send({"op": "spin"})
    sys.stdout.write(f"{(await worker.recv())['pid']}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
