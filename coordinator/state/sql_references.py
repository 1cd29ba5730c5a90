"""References to blobs in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Text, exists, or_, select, type_coerce

from coordinator.state.database import Database
from coordinator.state.records import LeaseState
from coordinator.state.store import Store
from coordinator.state.tables import campaigns, leases, model_versions, tasks


class SqlReferences(Store):
    """The part of the store that knows which blobs are named."""

    _db: Database

    def names_blob(self, digest: str) -> bool:
        # Within JSON a digest is what it is elsewhere: hex needs no escaping.
        in_campaigns = [
            type_coerce(column, Text).contains(digest)
            for column in (campaigns.c.spec, campaigns.c.groups, campaigns.c.artifacts)
        ]
        equal: list[ColumnElement[bool]] = [
            column == digest
            for column in (
                campaigns.c.onnx_digest,
                campaigns.c.inputs_digest,
                campaigns.c.outputs_digest,
            )
        ]
        queries: list[Any] = [
            exists(select(campaigns.c.seq).where(or_(*in_campaigns, *equal))),
            exists(select(tasks.c.seq).where(tasks.c.workload_digest == digest)),
            exists(
                select(model_versions.c.seq).where(
                    or_(
                        model_versions.c.digest == digest,
                        model_versions.c.checkpoint_digest == digest,
                    )
                )
            ),
        ]
        active = select(leases.c.message).where(leases.c.state == LeaseState.ACTIVE)
        with self._db.read() as connection:
            if any(connection.execute(select(query)).scalar() for query in queries):
                return True
            needle = digest.encode()
            return any(needle in message for message in connection.execute(active).scalars())
