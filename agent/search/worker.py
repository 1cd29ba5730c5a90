"""The search worker: ``python -m agent.search.worker --fd N``.

It has TVM and onnxruntime, so the agent's main process need not. No request ends it; it ends when
the agent closes the channel.
"""

from __future__ import annotations

from typing import Any

import structlog

from agent.frames import Channel, worker_channel
from agent.search.messages import (
    ErrorKind,
    SearchError,
    proposal_to_message,
    request_from_message,
)
from agent.search.proposing import Proposer
from tunefleet.machine_lock import MachineLock

log = structlog.get_logger()


def serve(channel: Channel, proposer: Proposer) -> None:
    """Answer requests until the agent is gone."""
    while (message := channel.recv()) is not None:
        channel.send(_answer(message, proposer))


def _answer(message: dict[str, Any], proposer: Proposer) -> dict[str, Any]:
    try:
        return proposal_to_message(proposer.propose(request_from_message(message)))
    except SearchError as e:
        log.warning("search refused", kind=e.kind.value, reason=e.message)
        return {"event": "error", "kind": e.kind.value, "message": e.message}
    except Exception as e:
        log.exception("search failed")
        return {"event": "error", "kind": ErrorKind.INTERNAL.value, "message": repr(e)}


if __name__ == "__main__":
    serve(worker_channel(), Proposer(MachineLock()))
