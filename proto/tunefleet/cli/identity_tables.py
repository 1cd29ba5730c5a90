"""Tables of tokens, identities and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.table import Table

from tunefleet.cli.tables import make_table
from tunefleet.client.identities import AuditEntry, Identity, Token


def tokens_table(tokens: Sequence[Token]) -> Table:
    """Make a table of join tokens."""
    table = make_table("id", "for", "labels", "uses left", "until", "made by", "state")
    for token in tokens:
        table.add_row(
            token.id,
            f"{token.role} {token.name}".strip(),
            ", ".join(f"{key}={value}" for key, value in sorted(token.labels.items())),
            f"{token.uses_left} of {token.uses}",
            _when(token.expires_at),
            token.created_by,
            _token_state(token),
        )
    return table


def identities_table(identities: Sequence[Identity]) -> Table:
    """Make a table of who was let in."""
    table = make_table("name", "role", "joined", "certificate until", "state")
    for each in identities:
        state = "revoked" if each.revoked else "ended" if _past(each.expires_at) else "in"
        table.add_row(each.name, each.role, _when(each.created_at), _when(each.expires_at), state)
    return table


def audit_table(entries: Sequence[AuditEntry]) -> Table:
    """Make a table of the audit log."""
    table = make_table("seq", "when", "who", "from", "did", "outcome", "detail", right=("seq",))
    for entry in entries:
        table.add_row(
            str(entry.seq),
            _when(entry.at),
            entry.actor,
            entry.peer,
            entry.action,
            entry.outcome,
            entry.detail,
        )
    return table


def _token_state(token: Token) -> str:
    if token.revoked:
        return "revoked"
    if _past(token.expires_at):
        return "ended"
    return "good" if token.uses_left else "used up"


def _when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _past(moment: datetime) -> bool:
    return moment < datetime.now(UTC)
