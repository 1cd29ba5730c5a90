"""Caches that stay small: an agent may live on a machine with a gigabyte of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from agent.search.evolution import FloatArray

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

STORES_BYTES = 2 * 2**20
"""Features of stores kept for one workload: about 1,000 programs of three stores."""
ROWS_BYTES = 2**20
"""Rows of schedules kept for one workload: about 1,500. Equal programs share their stores, but
have a row for every schedule that makes them."""


class Recent(Generic[Key, Value]):
    """Keeps the values used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value kept for a key, or make it. What ``make`` raises is passed on."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        while len(self._values) > self._limit:
            self._values.popitem(last=False)
        return value


class FeatureCache(Generic[Key]):
    """Keeps the features, float32 [rows, 172], of what was used last."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._features: OrderedDict[Key, FloatArray] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._features

    def get(self, key: Key) -> FloatArray:
        """Return the features kept under a key.

        Raises:
            KeyError: they are not kept.
        """
        self._features.move_to_end(key)
        return self._features[key]

    def put(self, key: Key, features: FloatArray) -> None:
        """Keep features under a new key, and drop those unused for longest beyond the limit."""
        self._features[key] = features
        self._bytes += features.nbytes
        while self._bytes > self._limit_bytes and len(self._features) > 1:
            _, dropped = self._features.popitem(last=False)
            self._bytes -= dropped.nbytes
