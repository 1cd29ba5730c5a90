"""Are the libraries those that this release was made with? Importing none of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata

from packaging.requirements import Requirement

from agent.doctor.finding import Finding, Status, ok, unknown

_DISTRIBUTION = "tunefleet"
# What goes wrong with another version than the one required, where more can be said than "wrong".
_KNOWN_TROUBLE = {
    "apache-tvm-ffi": "other releases crash the process that searches",
    "apache-tvm": "other releases build other programs, whose records must not mix with ours",
}
_NAMED_AT_MOST = 4


def check_libraries(
    requirements: Sequence[str] | None = None,
    version_of: Callable[[str], str] = metadata.version,
) -> Finding:
    """Compare what is installed with what an agent of this release requires.

    Args:
        requirements: as in a distribution's metadata; by default those of this installation.
        version_of: returns a distribution's version or raises ``PackageNotFoundError``.
    """
    name = "libraries"
    if requirements is None:
        try:
            requirements = metadata.requires(_DISTRIBUTION) or ()
        except metadata.PackageNotFoundError:
            return unknown(
                name, "TuneFleet runs from a folder without being installed, so nothing is required"
            )
    needed = list(_needed_by_agents(requirements))
    wrong: list[tuple[Requirement, str]] = []
    for requirement in needed:
        try:
            version = version_of(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append((requirement, f"{requirement.name} is missing"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append((requirement, f"{requirement.name} {version}"))
    if not wrong:
        return ok(name, f"all {len(needed)} as this release requires them")
    seen = ", ".join(
        f"{found} (required {requirement.specifier or 'in any version'})"
        for requirement, found in wrong[:_NAMED_AT_MOST]
    )
    trouble = [
        f"{requirement.name}: {_KNOWN_TROUBLE[requirement.name]}"
        for requirement, found in wrong
        if requirement.name in _KNOWN_TROUBLE and not found.endswith("missing")
    ]
    wanted = (f"{requirement.name}{requirement.specifier}" for requirement, _ in wrong)
    return Finding(
        name,
        Status.BAD,
        seen + (f" and {len(wrong) - _NAMED_AT_MOST} more" if len(wrong) > _NAMED_AT_MOST else ""),
        "; ".join(trouble) or "the agent was never tried with these and may fail in the middle",
        "Install the versions this release requires.",
        f"{sys.executable} -m pip install {' '.join(map(shlex.quote, wanted))}",
    )


def _needed_by_agents(requirements: Iterable[str]) -> Iterable[Requirement]:
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "agent"}):
            yield requirement
