"""Who is let in, in memory: looked at by each call, so that a revocation is heeded at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cryptography import x509

from coordinator.state.identity_records import CertificateRecord, Role
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError


@dataclass(frozen=True)
class Caller:
    """Who makes a call."""

    role: Role
    name: str
    serial: str = ""
    """Of the certificate; empty on plain text."""
    expires_at_unix_s: float | None = None
    labels: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        kind = "user" if self.role.is_user else "agent"
        return f"{kind}:{self.name}"


LOCAL = Caller(Role.ADMIN, "local")
"""Anybody on this machine, where plain text was asked for: may do everything, as any agent too."""

caller: ContextVar[Caller] = ContextVar("caller", default=LOCAL)
"""Who makes the call that is being answered."""


class Directory:
    """All certificates that were signed, and the calls in progress of each."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known = {record.serial: record for record in store.list_certificates()}
        self._calls: dict[str, set[asyncio.Task[object]]] = {}

    def add(self, record: CertificateRecord) -> None:
        """Let somebody in whom the store knows already."""
        with self._lock:
            self._known[record.serial] = record

    def revoke(self, name: str) -> None:
        """Refuse a name, which the store has revoked, and end its calls in progress.

        Call it in the event loop.
        """
        with self._lock:
            mine = [record for record in self._known.values() if record.name == name]
            self._known.update({r.serial: replace(r, revoked=True) for r in mine})
        for record in mine:
            for call in list(self._calls.get(record.serial, ())):
                call.cancel()

    def identify(self, pem: bytes) -> Caller:
        """Say who holds a certificate, which the TLS handshake has verified.

        Raises:
            TuneFleetError: UNAUTHENTICATED if it was revoked, has ended, or is not known.
        """
        shown = _read(pem)
        record = self._known.get(shown.serial) or self._adopt(shown)
        if record.revoked:
            raise _refused(f"{record.name} was revoked")
        if self._clock() >= record.expires_at_unix_s:
            raise _refused(f"the certificate of {record.name} has ended")
        labels = tuple(sorted(record.labels.items()))
        return Caller(record.role, record.name, record.serial, record.expires_at_unix_s, labels)

    def _adopt(self, shown: _Shown) -> CertificateRecord:
        """Take a renewal that the store forgot when a backup was restored.

        The authority signed it for the name that it shows, and what that may do is known.
        """
        with self._lock:
            known = [r for r in self._known.values() if r.name == shown.name and not r.revoked]
            if not known:
                raise _refused("the coordinator does not know the certificate")
            record = replace(
                known[-1], serial=shown.serial, expires_at_unix_s=shown.expires_at_unix_s
            )
            self._known[shown.serial] = record
        self._store.add_certificate(record)
        return record

    @contextmanager
    def call(self, who: Caller) -> Iterator[None]:
        """Note a call in progress, which revoking its caller ends.

        Raises:
            TuneFleetError: UNAUTHENTICATED, the caller was revoked meanwhile.
        """
        task = asyncio.current_task()
        if task is None or not who.serial:
            yield
            return
        calls = self._calls.setdefault(who.serial, set())
        calls.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if self._known[who.serial].revoked:
                task.uncancel()
                raise _refused(f"{who.name} was revoked") from None
            raise
        finally:
            calls.discard(task)
            if not calls:
                self._calls.pop(who.serial, None)


@dataclass(frozen=True)
class _Shown:
    """What a certificate says."""

    serial: str
    name: str
    expires_at_unix_s: float


@lru_cache(maxsize=4096)
def _read(pem: bytes) -> _Shown:
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return _Shown(
        f"{certificate.serial_number:x}",
        str(names[0].value) if names else "",
        certificate.not_valid_after_utc.timestamp(),
    )


def _refused(why: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.UNAUTHENTICATED,
        f"access is refused: {why}",
        hint="Ask an admin for a new token and join again.",
    )
