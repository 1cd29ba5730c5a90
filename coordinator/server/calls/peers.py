"""Who is calling, as far as limits are concerned."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import grpc

from tunefleet.protocol import DEVICE_KEY

_Context = grpc.aio.ServicerContext[Any, Any]


def host_of(context: _Context) -> str:
    """Return the address that a call comes from, without the port.

    ``ipv4:10.0.0.7:53124`` and ``ipv6:%5Bfe80::1%5D:53124`` are how gRPC writes it.
    """
    kind, _, rest = unquote(context.peer() or "").partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind or "unknown"
    return rest.rpartition(":")[0].strip("[]")


def peer_of(context: _Context, request: object = None) -> str:
    """Return the name under which a caller's use is counted.

    It is the name in the certificate. On plain text it is the host, and the device that the call or
    its request says it comes from: through an SSH tunnel all agents come from the same host.

    Args:
        context: of the call.
        request: its message, where there is one already.
    """
    for name in context.auth_context().get("x509_common_name", ()):
        return f"certificate/{name.decode(errors='replace')}"
    device = ""
    for key, value in context.invocation_metadata() or ():
        if key == DEVICE_KEY and isinstance(value, str):
            device = value
    device = device or str(getattr(request, "device_id", ""))
    host = host_of(context)
    return f"{host}/{device[:64]}" if device else host
