"""Wraps the methods of our services, whichever kind they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

OWN_METHODS = "/tunefleet."
"""What all names of our methods begin with."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Inner: TypeAlias = Callable[..., Any]
"""What answers a call: takes the request, or an iterator of them, and the context."""


@dataclass(frozen=True)
class Method:
    """What is wrapped."""

    name: str
    """In full, such as ``/tunefleet.v1.AgentService/Control``."""
    takes_stream: bool
    """Whether its requests are many."""


class OwnMethodsInterceptor(grpc.aio.ServerInterceptor, ABC):  # type: ignore[type-arg]
    """Wraps all methods of ours; others' services, such as health, are left alone.

    Handlers are kept (see PatienceInterceptor): what is decided by the call belongs into what a
    wrapper returns.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap a method of ours."""
        found = await continuation(handler_call_details)
        name = str(handler_call_details.method)
        # None, whatever the types say, where there is no such method.
        handler: Any = found
        if handler is None or not name.startswith(OWN_METHODS):
            return found
        make, inner = kind_of(handler)
        wrap = self.wrap_stream if handler.response_streaming else self.wrap_unary
        made: Handler = make(
            wrap(inner, Method(name, handler.request_streaming)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made

    @abstractmethod
    def wrap_unary(self, inner: Inner, method: Method) -> Inner:
        """Return what is called in the place of a method that returns one message."""

    @abstractmethod
    def wrap_stream(self, inner: Inner, method: Method) -> Inner:
        """Return what is called in the place of a method that yields messages."""


def kind_of(handler: Any) -> tuple[Callable[..., Handler], Inner]:
    """Return what makes handlers of this one's kind, and the function that this one calls."""
    if handler.request_streaming:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary
