"""How long the server waits for its peers, and they for it: nothing lasts for ever.

A peer that opens a call and says nothing, that stops in the middle of a stream, or that does not
read what it asked for, loses that call; nobody else notices. Calls whose client set no deadline
end by the server's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from coordinator.server import limits
from coordinator.server.calls.complaints import Complaints
from coordinator.server.calls.errors import abort_with
from coordinator.server.calls.handlers import Handler, kind_of
from coordinator.server.calls.peers import peer_of
from tunefleet.errors import Reason, TuneFleetError

_Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


@dataclass(frozen=True)
class Patience:
    """How long is waited for what, in seconds."""

    message_s: float = limits.MESSAGE_WAIT_S
    """For the next message of a request, and for a peer to take one of an answer."""
    answer_s: float = limits.ANSWER_LIMIT_S
    """For a handler that gives one answer."""
    stream_s: float = limits.STREAM_LIMIT_S
    """For a whole call with a stream."""


class PatienceInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Ends calls that take too long. It belongs outside of all others."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._complaints = Complaints()
        self._made: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap a method, anybody's; once, with what the interceptors inside of this one made.

        These must not decide here by what they see of the first call.
        """
        method = str(handler_call_details.method)
        known = self._made.get(method)
        if known is not None:
            return known
        found = await continuation(handler_call_details)
        # None, whatever the types say, where there is no such method.
        handler: Any = found
        if handler is None:
            return found
        _, inner = kind_of(handler)
        call = _Call(inner, method, handler, self._patience, self._complaints)
        # A request of one message is taken as a stream of one: gRPC itself would wait for it for
        # ever, before anything of ours is called. On the wire both are the same.
        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        made: Handler = make(
            call.stream if handler.response_streaming else call.answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        self._made[method] = made
        return made


@dataclass(frozen=True)
class _Call:
    """One method, wrapped."""

    inner: Callable[..., Any]
    method: str
    handler: Any
    patience: Patience
    complaints: Complaints

    async def answer(self, requests: AsyncIterator[Any], context: _Context) -> Any:
        """Give one answer in time."""
        streaming = self.handler.request_streaming
        limit_s = self.patience.stream_s if streaming else self.patience.answer_s
        try:
            request = await self._request(requests)
            async with asyncio.timeout(limit_s):
                return await self.inner(request, context)
        except TimeoutError:
            await self._abort(context, _too_slow(f"no answer within {limit_s:g} s"))
        except TuneFleetError as e:
            await self._abort(context, e)

    async def stream(self, requests: AsyncIterator[Any], context: _Context) -> None:
        """Answer for as long as the peer reads."""
        patience = self.patience
        try:
            request = await self._request(requests)
            async with asyncio.timeout(patience.stream_s):
                answers = self.inner(request, context)
                if not hasattr(answers, "__aiter__"):  # it writes by itself
                    await answers
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        await self._write(context, answer)
        except TimeoutError:
            limit = f"a stream may last {patience.stream_s:g} s; open it anew"
            await self._abort(context, _too_slow(limit))
        except TuneFleetError as e:
            await self._abort(context, e)

    async def _write(self, context: _Context, answer: Any) -> None:
        # Buffers of the transport take much; it is a peer's window that fills up here.
        try:
            async with asyncio.timeout(self.patience.message_s):
                await context.write(answer)
        except TimeoutError as e:
            raise _too_slow(f"nothing was read for {self.patience.message_s:g} s") from e

    async def _request(self, requests: AsyncIterator[Any]) -> Any:
        if self.handler.request_streaming:
            return self._paced(requests)
        try:
            return await self._next(aiter(requests))
        except StopAsyncIteration as e:
            raise TuneFleetError(Reason.INVALID_ARGUMENT, "the call came without a request") from e

    async def _paced(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        incoming = aiter(requests)
        while True:
            try:
                request = await self._next(incoming)
            except StopAsyncIteration:
                return
            yield request

    async def _next(self, incoming: AsyncIterator[Any]) -> Any:
        """Return the next message. Raises StopAsyncIteration after the last."""
        try:
            async with asyncio.timeout(self.patience.message_s):
                return await anext(incoming)
        except TimeoutError as e:
            raise _too_slow(f"nothing came for {self.patience.message_s:g} s") from e
        except DecodeError as e:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT, "the request is not the message that it should be"
            ) from e

    async def _abort(self, context: _Context, error: TuneFleetError) -> None:
        peer = peer_of(context)
        if self.complaints.due(peer):
            log.warning("call ended", method=self.method, peer=peer, why=error.message)
        await abort_with(context, error)


def _too_slow(what: str) -> TuneFleetError:
    return TuneFleetError(Reason.TIMED_OUT, f"the call was ended: {what}")
