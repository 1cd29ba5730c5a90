"""Messages for the fuzzer: plausible ones from their descriptors, and what chance makes of them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

Pools = Mapping[str, Sequence[Any]]
"""Values that the coordinator knows, by the name of the field that they are for."""

_DEPTH = 5
_LONGEST = 70_000
_INTEGERS = (0, 1, -1, 2, 7, 255, 4096, 2**15, 2**31 - 1, -(2**31), 2**31, 2**53 + 1, 10**18)
_WIDE = (*_INTEGERS, 2**63 - 1, -(2**63))
_FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 1e-3, 0.999999, 1e300, -1e300, 1.7e308, 5e-324, 1e19, 1e10),
    *(float("nan"), float("inf"), float("-inf")),
)
_SECONDS = (0, 1, -1, 10**9, 315_576_000_000, 315_576_000_001, 2**63 - 1, -(2**63), 253_402_300_800)
_NANOS = (0, 1, -1, 999_999_999, 10**9, 2**31 - 1, -(2**31))
_TEXTS = (
    *("", " ", "\0", "a\0b", "\n", "\x1b[31m", "\ufeff", "\u202egnp", "\U0010ffff", "é" * 300),
    *("../../../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "C:\\x", "~root", "file:///x"),
    *("' OR 1=1 --", "%", "_", "%s%n", "{}", "{0.__class__}", "$(id)", "<script>", "=1+1"),
    *("NaN", "null", "-1", "1e400", "9" * 5000, "[" * 5000, '{"a":' * 2000, "[[],[]]", "[[[]]]"),
    *('{"kind":"llvm"}', '{"kind":"llvm","num-cores":NaN}', '{"kind":"llvm","mattr":7}'),
    *('{"kind":"llvm","mcpu":"x/../../../y"}', '{"kind":["llvm"]}', '"', "llvm -mcpu='", "llvm -a"),
    *('{"kind":"llvm","num-cores":-5}', '{"kind":"\\ud800"}', "llvm -num-cores=" + "9" * 400),
    *("a=b=c", "a=*,b!=?", "name=" + "*a" * 30, ",,,", "name=" + " " * 500 + "=", "a" * 65),
)

_NUMBERS: dict[int, Callable[[random.Random], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: lambda r: _clip(r.choice(_INTEGERS), 31),
    FieldDescriptor.CPPTYPE_INT64: lambda r: r.choice(_WIDE),
    FieldDescriptor.CPPTYPE_UINT32: lambda r: abs(_clip(r.choice(_INTEGERS), 31)),
    FieldDescriptor.CPPTYPE_UINT64: lambda r: min(abs(r.choice(_WIDE)) * 2, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda r: r.choice(_FLOATS),
    FieldDescriptor.CPPTYPE_FLOAT: lambda r: r.choice(_FLOATS),
    FieldDescriptor.CPPTYPE_BOOL: lambda r: r.random() < 0.5,
    FieldDescriptor.CPPTYPE_ENUM: lambda r: r.choice((-1, 0, 1, 2, 3, 7, 99, 2**31 - 1)),
}


def plausible(kind: Descriptor, pools: Pools, rng: random.Random, depth: int = 0) -> Message:
    """Make a message of a kind of which every field may well be accepted.

    Args:
        kind: the message's descriptor.
        pools: known values by field name.
        rng: chooses.
        depth: messages that it lies in.
    """
    message = GetMessageClass(kind)()
    chosen = {oneof.name: rng.choice(oneof.fields).name for oneof in kind.oneofs}
    for field in kind.fields:
        oneof = field.containing_oneof
        if oneof is not None and chosen[oneof.name] != field.name:
            continue
        if field.has_presence and field.message_type is None and rng.random() < 0.3:
            continue
        if _is_map(field):
            _fill_map(message, field, pools, rng, depth)
        elif field.is_repeated:
            for _ in range(rng.choice((0, 1, 1, 2, 3))):
                _append(message, field, pools, rng, depth)
        elif field.message_type is None:
            setattr(message, field.name, _known(field, pools, rng))
        elif depth < _DEPTH:
            part = plausible(field.message_type, pools, rng, depth + 1)
            getattr(message, field.name).CopyFrom(part)
    return message


def mutate(message: Message, rng: random.Random) -> None:
    """Change a message in a few places to what hardly anybody would send, in place."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _mutate_once(_somewhere(message, rng), rng)


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, repeat or insert bytes."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(damaged) + 1)
        how = rng.random()
        if how < 0.5 and damaged:
            damaged[at % len(damaged)] ^= 1 << rng.randrange(8)
        elif how < 0.7:
            del damaged[at:]
        elif how < 0.85:
            damaged[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))
        else:
            damaged[at:at] = damaged[: rng.choice((4, 16, 256))]
    return bytes(damaged)


def unknown_field(rng: random.Random) -> bytes:
    """Return the bytes of a field that no message has, sound or not."""
    tag = _varint(rng.randrange(1000, 2**29 - 1) << 3 | rng.randrange(6))
    kind = tag[0] & 7
    body = {
        0: _varint(rng.getrandbits(64)),
        1: rng.randbytes(8),
        2: _varint(rng.choice((0, 3, 2**31, 2**40))) + rng.randbytes(3),
        5: rng.randbytes(4),
    }.get(kind, b"")
    return tag + body


