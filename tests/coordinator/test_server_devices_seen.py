from __future__ import annotations

from store_samples import NOW, device
from structlog.testing import capture_logs

from coordinator.server.bus import Bus
from coordinator.server.limits import OFFLINE_AFTER_S
from coordinator.server.upkeep import Upkeep
from coordinator.state.store import Store


def test_the_log_tells_who_came_and_went(store: Store) -> None:
    now = NOW
    upkeep = Upkeep(store, Bus(), lambda: now)

    def check() -> list[tuple[str, str]]:
        with capture_logs() as logs:
            upkeep.check_devices()
        return [(entry["event"], entry["device"]) for entry in logs]

    for name in ("pi4", "pi5"):
        store.put_device(device(name, last_seen_unix_s=now))
    assert check() == [], "who registers is told of elsewhere"
    now += OFFLINE_AFTER_S + 1
    store.touch_devices(["id-pi5"], now)
    assert check() == [("device offline", "pi4")]
    assert check() == []
    store.touch_devices(["id-pi4"], now)
    assert check() == [("device online", "pi4")]
    assert check() == []


def test_devices_that_were_heard_of(store: Store) -> None:
    assert store.heard_of(NOW - 10, NOW + 10) == frozenset()
    for number, name in enumerate(("a", "b", "c")):
        store.put_device(device(name, last_seen_unix_s=NOW + 10 * number))
    assert store.heard_of(NOW, NOW + 10) == {"id-a", "id-b"}
    assert store.heard_of(NOW + 11, NOW + 100) == {"id-c"}
