"""Checks of what users give, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from tunefleet.errors import Reason, TuneFleetError
from tunefleet.targets import canonical_target


def checked_targets(targets: Sequence[str]) -> list[str]:
    """Return targets in canonical spelling.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, one is not a target.
    """
    try:
        return [canonical_target(target) for target in targets]
    except ValueError as e:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT, str(e), hint="Give a target such as 'llvm -mcpu=znver4'."
        ) from e
