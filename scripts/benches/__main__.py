"""Runs one benchmark: progress on stderr, one JSON object as the last line of stdout."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time

from scripts.benches.harness import machine
from tunefleet.identity.credentials import INSECURE_VARIABLE

NAMES = ("chaos", "costmodel", "fleet", "footprint", "fuzz", "measure", "time-to-quality")


def main() -> None:
    """Run the benchmark named on the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("bench", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="a smaller run for a first look")
    options, rest = parser.parse_known_args()
    bench = importlib.import_module(f"scripts.benches.{options.bench.replace('-', '_')}")
    # Fleets of a bench live on loopback; those that are about TLS ask for it themselves.
    os.environ.setdefault(INSECURE_VARIABLE, "1")
    began = time.monotonic()
    figures = bench.run(quick=options.quick, arguments=rest)
    print(
        json.dumps(
            {
                "bench": options.bench,
                "figures": figures,
                "machine": machine(),
                "wall_s": round(time.monotonic() - began, 1),
            }
        )
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
