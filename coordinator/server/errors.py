"""Errors on their way out: the catalogue's reason travels in google.rpc.ErrorInfo."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tunefleet.errors import Reason, TuneFleetError

_DOMAIN = "tunefleet"
_OWN_METHODS = "/tunefleet."
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


def error_status(error: TuneFleetError) -> status_pb2.Status:
    """Make the google.rpc.Status an error travels as."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.name, domain=_DOMAIN, metadata={"hint": error.hint}
    )
    detail = AnyMessage()
    detail.Pack(info)
    code, _ = grpc.StatusCode[error.reason.value.grpc_status].value
    return status_pb2.Status(code=code, message=error.message, details=[detail])


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Maps what our services raise; others' services, such as health, are left alone."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wrap a method of ours."""
        found = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if not method.startswith(_OWN_METHODS):
            return found
        # None, whatever the types say, where there is no such method.
        handler: Any = found
        if handler is None:
            return found
        make, inner = _kind(handler)
        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        wrapped: _Handler = make(
            wrap(inner, method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _kind(handler: Any) -> tuple[Callable[..., _Handler], Callable[..., Any]]:
    if handler.request_streaming:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


def _wrap_unary(inner: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Any]:
    async def call(request: Any, context: _Context) -> Any:
        try:
            return await inner(request, context)
        except Exception as e:
            await _abort(context, e, method)

    return call


def _wrap_stream(inner: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            async with aclosing(inner(request, context)) as responses:
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
    status: Any = rpc_status.to_status(error_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
