"""Lets each call through, or not, and notes what was refused and what people did."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.json_format import Error as JsonError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from coordinator.security.directory import LOCAL, Caller, Directory, caller
from coordinator.security.rules import RULES, Rule
from coordinator.server.calls.handlers import Inner, Method, OwnMethodsInterceptor
from coordinator.state.identity_records import AuditRecord, Role
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

_MAX_DETAIL_CHARS = 500
_MAX_DETAILED_BYTES = 64 * 1024
"""Writing larger ones, of which so little is kept, would keep others waiting."""
_Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


class AccessInterceptor(OwnMethodsInterceptor):
    """Checks every call of ours: who makes it, whether they may, whether they speak for themselves.

    Errors are raised; the interceptor outside of this one turns them into statuses.
    """

    def __init__(
        self,
        store: Store,
        directory: Directory,
        *,
        insecure: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._directory = directory
        self._insecure = insecure
        self._clock = clock

    def wrap_unary(self, inner: Inner, method: Method) -> Inner:
        """Let a call through, or not."""

        async def call(request: Any, context: _Context) -> Any:
            made = await self._admit(method.name, request, context)
            with self._directory.call(made.who):
                try:
                    response = await inner(request, context)
                except TuneFleetError as e:
                    await self._note(made, e.reason.name)
                    raise
                await self._note(made, "OK")
                return response

        return call

    def wrap_stream(self, inner: Inner, method: Method) -> Inner:
        """Let a call through, or not."""

        async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
            made = await self._admit(method.name, request, context)
            with self._directory.call(made.who):
                try:
                    async with aclosing(inner(request, context)) as responses:
                        async for response in responses:
                            yield response
                except TuneFleetError as e:
                    await self._note(made, e.reason.name)
                    raise
                await self._note(made, "OK")

        return call

    async def _admit(self, method: str, request: Any, context: _Context) -> _Call:
        """Say who calls, and make it known to the method.

        Raises:
            TuneFleetError: UNAUTHENTICATED or FORBIDDEN.
        """
        peer = context.peer() or ""
        who: Caller | None = None
        try:
            who = self._identify(context)
            rule = RULES.get(method)
            if rule is None:
                raise _forbidden(f"nobody may call {method}")
            if who is not LOCAL:
                _check(rule, who, method, request)
        except TuneFleetError as e:
            name = "" if who is None else str(who)
            log.warning("call refused", who=name, peer=peer, method=method, why=e.message)
            # Who is not identified could fill the disk with entries.
            if who is not None:
                await self._write(_Call(who, False, method, request, peer), e.reason.name)
            raise
        caller.set(who)
        return _Call(who, rule.audited and who.role.is_user, method, request, peer)

    def _identify(self, context: _Context) -> Caller:
        if self._insecure:
            return LOCAL
        pems = list(context.auth_context().get("x509_pem_cert", ()))
        if not pems:
            raise TuneFleetError(Reason.UNAUTHENTICATED, "a certificate is needed")
        return self._directory.identify(pems[0])

    async def _note(self, made: _Call, outcome: str) -> None:
        if made.audited:
            await self._write(made, outcome)

    async def _write(self, made: _Call, outcome: str) -> None:
        entry = AuditRecord(
            self._clock(),
            str(made.who),
            made.peer,
            made.method.removeprefix("/tunefleet.v1."),
            _detail(made.request),
            outcome,
        )
        try:
            await asyncio.to_thread(self._store.note_audit, entry)
        except Exception:  # what was done is done: its answer must not be lost over the log
            log.exception("audit entry lost", entry=asdict(entry))


@dataclass(frozen=True)
class _Call:
    """A call that was let through, or refused to somebody known."""

    who: Caller
    audited: bool
    method: str
    request: Any
    peer: str


def _check(rule: Rule, who: Caller, method: str, request: Any) -> None:
    name = method.rpartition("/")[2]
    if not rule.allows(who.role):
        raise _forbidden(f"{who} has the role {who.role}, which may not call {name}")
    if who.role is Role.AGENT and isinstance(request, Message):
        claimed = getattr(request, "device_id", who.name)
        if claimed != who.name:
            raise _forbidden(f"{who} may not speak for the device {claimed[:80]!r}")


def _detail(request: Any) -> str:
    """Write what a request asks for, for people who read the log."""
    if not isinstance(request, Message):
        return ""
    if request.ByteSize() > _MAX_DETAILED_BYTES:
        return f"a request of {request.ByteSize()} bytes"
    try:
        text = json.dumps(MessageToDict(request), ensure_ascii=True)
    except (ValueError, JsonError) as e:  # a time that is none, in what was refused
        text = f"a request that cannot be written: {e}"
    return text if len(text) <= _MAX_DETAIL_CHARS else text[: _MAX_DETAIL_CHARS - 1] + "…"


def _forbidden(message: str) -> TuneFleetError:
    return TuneFleetError(Reason.FORBIDDEN, message)
