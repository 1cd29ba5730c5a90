"""What TenSet's devices are, for whoever knows it: TenSet does not say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.dataset.tenset import find_records
from tunefleet.devices import DeviceProfile
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import hardware_vector
from tunefleet.targets import canonical_target

_MAX_BYTES = 1 << 20
"""A hundred times a profile."""


def read_profiles(given: Sequence[Sequence[str]], place: Path) -> dict[str, DeviceProfile]:
    """Read the profiles that somebody named.

    Args:
        given: pairs of a device, as TenSet's folder is called, and a file; the device is empty
            where all records are of one.
        place: of TenSet's records.

    Returns:
        By device.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, a file is no profile, or it is not known whose it is.
    """
    if not given:
        return {}
    devices = sorted({path.absolute().parent.name for path in find_records(place)})
    found: dict[str, DeviceProfile] = {}
    for device, file in given:
        if not device and len(devices) > 1:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"a profile describes one device, and the records in {place} are of "
                f"{len(devices)}: {', '.join(devices)}",
                hint="Give --profile DEVICE=FILE.json for each that is known.",
            )
        if device and device not in devices:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"{place} has no records of a device {device!r}",
                hint=f"There are {', '.join(devices)}.",
            )
        found[device or devices[0]] = _read(Path(file))
    return found


def _read(path: Path) -> DeviceProfile:
    """Read a profile by itself, or within what ``tunefleet devices show`` prints."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")  # noqa: TRY301
        content = json.loads(path.read_text(encoding="utf-8"))
        for name in ("device", "profile"):
            if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
                content = content[name]
        profile = DeviceProfile.from_json(json.dumps(content))
        # Numbers that are none show up here, and not while records are read.
        hardware_vector(profile, canonical_target("llvm -num-cores=1"))
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{path} is no device's profile: {e}",
            hint="Write one with `tunefleet devices show NAME --format json > FILE.json`.",
        ) from e
    return profile
