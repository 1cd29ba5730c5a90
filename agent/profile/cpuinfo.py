"""What ``/proc/cpuinfo`` tells, on x86 and on ARM."""

from __future__ import annotations

import re

_ARM_IMPLEMENTERS = {
    0x41: "ARM",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0xC0: "Ampere",
}

# MIDR part numbers, as the cores' technical reference manuals give them.
_ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "Kunpeng-920",
    (0x4E, 0x004): "Carmel",
    (0xC0, 0xAC3): "Ampere-1",
}

# Flags that change what a compiler emits or what a tensor intrinsic needs, x86 then ARM.
_CODE_GENERATION_FLAG = re.compile(
    r"sse2|ssse3|sse4_1|sse4_2|avx|avx2|fma|f16c|avx512\w+|avx_\w+|amx_\w+"
    r"|neon|vfpv4|asimd|asimddp|asimdhp|asimdfhm|fphp|sve\w*|sme(?:2|[bfi]\w+)?|i8mm|bf16"
)

Processor = dict[str, str]


def parse_cpuinfo(text: str) -> list[Processor]:
    """Split ``/proc/cpuinfo`` into one mapping a processor; board-wide paragraphs are left out."""
    processors: list[Processor] = []
    for paragraph in re.split(r"\n\s*\n", text):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        fields = {key.strip(): value.strip() for key, separator, value in pairs if separator}
        if "processor" in fields:
            processors.append(fields)
    return processors


def cpu_model(processors: list[Processor]) -> str | None:
    """Name the CPU; the kinds of cores of a heterogeneous one are joined by `` + ``."""
    names = {name for processor in processors if (name := _core_name(processor)) is not None}
    return " + ".join(sorted(names)) or None


def isa_features(processors: list[Processor]) -> tuple[str, ...]:
    """Return the sorted flags that matter to code generation and that every core has."""
    flag_sets = [
        set((processor.get("flags") or processor.get("Features") or "").split())
        for processor in processors
    ]
    common = set.intersection(*flag_sets) if flag_sets else set()
    return tuple(sorted(flag for flag in common if _CODE_GENERATION_FLAG.fullmatch(flag)))


def physical_cores(processors: list[Processor]) -> int | None:
    """Count cores by their package and core number, where x86 kernels list them."""
    try:
        return len({(p["physical id"], p["core id"]) for p in processors}) or None
    except KeyError:
        return None


def _core_name(processor: Processor) -> str | None:
    name = processor.get("model name")
    if name and name.lower() != "unknown":
        return " ".join(name.split())
    try:
        implementer = int(processor["CPU implementer"], 16)
        part = int(processor["CPU part"], 16)
    except (KeyError, ValueError):
        return None
    vendor = _ARM_IMPLEMENTERS.get(implementer, f"implementer 0x{implementer:02x}")
    return _ARM_PARTS.get((implementer, part), f"{vendor} part 0x{part:03x}")
