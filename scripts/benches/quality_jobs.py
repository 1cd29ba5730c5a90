"""Child processes of the time-to-quality bench: none outlives it, each keeps a log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_GRACE_S = 15.0
"""Time for an agent to give its lease back, and for a coordinator to close its database."""


class JobError(RuntimeError):
    """A child did not do what it was asked; the message has the end of its log."""


def run_job(
    module: str, spec: Mapping[str, Any], folder: Path, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run ``python -m MODULE --spec FILE --out FILE`` and return what it wrote.

    Args:
        module: to run.
        spec: what it is to do; must be JSON.
        folder: for spec, result and log; made if missing.
        env: variables added to the environment.

    Raises:
        JobError: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = module.rpartition(".")[2]
    spec_path, out_path, log = (folder / f"{name}.{end}" for end in ("spec", "out", "log"))
    spec_path.write_text(json.dumps(spec))
    out_path.unlink(missing_ok=True)
    arguments = [module, "--spec", str(spec_path), "--out", str(out_path)]
    with child(arguments, log, env) as process:
        code = process.wait()
    result: Any = json.loads(out_path.read_text()) if out_path.exists() else None
    if code != 0 or not isinstance(result, dict) or "error" in result:
        told = result["error"] if isinstance(result, dict) and "error" in result else tail(log)
        raise JobError(f"{module} ended with code {code}, see {log}: {told}")
    return result


def run_job_once(
    module: str, spec: Mapping[str, Any], folder: Path, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Do as :func:`run_job`, unless the folder holds the result of the very same spec already."""
    name = module.rpartition(".")[2]
    kept = folder / f"{name}.json"
    if kept.exists():
        before: dict[str, Any] = json.loads(kept.read_text())
        if before["spec"] == dict(spec):
            result: dict[str, Any] = before["result"]
            return result
    made = run_job(module, spec, folder, env)
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps({"spec": dict(spec), "result": made}))
    partial.replace(kept)
    return made


@contextmanager
def child(
    arguments: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m ARGUMENTS`` for as long as the context lasts, then end it and its children.

    It starts in a session of its own: Ctrl-C reaches this process alone, which ends the others.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # Workers that a library starts must find this folder's modules, too.
    paths = [str(_ROOT / "proto"), str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    whole = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | dict(env or {})
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=whole,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-2000:].strip()


def output_of(program: str) -> str:
    """Run a line of Python in a process of its own, so that this one stays free of TVM."""
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().strip().splitlines()[-1]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end children as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
