"""The search worker: ``python -m agent.search.worker --fd N``.

It has TVM and onnxruntime, so the agent's main process need not. No request ends it; it ends when
the agent closes the channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from agent.frames import Channel, worker_channel
from agent.search.messages import (
    ErrorKind,
    SearchError,
    featurize_from_message,
    featurized_to_message,
    proposal_to_message,
    request_from_message,
)
from tunefleet.machine_lock import MachineLock
from tunefleet.torch_free import forbid_torch

if TYPE_CHECKING:
    from agent.search.proposing import Proposer

log = structlog.get_logger()


def serve(channel: Channel, proposer: Proposer, lock: MachineLock) -> None:
    """Answer requests until the agent is gone."""
    while (message := channel.recv()) is not None:
        channel.send(_answer(message, proposer, lock))


def _answer(message: dict[str, Any], proposer: Proposer, lock: MachineLock) -> dict[str, Any]:
    try:
        if message.get("op") == "featurize":
            from agent.search.featurizing import featurize  # noqa: PLC0415 (it imports TVM)

            return featurized_to_message(featurize(featurize_from_message(message), lock))
        return proposal_to_message(proposer.propose(request_from_message(message)))
    except SearchError as e:
        log.warning("search refused", kind=e.kind.value, reason=e.message)
        return {"event": "error", "kind": e.kind.value, "message": e.message}
    except Exception as e:
        log.exception("search failed")
        return {"event": "error", "kind": ErrorKind.INTERNAL.value, "message": repr(e)}


def main() -> None:
    """Serve requests until the agent is gone."""
    channel = worker_channel()
    forbid_torch()
    from agent.search.proposing import Proposer  # noqa: PLC0415 (it imports TVM)

    lock = MachineLock()
    serve(channel, Proposer(lock), lock)


if __name__ == "__main__":
    main()
