"""The doors of the coordinator: which ports there are, what they show, and who passes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import grpc
import structlog

from coordinator.security.admission import Admission
from coordinator.security.authority import Authority, ServerPair
from coordinator.security.directory import Directory
from coordinator.server import limits
from coordinator.server.address import join_address
from coordinator.server.calls.access import AccessInterceptor
from coordinator.server.calls.errors import ErrorInterceptor
from coordinator.server.calls.patience import PatienceInterceptor
from coordinator.server.calls.throttling import ThrottlingInterceptor
from coordinator.server.calls.versions import VersionInterceptor
from coordinator.server.core import Core, ServerConfig
from coordinator.server.identity_service import EnrolmentService
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import Credentials, folder_for
from tunefleet.v1 import identity_service_pb2_grpc

log = structlog.get_logger()

_EVERYWHERE = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - only compared with
"""Listening there includes loopback."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two servers could bind the same port otherwise, and share its connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", limits.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", limits.KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", limits.KEEPALIVE_TIMEOUT_MS),
    # It overrides the former, and is a minute by default.
    ("grpc.http2.ping_timeout_ms", limits.KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", limits.MIN_CLIENT_PING_INTERVAL_MS),
    ("grpc.max_concurrent_streams", limits.STREAMS_A_CONNECTION),
    ("grpc.server_handshake_timeout_ms", limits.HANDSHAKE_LIMIT_MS),
    ("grpc.max_connection_age_ms", limits.CONNECTION_AGE_MS),
    ("grpc.max_connection_age_grace_ms", limits.CONNECTION_AGE_GRACE_MS),
)

_OTHERWISE_FOR_STRANGERS = frozenset(
    {
        "grpc.max_receive_message_length",
        "grpc.max_concurrent_streams",
        "grpc.max_connection_age_ms",
        "grpc.max_connection_age_grace_ms",
    }
)
_ENROLMENT_OPTIONS = (
    *((name, value) for name, value in _OPTIONS if name not in _OTHERWISE_FOR_STRANGERS),
    ("grpc.max_receive_message_length", limits.MAX_ENROLMENT_BYTES),
    ("grpc.max_concurrent_streams", 1),
    ("grpc.max_connection_age_ms", limits.ENROLMENT_AGE_MS),
    ("grpc.max_connection_age_grace_ms", limits.ENROLMENT_AGE_MS),
)


@dataclass(frozen=True)
class Gate:
    """Who may pass, and what they are shown."""

    core: Core
    directory: Directory
    admission: Admission | None
    """``None`` on plain text."""

    @classmethod
    def open(cls, core: Core, *, insecure: bool) -> Gate:
        """Read who was let in; make the authority and the first admin where there are none.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, the authority's files are damaged.
        """
        directory = Directory(core.store, core.clock)
        if insecure:
            return cls(core, directory, None)
        authority = Authority(core.home.authority_dir)
        admission = Admission(core.store, authority, directory, core.clock)
        admission.forget_ended()
        admission.keep_first_admin(core.home.admin_dir)
        return cls(core, directory, admission)

    def server(self) -> grpc.aio.Server:
        """Make the server of the main port, without services."""
        access = AccessInterceptor(
            self.core.store,
            self.directory,
            insecure=self.admission is None,
            clock=self.core.clock,
        )
        return grpc.aio.server(interceptors=[*outer_interceptors(), access], options=_OPTIONS)

    def main_credentials(self) -> grpc.ServerCredentials | None:
        """Return what the main port shows and asks for; ``None`` on plain text."""
        if self.admission is None:
            return None
        authority = self.admission.authority
        pair = authority.server_pair()
        return grpc.ssl_server_credentials(
            [(pair.key, pair.certificate)], authority.pem, require_client_auth=True
        )

    @contextmanager
    def told(self, address: str) -> Iterator[None]:
        """Let this person's commands on this machine find the admin's credentials meanwhile."""
        if self.admission is None:
            yield
            return
        host, _, port = address.rpartition(":")
        reachable = f"127.0.0.1:{port}" if host in _EVERYWHERE else address
        folder = folder_for(reachable)
        mine = Credentials.load(self.core.home.admin_dir)
        try:
            assert mine is not None
            mine.save(folder)
        except OSError as e:
            log.warning("commands will not find the credentials", folder=str(folder), why=str(e))
        try:
            yield
        finally:
            with suppress(OSError, TuneFleetError):
                if Credentials.load(folder) == mine:
                    shutil.rmtree(folder)

    def enrolment(
        self, host: str, port: int, config: ServerConfig
    ) -> tuple[grpc.aio.Server | None, int]:
        """Make the server of the enrolment port.

        Returns:
            The server and its port; ``None`` and 0 on plain text.

        Raises:
            TuneFleetError: ADDRESS_IN_USE.
        """
        if self.admission is None:
            return None, 0
        server = grpc.aio.server(
            interceptors=outer_interceptors(),
            options=_ENROLMENT_OPTIONS,
            maximum_concurrent_rpcs=limits.MAX_ENROLMENTS_AT_ONCE,
        )
        identity_service_pb2_grpc.add_EnrolmentServiceServicer_to_server(
            EnrolmentService(self.admission, self.core.store, self.core.clock), server
        )
        if config.enrolment_port is not None:
            wanted = config.enrolment_port
        else:
            # Where any port will do, any other will, too.
            wanted = 0 if config.listen.endswith(":0") else port + 1
        shown = _enrolment_credentials(self.admission.authority.enrolment)
        return server, bind(server, host, wanted, shown)


def outer_interceptors() -> list[grpc.aio.ServerInterceptor]:  # type: ignore[type-arg]
    """Make what every call passes through, from the outside to the inside."""
    return [
        PatienceInterceptor(),
        ErrorInterceptor(),
        ThrottlingInterceptor(),
        VersionInterceptor(),
    ]


def _enrolment_credentials(pair: ServerPair) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(pair.key, pair.certificate)])


def bind(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> int:
    """Listen; returns the port.

    Raises:
        TuneFleetError: ADDRESS_IN_USE.
    """
    address = join_address(host, port)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as e:
        raise TuneFleetError(
            Reason.ADDRESS_IN_USE, f"cannot listen on {address}: it is in use"
        ) from e
