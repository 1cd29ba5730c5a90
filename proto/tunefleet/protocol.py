"""What peers say of themselves beside their messages, and which protocols they speak.

A protocol's number is raised whenever one side must know more than new fields, which old releases
ignore. A release speaks the one before its newest too, so that a fleet can be brought up to date
device by device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from tunefleet import __version__

DEVICE_KEY = "tunefleet-device"
"""Metadata of every call of an agent: its device id."""

_USER_AGENT = re.compile(r"tunefleet/(?P<version>[^ ]{1,40}) protocols/(\d{1,6})-(\d{1,6})(?: |$)")


@dataclass(frozen=True)
class ProtocolRange:
    """Protocols that somebody speaks, both ends included."""

    oldest: int
    newest: int

    @classmethod
    def told(cls, oldest: int, newest: int) -> Self:
        """Read a range from a message, in which releases that knew no such thing left zeros."""
        return cls(max(1, oldest), max(1, oldest, newest))

    def common(self, other: ProtocolRange) -> int | None:
        """Return the newest protocol that both speak, if there is one."""
        newest = min(self.newest, other.newest)
        return newest if newest >= max(self.oldest, other.oldest) else None

    def __str__(self) -> str:
        return f"{self.oldest}-{self.newest}"


SPOKEN = ProtocolRange(1, 2)
"""By this release. 2: peers tell each other which protocols they speak, and what they can do."""


@dataclass(frozen=True)
class Client:
    """What a user's client says of itself with every call."""

    version: str
    protocols: ProtocolRange

    @classmethod
    def parse(cls, user_agent: str) -> Self | None:
        """Read what gRPC sends as ``user-agent``; ``None`` where somebody else wrote the client."""
        found = _USER_AGENT.match(user_agent)
        if found is None:
            return None
        return cls(found["version"], ProtocolRange.told(int(found[2]), int(found[3])))

    def user_agent(self) -> str:
        """Write it, for the channel option ``grpc.primary_user_agent``."""
        return f"tunefleet/{self.version} protocols/{self.protocols}"


def this_client() -> Client:
    """Return what this release says."""
    return Client(__version__, SPOKEN)
