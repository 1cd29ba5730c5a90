"""What somebody switched on or off."""

from __future__ import annotations

from abc import ABC, abstractmethod


class SwitchStore(ABC):
    """What the store keeps of switches, by the rules of the whole contract."""

    @abstractmethod
    def set_switch(self, name: str, *, on: bool) -> None:
        """Switch something on or off."""

    @abstractmethod
    def is_on(self, name: str) -> bool:
        """Return whether it is on; what nobody ever switched is off."""
