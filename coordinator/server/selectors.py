"""Device selectors: ``arch=aarch64,site=lab,name=pi*,gpu,os!=old``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from coordinator.state.records import DeviceRecord
from tunefleet.errors import Reason, TuneFleetError

_KEY = re.compile(r"[A-Za-z0-9_./-]{1,100}")
_MAX_CHARS = 2_000
"""Some dozens of terms."""

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
    if len(selector) > _MAX_CHARS:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"the device selector has {len(selector)} characters, {_MAX_CHARS} are the most",
        )
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
    key, sign, value = text.partition("=")
    negated = key.endswith("!")
    key, value = key.removesuffix("!").strip(), value.strip()
    if (
        not _KEY.fullmatch(key)
        or "=" in value
        or bool(sign) is not bool(value)
        or negated > bool(sign)
    ):
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{text.strip()!r} in the device selector {selector!r} should look like key=value, "
            "key!=value or label",
        )
    return Term(key, value or None, negated)


def _actual(key: str, device: DeviceRecord) -> str | None:
    own = _OWN_KEYS.get(key)
    if own is not None:
        return own(device)
    if key.startswith(_TARGET_OPTION):
        option = json.loads(device.target).get(key.removeprefix(_TARGET_OPTION))
        return None if option is None else str(option)
    return device.labels.get(key)
