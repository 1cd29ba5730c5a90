"""Run by Alembic; the connection comes from :mod:`coordinator.state.migrate`."""

from __future__ import annotations

from alembic import context

from coordinator.state.tables import metadata

# SQLite changes a column only by copying its table, which batches do.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
