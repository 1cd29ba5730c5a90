"""What a device is, and what it measured of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

_MAX_TEXT_CHARS = 200
_MAX_TEXTS = 512
"""Flags of a CPU, or versions of libraries; there are some dozens."""
_MAX_NUMBER = 2**53
"""Sizes up to here are whole as float64, which the cost model takes."""

TVM_DISTRIBUTION = "apache-tvm"
"""Name, among a profile's versions, of what builds and measures."""


@dataclass(frozen=True)
class MeasuredProfile:
    """Micro-benchmarks a device ran on itself. ``None`` means that it could not be measured."""

    gflops_single_core: float | None = None
    """Peak fp32 multiply-add rate reached by one thread, in GFLOP/s."""
    gflops_all_cores: float | None = None
    """The same with one thread on every core TuneFleet may use, in GFLOP/s."""
    bandwidth_l1_gbs: float | None = None
    """Read bandwidth of one thread from an L1-sized buffer, in GB/s (1e9 bytes)."""
    bandwidth_l2_gbs: float | None = None
    bandwidth_l3_gbs: float | None = None
    bandwidth_memory_gbs: float | None = None
    bandwidth_memory_all_cores_gbs: float | None = None
    parallel_launch_us: float | None = None
    """Time to start and join an empty parallel loop over all cores, in microseconds."""


@dataclass(frozen=True)
class DeviceProfile:
    """One machine's hardware. ``None`` means unknown: nothing here is guessed."""

    arch: str
    """Machine name as the kernel gives it: ``x86_64``, ``aarch64``, ..."""
    cpu_model: str | None
    isa_features: tuple[str, ...]
    """Sorted instruction-set flags that matter to code generation, as the kernel spells them."""
    simd_bits: int | None
    """Widest SIMD register usable for fp32, in bits."""
    logical_cores: int
    """Cores this process may run on (its affinity mask), not those the machine has."""
    physical_cores: int | None = None
    l1d_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int | None = None
    cache_line_bytes: int | None = None
    clock_max_mhz: float | None = None
    memory_bytes: int | None = None
    os_name: str | None = None
    kernel: str | None = None
    libc: str | None = None
    llvm_cpu: str | None = None
    """LLVM's name for the host CPU (``znver4``, ``cortex-a72``), once TVM was asked for it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries that decide what is built and measured (tvm, onnxruntime, ...)."""
    measured: MeasuredProfile | None = None
    """``None`` until the device has measured itself."""

    def fingerprint(self) -> str:
        """Name the hardware: equal for identical machines, stable over reboots and updates.

        Returns:
            16 hex digits over what does not change while the hardware stays the same. Measured
            values, clocks, software versions and the exact memory size are left out.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        identity = {
            "arch": self.arch,
            "cpu_model": self.cpu_model,
            "isa_features": list(self.isa_features),
            "simd_bits": self.simd_bits,
            "logical_cores": self.logical_cores,
            "physical_cores": self.physical_cores,
            "caches": [self.l1d_bytes, self.l2_bytes, self.l3_bytes, self.cache_line_bytes],
            "memory_bytes": _nominal_bytes(self.memory_bytes),
        }
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def check(self) -> None:
        """Check that each value is of its type, finite, positive, and of a length that is usual.

        Raises:
            ValueError: one is not.
        """
        # A file's JSON may hold anything.
        if not isinstance(self.versions, Mapping) or not isinstance(self.isa_features, tuple):
            raise ValueError("the profile's flags or versions are none")  # noqa: TRY004
        for texts in (self.isa_features, self.versions.keys(), self.versions.values()):
            if len(texts) > _MAX_TEXTS:
                raise ValueError(f"the profile has {len(texts)} flags or versions")
            for text in texts:
                _check_value("flags and versions", text, "str")
        if not self.arch or self.logical_cores is None:
            raise ValueError("the profile must name an architecture and at least one core")
        for part in (self, self.measured):
            for entry in () if part is None else fields(part):
                if entry.name not in {"isa_features", "versions", "measured"}:
                    _check_value(entry.name, getattr(part, entry.name), str(entry.type))

    def to_json(self) -> str:
        """Serialise to canonical JSON, the form in which profiles are stored."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> DeviceProfile:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: the text is not a profile.
        """
        try:
            raw = json.loads(text)
            measured = raw.pop("measured", None)
            raw["isa_features"] = tuple(raw["isa_features"])
            return cls(**raw, measured=None if measured is None else MeasuredProfile(**measured))
        except (KeyError, TypeError, AttributeError, RecursionError) as e:
            raise ValueError(f"not a device profile: {e}") from e


def _check_value(name: str, value: object, annotation: str) -> None:
    """Check one value; annotations are texts here, such as ``float | None``."""
    if value is None and "None" in annotation:
        return
    if "str" in annotation:
        if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARS or not value.isprintable():
            raise ValueError(f"{name} in the profile is too long or no printable text")
        return
    kinds = (int,) if "int" in annotation else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{name} in the profile cannot be {value!r:.40}")


def _nominal_bytes(memory_bytes: int | None) -> int | None:
    """Round up to 2^n or 3 * 2^n bytes, the sizes memory is sold in.

    A kernel keeps some percent for itself, and how much changes with its version; rounding to the
    nearest GiB would now and then fall to the other side.
    """
    if not memory_bytes:
        return None
    power = 1 << (memory_bytes - 1).bit_length()
    return power * 3 // 4 if memory_bytes <= power * 3 // 4 else power
