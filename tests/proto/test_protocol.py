"""Peers agree on the newest protocol that both speak."""

from __future__ import annotations

import pytest

from tunefleet.protocol import SPOKEN, Client, ProtocolRange, this_client


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [
        (ProtocolRange(1, 2), ProtocolRange(1, 1), 1),
        (ProtocolRange(1, 2), ProtocolRange(2, 5), 2),
        (ProtocolRange(3, 4), ProtocolRange(1, 2), None),
        (ProtocolRange(1, 1), ProtocolRange(2, 2), None),
    ],
)
def test_the_newest_common_protocol_is_spoken(
    ours: ProtocolRange, theirs: ProtocolRange, common: int | None
) -> None:
    assert ours.common(theirs) == theirs.common(ours) == common


def test_who_says_nothing_speaks_the_first() -> None:
    assert ProtocolRange.told(0, 0) == ProtocolRange(1, 1)
    assert ProtocolRange.told(-5, 0) == ProtocolRange(1, 1)
    assert ProtocolRange.told(3, 1) == ProtocolRange(3, 3)


def test_this_release_speaks_with_the_one_before() -> None:
    assert SPOKEN.newest - SPOKEN.oldest >= 1


def test_a_client_is_known_by_its_user_agent() -> None:
    assert Client.parse(f"{this_client().user_agent()} grpc-python/1.81") == this_client()


@pytest.mark.parametrize(
    "text", ["", "grpc-python/1.81", "tunefleet/1", "tunefleet/1 protocols/a-b", "tunefleet/" * 99]
)
def test_other_user_agents_say_nothing(text: str) -> None:
    assert Client.parse(text) is None
