"""A cost model as a folder: the names of its files, which both sides and people rely on."""

from __future__ import annotations

ONNX_FILE = "model.onnx"
"""What agents rank with."""
CHECKPOINT_FILE = "checkpoint.npz"
"""What training goes on from: weights and sizes, no code."""
ABOUT_FILE = "model.json"
"""What is known of it, for programs: figures with intervals, what it was trained on and how."""
CARD_FILE = "README.md"
"""The same for people."""

FORMAT = 1
"""Version of ``model.json``, under its key ``tunefleet_model``."""
