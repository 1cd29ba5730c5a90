"""Fixing the symbolic dimensions of a network's inputs with the shapes a user gave."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.models.network import Shapes
from tunefleet.errors import Reason, TuneFleetError

Dimension = int | str
"""A size, or the name of a symbolic dimension (:data:`UNNAMED` where it has none)."""
UNNAMED = "?"


def fix_shapes(
    declared: dict[str, list[Dimension] | None], given: Shapes
) -> dict[str, tuple[int, ...]]:
    """Give every input a fixed shape.

    Args:
        declared: each input's shape as the model has it; ``None`` where even the rank is unknown.
        given: what the user said; needed only for inputs that are not fixed already.

    Raises:
        TuneFleetError: SHAPE_REQUIRED naming inputs and dimensions, or INVALID_ARGUMENT for an
            unknown input or a shape that contradicts the model.
    """
    for name in given:
        if name not in declared:
            known = ", ".join(declared)
            message = f"the model has no input called {name!r}; its inputs are {known}"
            raise TuneFleetError(Reason.INVALID_ARGUMENT, message)
    fixed = {name: _fix(name, shape, given.get(name)) for name, shape in declared.items()}
    missing = [_describe(name, declared[name]) for name, shape in fixed.items() if shape is None]
    if missing:
        message = f"the model leaves open the shape of {'; '.join(missing)}"
        raise TuneFleetError(Reason.SHAPE_REQUIRED, message)
    complete = {name: shape for name, shape in fixed.items() if shape is not None}
    _check_consistent((declared[name], shape) for name, shape in complete.items())
    return complete


def _fix(name: str, declared: list[Dimension] | None, given: object) -> tuple[int, ...] | None:
    if given is None:
        if declared is None or any(isinstance(size, str) for size in declared):
            return None
        return tuple(int(size) for size in declared)
    sizes = given if isinstance(given, list | tuple) else None
    if sizes is None or any(type(size) is not int or size < 1 for size in sizes):
        message = f"the shape given for {name!r} must be a list of positive integers"
        raise TuneFleetError(Reason.INVALID_ARGUMENT, message)
    fits = declared is None or (
        len(declared) == len(sizes)
        and all(isinstance(d, str) or d == s for d, s in zip(declared, sizes, strict=True))
    )
    if not fits:
        message = f"the shape {list(sizes)} does not fit the input {name!r}, declared {declared}"
        raise TuneFleetError(Reason.INVALID_ARGUMENT, message)
    return tuple(sizes)


def _describe(name: str, declared: list[Dimension] | None) -> str:
    if declared is None:
        return f"{name!r} (unknown rank)"
    axes = [f"{size} (axis {i})" for i, size in enumerate(declared) if isinstance(size, str)]
    return f"{name!r} {declared}: {', '.join(axes)}"


def _check_consistent(pairs: Iterable[tuple[list[Dimension] | None, tuple[int, ...]]]) -> None:
    sizes: dict[str, int] = {}
    for declared, fixed in pairs:
        for name, size in zip(declared or [], fixed, strict=False):
            if not isinstance(name, str) or name == UNNAMED:
                continue
            if sizes.setdefault(name, size) != size:
                message = f"the dimension {name!r} is given as {sizes[name]} and as {size}"
                raise TuneFleetError(Reason.INVALID_ARGUMENT, message)
