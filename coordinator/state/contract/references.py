"""Which blobs the records name."""

from __future__ import annotations

from abc import ABC, abstractmethod


class ReferenceStore(ABC):
    """What the store says of blobs, by the rules of the whole contract."""

    @abstractmethod
    def names_blob(self, digest: str) -> bool:
        """Return whether a campaign, a task, a lease that is active or a cost model names it."""
