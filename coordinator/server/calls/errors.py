"""Requests checked on their way in, errors mapped on their way out.

The catalogue's reason travels in google.rpc.ErrorInfo.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from coordinator.server.calls.handlers import Inner, Method, OwnMethodsInterceptor
from coordinator.server.calls.requests import check, checked
from tunefleet.conversions import duration
from tunefleet.errors import Reason, TuneFleetError

_DOMAIN = "tunefleet"
_MAX_MESSAGE_CHARS = 1_000
"""An error travels in headers, of which a caller takes some kilobytes."""
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


class ErrorInterceptor(OwnMethodsInterceptor):
    """Checks what our services are sent and maps what they raise."""

    def wrap_unary(self, inner: Inner, method: Method) -> Inner:
        """Check a request, and answer what is raised with a status."""
        admit = checked if method.takes_stream else check

        async def call(request: Any, context: _Context) -> Any:
            try:
                return await inner(admit(request), context)
            except Exception as e:
                await _abort(context, e, method.name)

        return call

    def wrap_stream(self, inner: Inner, method: Method) -> Inner:
        """Check a request, and end the answers with a status when something is raised."""
        admit = checked if method.takes_stream else check

        async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
            try:
                async with aclosing(inner(admit(request), context)) as responses:
                    async for response in responses:
                        yield response
            except Exception as e:
                await _abort(context, e, method.name)

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
