"""What peers say of themselves beside their messages, and which protocols they speak."""

from __future__ import annotations

DEVICE_KEY = "tunefleet-device"
"""Metadata of every call of an agent: its device id."""
