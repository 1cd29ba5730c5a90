"""Which failed calls are worth another attempt, and when."""

from __future__ import annotations

import grpc

from tunefleet.retry_info import retry_after_s


def repeatable(error: Exception) -> bool | float:
    """Tell whether a call may be made again; a hook for stamina.

    Returns:
        Whether, or the seconds that the coordinator asks to wait for first.
    """
    if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE:
        return True
    return asked_wait_s(error) or False


def asked_wait_s(error: Exception) -> float:
    """Return the seconds that the coordinator asks to wait for after a failed call, or 0."""
    return retry_after_s(error.trailing_metadata()) if isinstance(error, grpc.Call) else 0.0
