"""The channel to the coordinator, and what its failures mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import CHANNEL_OPTIONS, Credentials, is_loopback
from tunefleet.retry_info import retry_after_s

FATAL = frozenset({Reason.INCOMPATIBLE, Reason.UNAUTHENTICATED})
"""Failures that no retry cures: the agent ends with a message."""

_KEEPALIVE_S = 30
"""Well above the 10 s that the server requires between pings, well below NAT's usual minutes."""
_PING_ANSWER_S = 10
_RECONNECT_FIRST_S = 0.5
_RECONNECT_LONGEST_S = 10
_MESSAGE_LIMIT_BYTES = 64 * 2**20
"""A lease brings dozens of traces of up to 100 kB each; blobs come in chunks."""
_DETAILS_KEY = "grpc-status-details-bin"

_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        # A server that stumbles over a bug or its disk may be mended while agents wait.
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
_PASSING = frozenset({Reason.RATE_LIMITED, Reason.TIMED_OUT})
_REASON_BY_STATUS = {
    # Not even the call exists: this is no coordinator, or one of another age.
    grpc.StatusCode.UNIMPLEMENTED: Reason.INCOMPATIBLE,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.FORBIDDEN,
}


class Unavailable(Exception):  # noqa: N818 (a state of the other side, not a mistake)
    """The coordinator did not answer, or could not for now; the same call may succeed later."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        """Shortest time until then, where the coordinator named one."""


def open_channel(address: str, credentials: Credentials | None = None) -> grpc.aio.Channel:
    """Open a channel; it connects by itself and again after a loss.

    Args:
        address: ``HOST:PORT``.
        credentials: of this agent; ``None`` for plain text.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.keepalive_time_ms", _KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_S * 1000),
        # Overrides the keepalive timeout with its default of 60 s unless set too.
        ("grpc.http2.ping_timeout_ms", _PING_ANSWER_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", int(_RECONNECT_FIRST_S * 1000)),
        # Also the longest time for one attempt to connect.
        ("grpc.min_reconnect_backoff_ms", _RECONNECT_LONGEST_S * 1000),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_LONGEST_S * 1000),
        ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES),
    ]
    if is_loopback(address):
        # Else http_proxy is honoured, and the proxy's own loopback is called.
        options.append(("grpc.enable_http_proxy", 0))
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    options += CHANNEL_OPTIONS
    return grpc.aio.secure_channel(address, credentials.channel_credentials(), options=options)


def check_address(address: str) -> str:
    """Return the address if it has the form ``HOST:PORT``.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"the coordinator's address {address!r} does not look like HOST:PORT",
        )
    return address


def failure(error: grpc.aio.AioRpcError) -> Unavailable | TuneFleetError:
    """Say what a failed call means: try again, or the reason why that is in vain."""
    info = _error_info(error)
    # A newer coordinator may name errors that this release does not know.
    reason = Reason.__members__.get(info.reason) or _REASON_BY_STATUS.get(error.code())
    message = error.details() or error.code().name
    if reason in _PASSING:
        return Unavailable(message, retry_after_s(error.trailing_metadata()))
    if reason is not None and reason is not Reason.INTERNAL:
        return TuneFleetError(reason, message, info.metadata["hint"])
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return TuneFleetError(
            Reason.UNAUTHENTICATED,
            "who answers is not the coordinator that this agent joined",
            "Check --coordinator; to join another one, give its --token.",
        )
    if error.code() in _TRANSIENT:
        return Unavailable(message)
    return TuneFleetError(Reason.INVALID_ARGUMENT, message)


def _error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Return what a coordinator says of the error; empty where it says nothing."""
    info = error_details_pb2.ErrorInfo()
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in metadata:
        if key != _DETAILS_KEY or isinstance(value, str):
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            break
        if any(detail.Unpack(info) for detail in status.details):
            break
    return info
