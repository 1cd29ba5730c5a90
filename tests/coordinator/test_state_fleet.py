"""What the store is asked about many devices at once, or about those of one hardware."""

from __future__ import annotations

from dataclasses import replace

from store_samples import FINGERPRINT, KEY, NOW, PROFILE, device, task

from coordinator.state.records import LeaseState
from coordinator.state.store import Store


def test_many_heard_of_at_once_are_told_what_they_hold(busy_store: Store) -> None:
    busy_store.put_device(device("pi5"))
    held = busy_store.touch_devices(["id-pi4", "id-pi5", "nobody"], NOW + 5)
    assert held == {"id-pi4": "l-1", "id-pi5": ""}
    assert {d.last_seen_unix_s for d in busy_store.list_devices()} == {NOW + 5}
    assert busy_store.touch_devices([], NOW + 6) == {}


def test_devices_of_one_hardware_are_found(store: Store) -> None:
    store.put_device(device())
    store.put_device(device("other", profile=replace(PROFILE, arch="aarch64")))
    assert [d.name for d in store.list_devices(FINGERPRINT)] == ["pi4"]


def test_what_is_worked_on_is_known_by_hardware_and_by_campaign(busy_store: Store) -> None:
    assert busy_store.leased_tasks(FINGERPRINT) == {KEY}
    assert busy_store.leased_tasks("another") == frozenset()
    assert busy_store.is_leased("c-1")
    busy_store.end_lease("l-1", 1, LeaseState.DONE)
    assert busy_store.leased_tasks(FINGERPRINT) == frozenset()
    assert not busy_store.is_leased("c-1")


def test_progress_is_told_of_one_hardware_alone(busy_store: Store) -> None:
    elsewhere = replace(KEY, fingerprint="another")
    busy_store.add_tasks("c-1", [task(elsewhere, "elsewhere")])
    busy_store.end_lease("l-1", 1, LeaseState.DONE)
    assert busy_store.task_progress("c-1", FINGERPRINT) == busy_store.task_progress("c-1")[:2]
    assert [p.task.name for p in busy_store.task_progress("c-1", "another")] == ["elsewhere"]
