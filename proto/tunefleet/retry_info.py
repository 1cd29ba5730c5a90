"""When a refused call may be made again: google.rpc.RetryInfo in a call's trailing metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tunefleet.conversions import seconds

LONGEST_WAIT_S = 300.0
"""Whatever the other side says: who asks again after so long is no burden."""

_DETAILS_KEY = "grpc-status-details-bin"


def retry_after_s(trailing_metadata: object) -> float:
    """Return the seconds that the coordinator asks to wait for; 0 where it says nothing.

    Args:
        trailing_metadata: of the failed call, of gRPC's synchronous or asynchronous kind.
    """
    pairs = cast("Iterable[tuple[str, str | bytes]]", trailing_metadata or ())
    info = error_details_pb2.RetryInfo()
    for key, value in pairs:
        if key != _DETAILS_KEY or isinstance(value, str):
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            continue
        if any(detail.Unpack(info) for detail in status.details):
            return min(max(seconds(info.retry_delay), 0.0), LONGEST_WAIT_S)
    return 0.0
