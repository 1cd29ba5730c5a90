"""Starts an agent whose calls suffer, and whose journal keeps what it was told.

``python -m scripts.benches.chaos_agent JOURNAL SEED PEACE -- run …``: the agent is the real one,
and what follows the dashes is its own. Once the file PEACE exists, its calls suffer no more.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio

from scripts.benches.chaos_journal import Journal
from tunefleet.v1 import agent_service_pb2

SHARE_OF_REPORTS = 0.25
"""Calls that carry what must be counted once suffer often, others now and then."""
SHARE_OF_OTHERS = 0.04
_HARMED = ("ReportTrials", "CompleteLease")
_LATEST_S = 15.0
"""How late a call may arrive that its sender has given up: several rounds of small programs."""


class Harm(StrEnum):
    """What may befall a call."""

    DUPLICATED = "duplicated"
    """It is made twice, at the same time."""
    LATE = "late"
    """Its sender is told that nobody answers; it arrives all the same, after others."""
    UNANSWERED = "unanswered"
    """It is served, but its sender is told that nobody answers."""


@dataclass
class Tampering:
    """Decides which calls suffer what."""

    chance: random.Random
    peace: Path
    share_of_reports: float = SHARE_OF_REPORTS
    share_of_others: float = SHARE_OF_OTHERS

    def draw(self, call: str) -> Harm | None:
        """Return what befalls a call."""
        share = self.share_of_reports if call in _HARMED else self.share_of_others
        # Drawn at any rate, so that peace changes nothing but its effect.
        suffers, harm = self.chance.random() < share, self.chance.choice(list(Harm))
        return harm if suffers and not self.peace.exists() else None

    def lateness_s(self) -> float:
        """Return how late a call arrives, in seconds."""
        return self.chance.uniform(0.2, _LATEST_S)


class Interceptor(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Makes calls suffer, and journals what answers acknowledge."""

    def __init__(self, journal: Journal, tampering: Tampering) -> None:
        self._journal = journal
        self._tampering = tampering
        self._background: set[asyncio.Task[None]] = set()

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Make a call, or pretend to."""
        name = _name(client_call_details.method)
        harm = self._tampering.draw(name)
        if harm is not None:
            self._journal.fault(harm, name)
        if harm is Harm.LATE:
            later = self._later(continuation, client_call_details, request)
            task = asyncio.create_task(later)
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            _pretend_unavailable()
        calls = [self._made(continuation, client_call_details, request)]
        if harm is Harm.DUPLICATED:
            calls.append(self._made(continuation, client_call_details, request))
        made = await asyncio.gather(*calls)
        if harm is Harm.UNANSWERED:
            _pretend_unavailable()
        return made[-1]

    async def _made(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Return the call once it was answered, or has failed."""
        call = await continuation(details, request)
        if await call.code() is grpc.StatusCode.OK:
            answer = await call
            if isinstance(answer, agent_service_pb2.ReportTrialsResponse):
                refused = [(each.trial_id, each.reason) for each in answer.rejected]
                self._journal.acknowledged(answer.stored_trial_ids, refused)
        return call

    async def _later(self, continuation: Callable[..., Any], details: Any, request: Any) -> None:
        await asyncio.sleep(self._tampering.lateness_s())
        await self._made(continuation, details, request)


def _name(method: str | bytes) -> str:
    text = method.decode() if isinstance(method, bytes) else method
    return text.rpartition("/")[2]


def _pretend_unavailable() -> NoReturn:
    nothing = grpc.aio.Metadata()
    raise grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the answer was lost on purpose", None
    )


def install(interceptor: Interceptor) -> None:
    """Have every channel that this process opens from now on use the interceptor."""
    for name in ("insecure_channel", "secure_channel"):
        original = getattr(grpc.aio, name)

        def opened(
            *arguments: Any, original: Callable[..., grpc.aio.Channel] = original, **options: Any
        ) -> grpc.aio.Channel:
            interceptors = [*(options.pop("interceptors", None) or ()), interceptor]
            return original(*arguments, interceptors=interceptors, **options)

        setattr(grpc.aio, name, opened)


def main() -> None:
    """Run the agent."""
    from agent.cli import main as run_agent  # noqa: PLC0415 (this module is imported by tests, too)

    journal, seed, peace, _, *arguments = sys.argv[1:]
    with Journal(Path(journal)) as kept:
        install(Interceptor(kept, Tampering(random.Random(seed), Path(peace))))
        sys.argv = ["tunefleet-agent", *arguments]
        run_agent()


if __name__ == "__main__":
    main()
