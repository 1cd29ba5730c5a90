"""Requests checked on their way in, errors mapped on their way out.

The catalogue's reason travels in google.rpc.ErrorInfo.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from coordinator.server.requests import check, checked
from tunefleet.conversions import duration
from tunefleet.errors import Reason, TuneFleetError

_DOMAIN = "tunefleet"
_MAX_MESSAGE_CHARS = 1_000
"""An error travels in headers, of which a caller takes some kilobytes."""
OWN_METHODS = "/tunefleet."
"""What all names of our methods begin with."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


def error_status(error: TuneFleetError) -> status_pb2.Status:
    """Make the google.rpc.Status an error travels as."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.name, domain=_DOMAIN, metadata={"hint": _short(error.hint)}
    )
    details = [AnyMessage()]
    details[0].Pack(info)
    if error.retry_after_s is not None:
        details.append(AnyMessage())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=duration(error.retry_after_s)))
    code, _ = grpc.StatusCode[error.reason.value.grpc_status].value
    return status_pb2.Status(code=code, message=_short(error.message), details=details)


def _short(message: str) -> str:
    if len(message) <= _MAX_MESSAGE_CHARS:
        return message
    return message[: _MAX_MESSAGE_CHARS - 4] + " ..."


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Checks what our services are sent and maps what they raise.

    Others' services, such as health, are left alone.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap a method of ours."""
        found = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if not method.startswith(OWN_METHODS):
            return found
        # None, whatever the types say, where there is no such method.
        handler: Any = found
        if handler is None:
            return found
        make, inner = kind_of(handler)
        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        admit = checked if handler.request_streaming else check
        wrapped: Handler = make(
            wrap(inner, admit, method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def kind_of(handler: Any) -> tuple[Callable[..., Handler], Callable[..., Any]]:
    """Return what makes handlers of this one's kind, and the function that this one calls."""
    if handler.request_streaming:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


def _wrap_unary(
    inner: Callable[..., Awaitable[Any]], admit: Callable[[Any], Any], method: str
) -> Callable[..., Any]:
    async def call(request: Any, context: _Context) -> Any:
        try:
            return await inner(admit(request), context)
        except Exception as e:
            await _abort(context, e, method)

    return call


def _wrap_stream(
    inner: Callable[..., Any], admit: Callable[[Any], Any], method: str
) -> Callable[..., Any]:
    async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            async with aclosing(inner(admit(request), context)) as responses:
                async for response in responses:
                    yield response
        except Exception as e:
            await _abort(context, e, method)

    return call


async def _abort(context: _Context, error: Exception, method: str) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, TuneFleetError):
        log.error("call failed", method=method, exc_info=error)
        # The details are for the log: they may tell more than a caller should know.
        error = TuneFleetError(Reason.INTERNAL, "the coordinator failed to answer")
    await abort_with(context, error)


async def abort_with(context: _Context, error: TuneFleetError) -> NoReturn:
    """End a call with an error of the catalogue."""
    status: Any = rpc_status.to_status(error_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
