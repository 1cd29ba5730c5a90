"""What the fuzz bench sends: something for every RPC, the same for the same seed."""

from __future__ import annotations

import random

import pytest

from scripts.benches import fuzz_messages as messages
from scripts.benches.fuzz_calls import Rpc, rpcs
from scripts.benches.fuzz_subjects import TRACE, change_json
from tunefleet.v1 import agent_service_pb2, dataset_service_pb2


@pytest.mark.parametrize("rpc", rpcs(), ids=lambda rpc: rpc.name)
def test_every_rpc_has_requests_sound_and_strange(rpc: Rpc) -> None:
    def make(seed: int) -> tuple[bytes, bytes]:
        rng = random.Random(seed)
        message = messages.plausible(rpc.request, {}, rng)
        sound = message.SerializeToString(deterministic=True)
        messages.mutate(message, rng)
        return sound, message.SerializeToString(deterministic=True)

    made = [make(seed) for seed in range(50)]
    assert made == [make(seed) for seed in range(50)]
    assert all(messages.parsed(rpc.request, sound) is not None for sound, _ in made)


def test_known_values_are_used() -> None:
    kind = agent_service_pb2.ControlRequest.DESCRIPTOR
    message = messages.plausible(kind, {"device_id": ["pi4"]}, random.Random(0))
    assert message == agent_service_pb2.ControlRequest(device_id="pi4")


@pytest.mark.parametrize("best", [-1, 0, 7])
def test_the_last_value_of_a_field_is_the_one_that_counts(best: int) -> None:
    kind = dataset_service_pb2.ExportDatasetRequest
    data = kind(best=5).SerializeToString() + messages.last_wins(kind.DESCRIPTOR, "best", best)
    assert kind.FromString(data).best == best


def test_damage_and_changes_are_repeatable() -> None:
    for change in (messages.damage, change_json):
        found = [change(TRACE.encode(), random.Random(n)) for n in range(100)]
        assert found == [change(TRACE.encode(), random.Random(n)) for n in range(100)]
        assert len(set(found)) > 50
