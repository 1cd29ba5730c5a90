"""Device selectors: ``arch=aarch64,site=lab,name=pi*,gpu,os!=old``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from coordinator.state.records import DeviceRecord
from tunefleet.errors import Reason, TuneFleetError

_TERM = re.compile(r"\s*(?P<key>[A-Za-z0-9_./-]+)\s*(?:(?P<operator>!=|=)\s*(?P<value>[^=]*?)\s*)?")

_OWN_KEYS: dict[str, Callable[[DeviceRecord], str | None]] = {
    "arch": lambda device: device.profile.arch,
    "name": lambda device: device.name,
    "id": lambda device: device.device_id,
    "fingerprint": lambda device: device.fingerprint,
    "cpu": lambda device: device.profile.cpu_model,
    "target": lambda device: device.target,
}
_TARGET_OPTION = "target."


@dataclass(frozen=True)
class Term:
    """One condition on a device."""

    key: str
    value: str | None
    """Pattern in which ``*`` and ``?`` stand for anything; ``None`` asks only for the label."""
    negated: bool = False

    def matches(self, device: DeviceRecord) -> bool:
        """Return whether the device meets the condition."""
        actual = _actual(self.key, device)
        if self.value is None:
            return actual is not None
        return (actual is not None and fnmatchcase(actual, self.value)) is not self.negated


def parse_selector(selector: str) -> tuple[Term, ...]:
    """Read a selector; an empty one has no terms and matches every device.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    if not selector.strip():
        return ()
    return tuple(_parse_term(term, selector) for term in selector.split(","))


def matches(selector: str, device: DeviceRecord) -> bool:
    """Return whether a device meets every condition of a selector. Raises INVALID_ARGUMENT.

    A device known from a dataset alone matches none: selectors choose who gets work.
    """
    return bool(select(selector, [device]))


def select(selector: str, devices: Sequence[DeviceRecord]) -> list[DeviceRecord]:
    """Return the devices that match a selector, imported ones excepted. Raises INVALID_ARGUMENT."""
    terms = parse_selector(selector)
    return [
        device
        for device in devices
        if not device.imported and all(term.matches(device) for term in terms)
    ]


def _parse_term(text: str, selector: str) -> Term:
    parsed = _TERM.fullmatch(text)
    if parsed is None or parsed["value"] == "":
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{text.strip()!r} in the device selector {selector!r} should look like key=value, "
            "key!=value or label",
        )
    return Term(parsed["key"], parsed["value"], parsed["operator"] == "!=")


def _actual(key: str, device: DeviceRecord) -> str | None:
    own = _OWN_KEYS.get(key)
    if own is not None:
        return own(device)
    if key.startswith(_TARGET_OPTION):
        option = json.loads(device.target).get(key.removeprefix(_TARGET_OPTION))
        return None if option is None else str(option)
    return device.labels.get(key)
