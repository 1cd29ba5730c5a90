"""Wraps the methods of a service, whichever kind they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from coordinator.server.errors import Handler, kind_of

Wrap: TypeAlias = Callable[[Callable[..., Any], str], Callable[..., Any]]
"""Takes a method and its full name, and returns what is called in its place."""


def wrapped(found: Any, method: str, unary: Wrap, stream: Wrap) -> Handler:
    """Wrap a handler.

    Args:
        found: the handler, or None where there is no such method.
        method: its full name.
        unary: wraps methods that return one message.
        stream: wraps methods that yield messages.
    """
    if found is None:
        missing: Any = None
        return missing  # type: ignore[no-any-return]
    make, inner = kind_of(found)
    handler: Handler = make(
        (stream if found.response_streaming else unary)(inner, method),
        request_deserializer=found.request_deserializer,
        response_serializer=found.response_serializer,
    )
    return handler
