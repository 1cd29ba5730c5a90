"""Entry point of ``python -m coordinator``."""

import sys

from coordinator.main import main
from coordinator.wiring import wire

sys.exit(main(wire=wire))
