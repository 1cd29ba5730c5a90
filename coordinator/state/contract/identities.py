"""Join tokens, certificates, and the audit log."""

from __future__ import annotations

from abc import ABC, abstractmethod

from coordinator.state.identity_records import AuditRecord, CertificateRecord, TokenRecord


class IdentityStore(ABC):
    """What the store does with identities, by the rules of the whole contract."""

    @abstractmethod
    def add_token(self, token: TokenRecord) -> None:
        """Add a token."""

    @abstractmethod
    def get_token(self, token_id: str) -> TokenRecord | None:
        """Return a token, if there is one of the id."""

    @abstractmethod
    def list_tokens(self) -> list[TokenRecord]:
        """Return all tokens, newest first."""

    @abstractmethod
    def revoke_token(self, token_id: str) -> None:
        """Make a token useless. Raises INVALID_ARGUMENT for an unknown one."""

    @abstractmethod
    def enrol(self, certificate: CertificateRecord, now: float) -> None:
        """Spend one use of the certificate's token on it, and keep it.

        Another certificate for the same token, name and key takes no further use.

        Raises:
            TuneFleetError: UNAUTHENTICATED if the token is unknown, revoked, used up or has ended;
                FORBIDDEN if the certificate is an agent's whose name another key holds, or that was
                revoked.
        """

    @abstractmethod
    def add_certificate(self, certificate: CertificateRecord) -> None:
        """Keep a certificate that needs no token: a renewal, or the first admin's."""

    @abstractmethod
    def list_certificates(self) -> list[CertificateRecord]:
        """Return all certificates, oldest first."""

    @abstractmethod
    def revoke_certificates(self, name: str) -> list[CertificateRecord]:
        """Revoke all certificates of a name, and return them; empty where it has none."""

    @abstractmethod
    def forget_certificates(self, before: float) -> int:
        """Forget those that ended before a time and were not revoked; returns how many."""

    @abstractmethod
    def note_audit(self, entry: AuditRecord) -> None:
        """Add to the audit log, whose oldest entries go when it has grown beyond its bound."""

    @abstractmethod
    def list_audit(self, limit: int, before_seq: int = 0) -> list[AuditRecord]:
        """Return entries, newest first; only those before one for a number above 0."""
