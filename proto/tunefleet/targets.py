"""TVM targets as canonical JSON, without TVM.

A target is part of every key, so two spellings of the same target must become one string.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import Any

from tunefleet.devices import DeviceProfile

# SIMD width in bits by LLVM CPU name, for targets that name another CPU than the device's own.
_SIMD_BITS_BY_CPU = {
    "x86-64": 128,
    "x86-64-v2": 128,
    "nehalem": 128,
    "x86-64-v3": 256,
    "haswell": 256,
    "core-avx2": 256,
    "skylake": 256,
    "znver1": 256,
    "znver2": 256,
    "znver3": 256,
    "alderlake": 256,
    "x86-64-v4": 512,
    "skylake-avx512": 512,
    "cascadelake": 512,
    "icelake-server": 512,
    "sapphirerapids": 512,
    "znver4": 512,
    "znver5": 512,
}


_MAX_CHARS = 4_096
"""Forty times a usual target, with all attributes of a CPU named."""
_MAX_DEPTH = 8
"""Of lists and objects in one another; a host in a target is one."""
_MAX_CORES = 4_096
_WORD = re.compile(r"[A-Za-z0-9._+-]{1,64}")
"""Names of kinds, CPUs and triples: results are put into folders that are called by these."""
_WORDS = ("kind", "mcpu", "mtriple", "mabi", "march")


def canonical_target(spec: str) -> str:
    """Normalise a target given as JSON or in TVM's command-line spelling.

    Args:
        spec: ``{"kind": "llvm", "mcpu": "znver4"}`` or ``llvm -mcpu=znver4 -num-cores=2``.

    Returns:
        JSON with sorted keys and without white space.

    Raises:
        ValueError: the text is neither, or an option is not what it should be.
    """
    text = spec.strip()
    if len(text) > _MAX_CHARS:
        raise ValueError(f"the target has {len(text)} characters, {_MAX_CHARS} are the most")
    if not text:
        raise ValueError("the target is empty; give for example 'llvm -mcpu=znver4 -num-cores=2'")
    if text.startswith("{"):
        try:
            options = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"the target is not valid JSON: {e}") from e
    else:
        options = _parse_command_line(text)
    if not isinstance(options, dict) or not isinstance(options.get("kind"), str):
        raise ValueError(f"the target {spec!r:.200} names no kind such as 'llvm'")  # noqa: TRY004
    _check(options)
    return json.dumps(options, sort_keys=True, separators=(",", ":"))


def _check(options: dict[str, Any]) -> None:
    for name in _WORDS:
        value = options.get(name)
        if value is not None and not (isinstance(value, str) and _WORD.fullmatch(value)):
            raise ValueError(f"the target's {name} cannot be {value!r:.80}")
    cores = options.get("num-cores")
    if cores is not None and not (type(cores) is int and 1 <= cores <= _MAX_CORES):
        raise ValueError(f"the target's num-cores must be 1 to {_MAX_CORES}, not {cores!r:.40}")
    attributes = options.get("mattr")
    listed = attributes if isinstance(attributes, list) else [attributes or ""]
    if not all(isinstance(a, str) for a in listed):
        raise ValueError("the target's mattr must be a list of texts")
    _check_value(options, 0)


def _check_value(value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("the target is nested too deeply")
    if isinstance(value, dict):
        _check_value(list(value), depth + 1)
        _check_value(list(value.values()), depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, depth + 1)
    elif isinstance(value, str) and not value.isprintable():
        raise ValueError(f"the target holds the text {value!r:.80}, which cannot be printed")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"the target holds the number {value}")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("the target holds a number of more than 64 bits")


def derive_target(profile: DeviceProfile) -> str:
    """Choose the target that uses all of a device's CPU.

    Args:
        profile: the device; its LLVM CPU name is used where known, else an ISA level.

    Returns:
        A canonical target.

    Raises:
        ValueError: the architecture is none TuneFleet can name a target for.
    """
    options: dict[str, Any] = {"kind": "llvm", "num-cores": profile.logical_cores}
    if profile.arch in {"x86_64", "AMD64"}:
        options["mtriple"] = "x86_64-unknown-linux-gnu"
        options["mcpu"] = profile.llvm_cpu or _x86_level(profile.isa_features)
    elif profile.arch in {"aarch64", "arm64"}:
        options["mtriple"] = "aarch64-unknown-linux-gnu"
        options["mcpu"] = profile.llvm_cpu or "generic"
        options["mattr"] = ["+neon"]
    else:
        raise ValueError(
            f"no target is known for architecture {profile.arch!r}; start the agent with --target"
        )
    return canonical_target(json.dumps(options))


def target_cores(target: str) -> int | None:
    """Return the number of threads a target is built for, or ``None`` where it does not say."""
    cores = json.loads(target).get("num-cores")
    return int(cores) if cores is not None else None


def target_simd_bits(target: str, profile: DeviceProfile) -> int | None:
    """Return the SIMD width in bits that code for this target uses on this device, if known."""
    options = json.loads(target)
    attributes = options.get("mattr") or []
    if "+avx512f" in attributes:
        return 512
    cpu = options.get("mcpu")
    if cpu is None or cpu in (profile.llvm_cpu, "generic"):
        return profile.simd_bits
    return _SIMD_BITS_BY_CPU.get(str(cpu))


def _parse_command_line(text: str) -> dict[str, Any]:
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise ValueError(f"the target {text!r:.200} cannot be split: {e}") from e
    options: dict[str, Any] = {"kind": words[0]}
    for word in words[1:]:
        key, separator, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or not separator or not key:
            raise ValueError(f"the target option {word!r} should look like -name=value")
        if key in {"mattr", "keys"}:
            options[key] = value.split(",")
        elif value.isdecimal():
            options[key] = int(value)
        else:
            options[key] = value
    return options


def _x86_level(flags: tuple[str, ...]) -> str:
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"}.issubset(flags):
        return "x86-64-v4"
    if {"avx2", "fma"}.issubset(flags):
        return "x86-64-v3"
    return "x86-64-v2" if "sse4_2" in flags else "x86-64"
