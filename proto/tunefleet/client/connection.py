"""One channel to a coordinator: deadlines, retries and errors by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import grpc
import stamina
from google.protobuf.message import Message

from tunefleet.client.repeating import repeatable
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.failures import named_failure
from tunefleet.identity.credentials import CHANNEL_OPTIONS, find_credentials
from tunefleet.protocol import this_client

CALL_DEADLINE_S = 30.0
"""Longest time for one unary call. Importing a model is no part of any call."""
FIRST_CALL_DEADLINE_S = 4.0
"""The same until the coordinator has answered once: a wrong address shows within five seconds."""
PATIENCE_S = 20.0
"""How long a call is repeated while a coordinator that has answered before is away."""
FIRST_CALL_PATIENCE_S = 1.5
"""The same until it has answered once."""

_CHANNEL_OPTIONS = (
    # Half-open connections show up only after a quarter of an hour without these
    # (https://github.com/grpc/grpc/issues/32435).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # By default a refused connection is tried again after one second, later after two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A coordinator is inside the network; an HTTP proxy from the environment leads astray.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.primary_user_agent", this_client().user_agent()),
)

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
RequestT_contra = TypeVar("RequestT_contra", bound=Message, contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", bound=Message, covariant=True)


class UnaryCall(Protocol[RequestT_contra, ResponseT_co]):
    """A method of a generated stub that sends one message and gets one."""

    def __call__(
        self, request: RequestT_contra, /, timeout: float | None = None
    ) -> ResponseT_co: ...


class Connection:
    """A channel to one coordinator. Nothing is sent before the first call."""

    def __init__(self, address: str, credentials: Path | None = None) -> None:
        """Open a channel.

        Args:
            address: host and port, such as ``127.0.0.1:7460``.
            credentials: folder with credentials; by default those for the address are looked for.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, the address is none; UNAUTHENTICATED, there are no
                credentials for it (see :func:`tunefleet.identity.credentials.find_credentials`).
        """
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"{address!r} is no address of a coordinator",
                hint="Give HOST:PORT, such as 127.0.0.1:7460.",
            )
        self.address = address
        shown = find_credentials(address, credentials)
        if shown is None:
            self.channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        else:
            self.channel = grpc.secure_channel(
                address,
                shown.channel_credentials(),
                options=(*_CHANNEL_OPTIONS, *CHANNEL_OPTIONS),
            )
        self._answered = False

    def close(self) -> None:
        """Close the channel; calls under way end with an error."""
        self.channel.close()

    def call(
        self,
        method: UnaryCall[RequestT, ResponseT],
        request: RequestT,
        *,
        not_found: Reason = Reason.INTERNAL,
    ) -> ResponseT:
        """Make an idempotent unary call, again and again while the coordinator is away.

        Args:
            method: of a generated stub.
            request: what is sent.
            not_found: what a NOT_FOUND that does not name its reason means here.

        Raises:
            TuneFleetError: the reason that the coordinator gave.
        """
        deadline_s = CALL_DEADLINE_S if self._answered else FIRST_CALL_DEADLINE_S
        return self.retried(lambda: method(request, timeout=deadline_s), not_found=not_found)

    def retried(
        self, attempt: Callable[[], ResponseT], *, not_found: Reason = Reason.INTERNAL
    ) -> ResponseT:
        """Run an idempotent attempt until the coordinator answers, within the patience.

        Raises:
            TuneFleetError: the reason that the coordinator gave.
        """
        patience_s = PATIENCE_S if self._answered else FIRST_CALL_PATIENCE_S
        try:
            for trial in stamina.retry_context(
                on=repeatable,
                attempts=None,
                timeout=patience_s,
                wait_initial=0.1,
                wait_max=2.0,
                wait_jitter=0.2,
            ):
                with trial:
                    response = attempt()
        except grpc.RpcError as e:
            raise self.error(e, not_found=not_found) from e
        self._answered = True
        return response

    def error(
        self, failed: grpc.RpcError, *, not_found: Reason = Reason.INTERNAL
    ) -> TuneFleetError:
        """Name a failed call by the catalogue.

        The reason travels in google.rpc.ErrorInfo; where there is none, the status code decides.
        """
        return named_failure(failed, self.address, not_found=not_found)
