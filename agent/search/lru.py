"""Caches that stay small: an agent may live on a machine with a gigabyte of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from agent.search.evolution import FloatArray

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_FEATURE_BYTES = 2 * 2**20
"""Features kept for one workload: about 1,000 programs of three stores."""


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


class FeatureCache:
    """Keeps the features, float32 [stores, 172], of the programs used last."""

    def __init__(self, limit_bytes: int = _FEATURE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._features: OrderedDict[str, FloatArray] = OrderedDict()

    def __contains__(self, candidate: object) -> bool:
        return candidate in self._features

    def get(self, candidate: str) -> FloatArray:
        """Return a program's features.

        Raises:
            KeyError: they are not kept.
        """
        self._features.move_to_end(candidate)
        return self._features[candidate]

    def put(self, candidate: str, features: FloatArray) -> None:
        """Keep a program's features, and drop those unused for longest beyond the limit."""
        self._features[candidate] = features
        self._bytes += features.nbytes
        while self._bytes > self._limit_bytes and len(self._features) > 1:
            _, dropped = self._features.popitem(last=False)
            self._bytes -= dropped.nbytes
