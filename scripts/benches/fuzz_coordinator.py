"""A coordinator that never says "too often": each input of the fuzzer must get beyond that."""

from __future__ import annotations

import sys

from coordinator.main import main
from coordinator.server import limits
from coordinator.server.calls import throttling
from coordinator.server.calls.rates import Rate
from coordinator.wiring import wire

_NO_LIMIT = 1e12

if __name__ == "__main__":
    throttling.RATES.update(dict.fromkeys(throttling.Traffic, Rate(_NO_LIMIT, _NO_LIMIT)))
    limits.STREAMS = limits.BLOB_STREAMS = 10_000
    sys.exit(main(wire=wire))
