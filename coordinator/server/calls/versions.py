"""Tells clients of releases that do not fit what to install."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import lru_cache
from typing import Any

import grpc

from coordinator.server.calls.handlers import Inner, Method, OwnMethodsInterceptor
from tunefleet import __version__, protocol
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.protocol import Client

_Context = grpc.aio.ServicerContext[Any, Any]


class VersionInterceptor(OwnMethodsInterceptor):
    """Tells users' clients that speak no protocol of ours what to install."""

    def wrap_unary(self, inner: Inner, method: Method) -> Inner:  # noqa: ARG002
        """Refuse clients that do not fit."""

        async def call(request: Any, context: _Context) -> Any:
            _require_client(context)
            return await inner(request, context)

        return call

    def wrap_stream(self, inner: Inner, method: Method) -> Inner:  # noqa: ARG002
        """Refuse clients that do not fit."""

        async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
            _require_client(context)
            async with aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response

        return call


def _require_client(context: _Context) -> None:
    """Refuse a client of a release that does not fit. Raises INCOMPATIBLE."""
    for key, value in context.invocation_metadata() or ():
        if key == "user-agent":
            refusal = _refuse_client(str(value))
            if refusal is not None:
                raise refusal


_parsed = lru_cache(maxsize=256)(Client.parse)


def _refuse_client(user_agent: str) -> TuneFleetError | None:
    client = _parsed(user_agent)
    if client is None or protocol.SPOKEN.common(client.protocols) is not None:
        return None
    return TuneFleetError(
        Reason.INCOMPATIBLE,
        f"client {client.version} speaks protocol {client.protocols}, coordinator {__version__} "
        f"{protocol.SPOKEN}",
        hint=f"Install the coordinator's release here: pip install 'tunefleet=={__version__}'",
    )
