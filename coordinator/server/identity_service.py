"""Joining, renewing, and what admins ask about identities."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import structlog

from coordinator.security.admission import Admission, Admitted
from coordinator.security.directory import Directory, caller
from coordinator.state.identity_records import AuditRecord, CertificateRecord, Role, TokenRecord
from coordinator.state.store import Store
from tunefleet.conversions import duration, seconds, timestamp
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import identity_service_pb2 as pb
from tunefleet.v1 import identity_service_pb2_grpc

log = structlog.get_logger()

DEFAULT_AUDIT_ENTRIES = 100
MAX_AUDIT_ENTRIES = 10_000
_MAX_NAME_CHARS = 64

_Context = grpc.aio.ServicerContext[Any, Any]

_ROLES = {role: pb.Role.Value(f"ROLE_{role.name}") for role in Role}
_ROLES_BACK = {number: role for role, number in _ROLES.items()}


class EnrolmentService(identity_service_pb2_grpc.EnrolmentServiceServicer):
    """All that is reachable without a certificate."""

    def __init__(
        self, admission: Admission, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        self._admission = admission
        self._store = store
        self._clock = clock

    async def Enrol(self, request: pb.EnrolRequest, context: _Context) -> pb.EnrolResponse:
        """Exchange a join token for a certificate."""
        try:
            made = await asyncio.to_thread(
                self._admission.enrol,
                request.token_id[:_MAX_NAME_CHARS],
                request.secret,
                request.certificate_request,
                request.name[: _MAX_NAME_CHARS + 1],
            )
        except TuneFleetError as e:
            log.warning(
                "enrolment refused",
                token=request.token_id[:_MAX_NAME_CHARS],
                name=request.name[:_MAX_NAME_CHARS],
                peer=context.peer(),
                why=e.message,
            )
            raise
        kind = "user" if made.role.is_user else "agent"
        log.info("joined", kind=kind, name=made.name, role=made.role, token=request.token_id)
        entry = AuditRecord(
            self._clock(),
            f"{kind}:{made.name}",
            context.peer() or "",
            "EnrolmentService/Enrol",
            f"token {request.token_id}, role {made.role}",
            "OK",
        )
        await asyncio.to_thread(self._store.note_audit, entry)
        return pb.EnrolResponse(
            certificate=made.issued.pem,
            authority=self._admission.authority.pem,
            valid_for=duration(made.lifetime_s),
            role=_ROLES[made.role],
            name=made.name,
        )


class IdentityService(identity_service_pb2_grpc.IdentityServiceServicer):
    """Renews certificates; shows and changes who is let in."""

    def __init__(
        self,
        admission: Admission | None,
        directory: Directory,
        store: Store,
        enrolment_port: int,
        *,
        loopback_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            admission: ``None`` on plain text, where nobody joins.
            directory: who was let in.
            store: where that is kept.
            enrolment_port: which tokens name.
            loopback_only: whether no other machine can reach it.
            clock: seconds since 1970.
        """
        self._admission = admission
        self._directory = directory
        self._store = store
        self._enrolment_port = enrolment_port
        self._loopback_only = loopback_only
        self._clock = clock

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: _Context) -> pb.WhoAmIResponse:
        """Tell callers who they are."""
        who = caller.get()
        left = None if who.expires_at_unix_s is None else who.expires_at_unix_s - self._clock()
        return pb.WhoAmIResponse(
            name=who.name,
            role=_ROLES[who.role],
            valid_for=None if left is None else duration(left),
        )

    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: _Context
    ) -> pb.RenewCertificateResponse:
        """Make a new certificate for the caller."""
        admission = self._required()
        made: Admitted = await asyncio.to_thread(
            admission.renew, caller.get(), request.certificate_request
        )
        log.info("certificate renewed", name=made.name, role=made.role)
        return pb.RenewCertificateResponse(
            certificate=made.issued.pem,
            authority=admission.authority.pem,
            valid_for=duration(made.lifetime_s),
        )

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: _Context
    ) -> pb.CreateTokenResponse:
        """Make a token, whose secret is told this once."""
        role = _ROLES_BACK.get(request.role)
        if role is None:
            raise TuneFleetError(Reason.INVALID_ARGUMENT, f"the role {request.role} is not known")
        admission, creator = self._required(), str(caller.get())
        token, record = await asyncio.to_thread(
            lambda: admission.create_token(
                role,
                request.name,
                dict(request.labels),
                uses=request.uses,
                ttl_s=seconds(request.ttl),
                created_by=creator,
                port=self._enrolment_port,
            )
        )
        return pb.CreateTokenResponse(
            token=token.text(), info=_token_message(record), loopback_only=self._loopback_only
        )

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: _Context
    ) -> pb.ListTokensResponse:
        """Return all tokens."""
        tokens = await asyncio.to_thread(self._store.list_tokens)
        return pb.ListTokensResponse(tokens=[_token_message(token) for token in tokens])

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: _Context
    ) -> pb.RevokeTokenResponse:
        """Make a token useless."""
        await asyncio.to_thread(self._store.revoke_token, request.token_id)
        return pb.RevokeTokenResponse()

    async def ListIdentities(
        self, request: pb.ListIdentitiesRequest, context: _Context
    ) -> pb.ListIdentitiesResponse:
        """Return who was let in."""
        known = await asyncio.to_thread(self._store.list_certificates)
        return pb.ListIdentitiesResponse(identities=_identities(known))

    async def RevokeIdentity(
        self, request: pb.RevokeIdentityRequest, context: _Context
    ) -> pb.RevokeIdentityResponse:
        """Refuse an agent or a user from now on."""
        name = await asyncio.to_thread(self._identity_name, request.name)
        revoked = await asyncio.to_thread(self._store.revoke_certificates, name)
        if not revoked:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"nobody with a certificate is called {request.name[:80]!r}",
                hint="See `tunefleet users list` and `tunefleet devices list`.",
            )
        self._directory.revoke(name)
        log.info("revoked", name=name, by=str(caller.get()))
        [message] = _identities(revoked)
        return pb.RevokeIdentityResponse(identity=message)

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: _Context
    ) -> pb.ListAuditEntriesResponse:
        """Return what people did."""
        if request.limit < 0 or request.before_seq < 0:
            raise TuneFleetError(Reason.INVALID_ARGUMENT, "a number of entries is not negative")
        limit = min(request.limit or DEFAULT_AUDIT_ENTRIES, MAX_AUDIT_ENTRIES)
        entries = await asyncio.to_thread(self._store.list_audit, limit, request.before_seq)
        return pb.ListAuditEntriesResponse(entries=[_audit_message(entry) for entry in entries])

    def _required(self) -> Admission:
        if self._admission is None:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                "this coordinator runs on plain text and lets in everybody on its machine",
                hint="Start it without --insecure to have tokens and certificates.",
            )
        return self._admission

    def _identity_name(self, given: str) -> str:
        """Return the name in the certificates: a device may be called by its own name, too."""
        names = {record.name for record in self._store.list_certificates()}
        if given in names:
            return given
        try:
            return self._store.get_device(given).device_id
        except TuneFleetError:
            return given


def _token_message(token: TokenRecord) -> pb.TokenInfo:
    return pb.TokenInfo(
        token_id=token.token_id,
        role=_ROLES[token.role],
        name=token.name,
        labels=dict(token.labels),
        uses_left=token.uses_left,
        uses=token.uses,
        expires_at=timestamp(token.expires_at_unix_s),
        created_at=timestamp(token.created_at_unix_s),
        created_by=token.created_by,
        revoked=token.revoked,
    )


def _identities(records: Sequence[CertificateRecord]) -> list[pb.Identity]:
    """Put the certificates of each name together; users first."""
    grouped: dict[str, list[CertificateRecord]] = {}
    for record in records:
        grouped.setdefault(record.name, []).append(record)
    messages = [
        (
            not same[-1].role.is_user,
            name,
            pb.Identity(
                role=_ROLES[same[-1].role],
                name=name,
                created_at=timestamp(same[0].issued_at_unix_s),
                expires_at=timestamp(max(record.expires_at_unix_s for record in same)),
                revoked=all(record.revoked for record in same),
                token_id=next((r.token_id for r in reversed(same) if r.token_id), ""),
            ),
        )
        for name, same in grouped.items()
    ]
    return [message for *_, message in sorted(messages, key=lambda each: each[:2])]


def _audit_message(entry: AuditRecord) -> pb.AuditEntry:
    return pb.AuditEntry(
        seq=entry.seq,
        at=timestamp(entry.at_unix_s),
        actor=entry.actor,
        peer=entry.peer,
        action=entry.action,
        detail=entry.detail,
        outcome=entry.outcome,
    )
