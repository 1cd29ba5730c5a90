"""What holds of every request, whichever RPC it is for: none of it is boundless."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import MAX_TRACE_CHARS

MAX_TEXT_CHARS = 16 * 1024
"""Four times the longest description; names, targets and selectors have bounds of their own."""

MAX_TEXTS = 1_000
"""Texts or messages in one field, as many as a dataset may have files."""

MAX_NUMBERS = 10_000
"""Numbers in one field: samples are some dozens."""

_LONG_TEXTS = {"tunefleet.v1.Trial.trace": MAX_TRACE_CHARS}
_MANY = {
    # A large network has some thousand nodes.
    "tunefleet.v1.BenchmarkResult.ops": MAX_NUMBERS,
}
_CHECKED_ONE_BY_ONE = frozenset(
    # A trial that cannot be used spoils none of the others.
    {"tunefleet.v1.ReportTrialsRequest.trials"}
)


def check(request: Any) -> Any:
    """Return a request if it keeps to the bounds.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    try:
        check_fields(request)
    except ValueError as e:
        raise TuneFleetError(Reason.INVALID_ARGUMENT, str(e)) from e
    return request


async def checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield the requests of a stream, each checked. Raises INVALID_ARGUMENT."""
    async for request in requests:
        yield check(request)


def check_fields(message: Message) -> None:
    """Check how long the texts and lists of a message are, those of its parts included.

    Raises:
        ValueError: one is too long, a text holds NUL, which PostgreSQL cannot store, or a time is
            none.
    """
    if isinstance(message, (Duration, Timestamp)):
        message.ToJsonString()  # it is the one that checks
        return
    for field, value in message.ListFields():
        name = field.full_name
        if name in _CHECKED_ONE_BY_ONE:
            continue
        part = field.message_type
        if field.is_repeated:
            plain = part is None and field.cpp_type != field.CPPTYPE_STRING
            most = _MANY.get(name, MAX_NUMBERS if plain else MAX_TEXTS)
            if len(value) > most:
                raise ValueError(f"{field.name} has {len(value)} entries, {most} are the most")
            if plain:
                continue
            if part is not None and part.GetOptions().map_entry:
                _check_map(field, value)
                continue
            for item in value:
                _check_one(field, item)
        else:
            _check_one(field, value)


@cache
def _has_bounds(kind: Descriptor) -> bool:
    """Return whether there is anything to check of a kind of messages: more than single numbers."""
    return kind.full_name.startswith("google.") or any(
        field.is_repeated or field.message_type is not None or field.type == field.TYPE_STRING
        for field in kind.fields
    )


def _check_map(field: Any, entries: Any) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for name, item in entries.items():
        _check_one(key, name)
        _check_one(value, item)


def _check_one(field: Any, value: Any) -> None:
    if isinstance(value, str):
        most = _LONG_TEXTS.get(field.full_name, MAX_TEXT_CHARS)
        if len(value) > most:
            raise ValueError(f"{field.name} has {len(value)} characters, {most} are the most")
        if "\0" in value:
            raise ValueError(f"{field.name} holds a NUL character")
    elif field.message_type is not None and _has_bounds(field.message_type):
        check_fields(value)
