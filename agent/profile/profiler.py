"""The measured profile, for the agent's main process: from the cache, else by the job."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from agent.profile import cache
from agent.profile.cache import Measurement
from tunefleet.devices import DeviceProfile, MeasuredProfile

_LOG = structlog.get_logger()

JOB_TIMEOUT_S = 120.0
"""A Raspberry Pi imports TVM in 10 s and measures in 5; waiting for quiet may take 80 s more."""

_STDERR_TAIL_BYTES = 2000
"""Of a failed job's output, enough for the last frames of a traceback."""

JOB_COMMAND = (sys.executable, "-m", "agent.profile.job")


class ProfileJobError(Exception):
    """The job ended without a measurement."""


async def measure_profile(
    static: DeviceProfile,
    home: Path,
    target: str | None,
    *,
    command: Sequence[str] = JOB_COMMAND,
    timeout_s: float = JOB_TIMEOUT_S,
) -> DeviceProfile:
    """Complete a static profile with what the device measures of itself.

    Args:
        static: what :func:`agent.profile.static.read_static_profile` returned.
        home: the agent's folder; it keeps the figures for the next start.
        target: the canonical target the agent was started with, which the figures are then for;
            by default the one derived from the profile.
        command: the profile job; ``--spec FILE --out FILE`` is appended.
        timeout_s: seconds after which the job is killed.

    Returns:
        The profile with ``measured`` and ``llvm_cpu``. Where measuring fails, every figure is
        ``None`` and the reason is logged: a device that cannot measure itself can still tune.
    """
    key = cache.cache_key(static, target)
    found = cache.load(home, key)
    if found is None:
        try:
            found = await _run_job(static, target, command, timeout_s)
        except (OSError, ProfileJobError) as e:
            _LOG.warning("profile.not_measured", reason=str(e))
            return replace(static, measured=MeasuredProfile())
        _keep(home, key, found)
    return replace(static, llvm_cpu=found.llvm_cpu, measured=found.measured)


def _keep(home: Path, key: str, found: Measurement) -> None:
    if not found.undisturbed:
        _LOG.warning("profile.not_cached", reason="the machine was busy while measuring")
        return
    try:
        cache.store(home, key, found)
    except OSError as e:
        _LOG.warning("profile.not_cached", reason=str(e))


async def _run_job(
    static: DeviceProfile, target: str | None, command: Sequence[str], timeout_s: float
) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="tunefleet-profile-") as folder:
        spec, out = Path(folder) / "spec.json", Path(folder) / "out.json"
        spec.write_text(json.dumps({"profile": json.loads(static.to_json()), "target": target}))
        job = await asyncio.create_subprocess_exec(
            *command,
            *("--spec", str(spec), "--out", str(out)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TVM_NUM_THREADS": str(static.logical_cores)},
        )
        try:
            async with asyncio.timeout(timeout_s):
                _, errors = await job.communicate()
        except TimeoutError as e:
            raise ProfileJobError(f"the job did not end within {timeout_s:g} s") from e
        finally:
            # Also where the agent is stopped meanwhile: no job outlives it.
            if job.returncode is None:
                job.kill()
                await job.wait()
        if job.returncode != 0:
            tail = errors[-_STDERR_TAIL_BYTES:].decode(errors="replace").strip()
            raise ProfileJobError(f"the job ended with status {job.returncode}: {tail}")
        try:
            return Measurement.from_dict(json.loads(out.read_text(encoding="utf-8")))
        except (OSError, ValueError) as e:
            raise ProfileJobError(f"the job left no usable result: {e}") from e
