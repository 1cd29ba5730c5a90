"""The main job on this very machine: coordinator and agent up, one network tuned, results shown."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tunefleet.client import TuneFleet

READY_TIMEOUT_S = 60.0
"""A coordinator answers within seconds; one that takes this long never will."""


def main() -> int:
    """Run the quickstart; returns the process's exit code."""
    options = parse_arguments()
    began = time.monotonic()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tunefleet-quickstart-") as scratch:
        home, model = Path(scratch) / "home", output / "squeezenet.onnx"
        say("Writing squeezenet with seeded random weights")
        run("-m", "coordinator.models.examples", "squeezenet", str(model), "--seed", "0")
        say("Starting a coordinator and an agent on this machine")
        with (output / "up.log").open("wb") as log:
            up = subprocess.Popen(
                [*tunefleet(), "up", "--home", str(home), "--listen", "127.0.0.1:0"],
                stdout=log,
                stderr=log,
            )
        try:
            address = await_fleet(home / "coordinator/run/address", up, output / "up.log")
            say(f"Tuning for {options.trials} trials or {options.time}, whichever ends first")
            tuned = subprocess.run(
                [
                    *(*tunefleet(), "tune", str(model), "--coordinator", address),
                    *("--trials", str(options.trials), "--time", options.time),
                    # What docs/RESULTS.md tells of is the whole budget.
                    *("--min-gain", "0"),
                    *("--output", str(output), "--name", "squeezenet"),
                ],
                check=False,
            )
            if tuned.returncode != 0:
                print(f"tunefleet tune failed; see {output / 'up.log'}", file=sys.stderr)
                return tuned.returncode
            check_runnable(output)
        finally:
            up.send_signal(signal.SIGINT)
            try:
                up.wait(timeout=30)
            except subprocess.TimeoutExpired:
                up.kill()
    result = summarise(output, time.monotonic() - began)
    print(json.dumps(result))
    return verdict(result)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=640, help="candidates to measure")
    parser.add_argument("--time", default="6m", help="longest time for tuning, such as 90s or 6m")
    parser.add_argument("--output", type=Path, default=Path("tunefleet-out/quickstart"))
    return parser.parse_args()


def tunefleet() -> list[str]:
    """Return the command of this environment."""
    return [str(Path(sys.executable).parent / "tunefleet")]


def say(text: str) -> None:
    """Tell what happens next."""
    print(f"\n== {text}", flush=True)


def run(*arguments: str) -> None:
    """Run Python with arguments; raises when it fails."""
    subprocess.run([sys.executable, *arguments], check=True)


def await_fleet(address_file: Path, up: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the coordinator answers and its agent is there; returns the address."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and up.poll() is None:
        if address_file.exists():
            address = address_file.read_text().strip()
            with TuneFleet(address) as fleet:
                if fleet.devices():
                    return address
        time.sleep(0.1)
    raise SystemExit(f"error: the fleet did not come up\n{log.read_text()[-3000:]}")


def check_runnable(output: Path) -> None:
    """Run the tuned module by the script that was handed over with it."""
    example = output / "run.py"
    if example.exists():
        say(f"Running the tuned module by {example}")
        subprocess.run([sys.executable, str(example)], check=True, cwd=output)


def summarise(output: Path, wall_s: float) -> dict[str, object]:
    """Condense the report to what a script wants to know."""
    report = json.loads((output / "report.json").read_text())
    group = report["groups"][0]
    return {
        "model": report["model"],
        "device": {
            "name": ", ".join(group["devices"]),
            "target": group["target"],
            "fingerprint": group["fingerprint"],
        },
        "trials": report["trials"],
        "wall_s": round(wall_s, 1),
        "tuning_s": round(report["tuning_s"], 1),
        "latency_ms": group["latency_ms"],
        "max_abs_err": group["max_abs_err"],
        "cost_model": {
            "versions": len(report["cost_model"]["versions"]),
            "current": report["cost_model"]["current"],
            "pca": report["cost_model"]["pca"],
            "pca_online": report["cost_model"]["pca_online"],
        },
        "artifact_dir": str(output),
    }


def verdict(result: dict[str, object]) -> int:
    """Fail where the promise is not kept: results differ, or tuning did not make it 3x faster."""
    latency, error = result["latency_ms"], result["max_abs_err"]
    assert isinstance(latency, dict)
    if not isinstance(error, float) or error > 1e-3:
        print(f"error: outputs differ from onnxruntime's by {error}", file=sys.stderr)
        return 1
    if latency["tuned"] * 3 > latency["untuned"]:
        print("error: the tuned module is not 3x faster than the untuned one", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.exit(main())