def last_wins(kind: Descriptor, name: str, value: Any) -> bytes:
    """Return bytes that, appended to a message, set a field whatever it was before."""
    part = GetMessageClass(kind)()
    setattr(part, name, value)
    data = part.SerializeToString()
    if data:
        return data
    # A default is not written: say it all the same.
    return _varint(kind.fields_by_name[name].number << 3) + b"\0"


def parsed(kind: Descriptor, data: bytes) -> Any | None:
    """Read bytes as a message; ``None`` where they are none."""
    try:
        return GetMessageClass(kind).FromString(data)
    except DecodeError:
        return None


def _known(field: FieldDescriptor, pools: Pools, rng: random.Random) -> Any:
    values = pools.get(f"{field.containing_type.name}.{field.name}") or pools.get(field.name)
    if values:
        return rng.choice(values)
    cpp = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 16, 1000)))
    if cpp == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(("", "a", "site", "lab", "word"))
    if cpp == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if cpp in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice((1e-3, 0.5, 2.0))
    return bool(rng.getrandbits(1)) if cpp == FieldDescriptor.CPPTYPE_BOOL else rng.randrange(1, 65)


def _append(
    message: Message, field: FieldDescriptor, pools: Pools, rng: random.Random, depth: int
) -> None:
    values = getattr(message, field.name)
    if field.message_type is None:
        values.append(_known(field, pools, rng))
    elif depth < _DEPTH:
        values.append(plausible(field.message_type, pools, rng, depth + 1))


def _fill_map(
    message: Message, field: FieldDescriptor, pools: Pools, rng: random.Random, depth: int
) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    entries = getattr(message, field.name)
    for _ in range(rng.choice((0, 1, 2))):
        name = _known(key, {**pools, "key": ("site", "tvm", "data", "measure")}, rng)
        if value.message_type is None:
            entries[name] = _known(value, pools, rng)
        elif depth < _DEPTH:
            entries[name].CopyFrom(plausible(value.message_type, pools, rng, depth + 1))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _somewhere(message: Message, rng: random.Random) -> Message:
    """Choose the message itself or one that lies in it."""
    inner: list[Message] = []
    for field, value in message.ListFields():
        if field.message_type is None or _is_map(field):
            continue
        inner += list(value) if field.is_repeated else [value]
    if inner and rng.random() < 0.7:
        return _somewhere(rng.choice(inner), rng)
    return message


def _mutate_once(message: Message, rng: random.Random) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = rng.choice(fields)
    if rng.random() < 0.15:
        message.ClearField(field.name)
    elif message.DESCRIPTOR.full_name in (
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
    ):
        setattr(message, "seconds", rng.choice(_SECONDS))  # noqa: B010 - Message has no such field
        setattr(message, "nanos", rng.choice(_NANOS))  # noqa: B010
    elif _is_map(field):
        _mutate_map(message, field, rng)
    elif field.is_repeated:
        _mutate_repeated(message, field, rng)
    elif field.message_type is None:
        setattr(message, field.name, _odd(field, rng))
    else:
        getattr(message, field.name).SetInParent()


def _mutate_repeated(message: Message, field: FieldDescriptor, rng: random.Random) -> None:
    values = getattr(message, field.name)
    if field.message_type is None:
        odd = _odd(field, rng)
        small = not isinstance(odd, (str, bytes)) or len(odd) < 64
        values.extend([odd] * (rng.choice((1, 1, 2, 600, 5_000, 20_000)) if small else 1))
    elif values and rng.random() < 0.5:
        copies = rng.choice((1, 1, 600)) if values[0].ByteSize() < 1000 else 1
        values.extend([values[0]] * copies)
    else:
        values.add()


def _mutate_map(message: Message, field: FieldDescriptor, rng: random.Random) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    entries = getattr(message, field.name)
    for number in range(rng.choice((1, 1, 1, 300))):
        name = _odd(key, rng) if number == 0 else f"k{number}"
        if value.message_type is None:
            entries[name] = _odd(value, rng)
        else:
            entries[name].SetInParent()


def _odd(field: FieldDescriptor, rng: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 700, _LONGEST)))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if rng.random() < 0.05:
            return "x" * rng.choice((1000, _LONGEST))
        return rng.choice(_TEXTS)
    return _NUMBERS[field.cpp_type](rng)


def _clip(value: int, bits: int) -> int:
    return max(-(2**bits), min(2**bits - 1, value))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def random_bytes(rng: random.Random) -> bytes:
    """Return bytes of no meaning, some of the lengths of messages of ours."""
    size = (
        rng.choice((0, 1, 2, 5, 16, 64, 200)) if rng.random() < 0.99 else rng.choice((4096, 65536))
    )
    return rng.randbytes(size)


def wrong_length(rng: random.Random) -> bytes:
    """Return a field that claims more bytes than follow."""
    return _varint(rng.randrange(1, 20) << 3 | 2) + struct.pack("<I", rng.getrandbits(28) | 1 << 7)
