"""Opening a torch.export program without running anything it contains.

``torch.export.load`` is not safe on files of others (torch 2.13): it unpickles tensors and opaque
constants with ``weights_only=False``, loads compiled code from the archive, resolves operators by
attribute access from the module ``torch`` (``torch.os.system`` included), hands symbolic
expressions to ``sympy.sympify``, which evaluates them as Python, and pastes names into source code
that it executes. So the archive is examined first, through the very reader that torch uses, and
refused if it needs any of that or names things in an unusual way.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from tunefleet.errors import Reason, TuneFleetError

# Read by torch.load: even a caller that asks for full unpickling gets the restricted kind.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import _bytes_to_dataclass
from torch.export import ExportedProgram
from torch.export.pt2_archive import constants as layout
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

_MODEL = "model"
_OPERATOR = re.compile(r"torch\.ops\.(aten|prims)\.\w+\.\w+")
_SCALAR_OPERATOR = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)"
    r"|torch\.sym_(int|float|max|min|not|ite|sum|sqrt)"
)
_EXPRESSION = re.compile(
    r"(?:'[su]\d+'|\b(?:positive|integer|nonnegative|real)=(?:True|False)\b"
    r"|\b(?:[su]\d+|\d+|Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CeilDiv)\b"
    r"|[-+*/(), ])*"
)
"""Sizes of symbolic shapes; no attribute access, no other strings and names."""
_NAME = re.compile(r"[\w.$-]*")
"""Names of tensors and modules: nothing that could end a name in Python source."""
_TREE_SPEC = re.compile(r"[\w.$\s\[\]{}\",:\\-]*")
"""JSON of containers and argument names."""
_TREE_SPEC_FIELDS = frozenset({"in_spec", "out_spec"})
_UNCHECKED_FIELDS = frozenset(
    # Never evaluated: traces of where nodes came from, and strings that are written with repr().
    # The guards are dropped after loading.
    {"metadata", "as_string", "as_strings", "guards_code", "torch_version"}
)


def load_program(path: Path) -> ExportedProgram:
    """Load what ``torch.export.save`` wrote.

    Raises:
        TuneFleetError: MODEL_INVALID where the file is no such program, or would need pickles,
            compiled code or operators from outside PyTorch's core.
    """
    try:
        reader = PT2ArchiveReader(str(path))
        names = set(reader.get_file_names())
        version = reader.read_string(layout.ARCHIVE_VERSION_PATH)
    except (RuntimeError, ValueError, AssertionError, LookupError) as e:
        raise _invalid("it is no archive of torch 2.8 or later") from e
    if version != layout.ARCHIVE_VERSION_VALUE:
        raise _invalid(f"its archive version is {version!r}; save it again with a recent torch")
    _examine(reader, names)
    try:
        program = load_pt2(str(path)).exported_programs[_MODEL]
    except NotImplementedError as e:
        raise _invalid(
            "it returns objects of a class that is not torch's own; export a module that returns "
            "plain tensors (for a network of the transformers package: config.return_dict = False)"
        ) from e
    except Exception as e:  # whatever torch trips over in a file that is not what it says
        raise _invalid(f"torch cannot read it: {type(e).__name__}") from e
    # torch compiles these strings when the program is called.
    program._guards_code = []
    return program


def _examine(reader: PT2ArchiveReader, names: set[str]) -> None:
    model = layout.MODELS_FILENAME_FORMAT.format(_MODEL)
    models = {name for name in names if name.startswith(layout.MODELS_DIR)}
    if models != {model}:
        raise _invalid("it does not hold exactly one program")
    if any(name.startswith(layout.AOTINDUCTOR_DIR) for name in names):
        raise _invalid("it holds compiled code; save the program itself with torch.export.save")
    for folder, pattern in (
        (layout.WEIGHTS_DIR, layout.WEIGHTS_CONFIG_FILENAME_FORMAT),
        (layout.CONSTANTS_DIR, layout.CONSTANTS_CONFIG_FILENAME_FORMAT),
    ):
        if f"{folder}{_MODEL}.pt" in names or pattern.format(_MODEL) not in names:
            raise _invalid("its weights are pickled; save it again with a recent torch")
        _examine_payload(reader.read_bytes(pattern.format(_MODEL)))
    try:
        program = _bytes_to_dataclass(schema.ExportedProgram, reader.read_bytes(model))
    except Exception as e:  # any type of error, from JSON that does not follow the schema
        raise _invalid(f"torch cannot read it: {type(e).__name__}") from e
    _examine_part(program, field="")


def _examine_payload(config: bytes) -> None:
    try:
        payload = _bytes_to_dataclass(schema.PayloadConfig, config)
    except Exception as e:  # any type of error, from JSON that does not follow the schema
        raise _invalid(f"torch cannot read it: {type(e).__name__}") from e
    for name, meta in payload.config.items():
        custom = meta.path_name.startswith(
            (layout.CUSTOM_OBJ_FILENAME_PREFIX, layout.OPAQUE_OBJ_FILENAME_PREFIX)
        )
        if meta.use_pickle or custom or meta.tensor_meta is None:
            raise _invalid(f"{name!r} is a pickled object, not a plain tensor")


def _examine_operator(target: str) -> None:
    if _SCALAR_OPERATOR.fullmatch(target):
        return
    resolved: Any = None
    if _OPERATOR.fullmatch(target):
        resolved = torch
        for name in target.split(".")[1:]:
            resolved = getattr(resolved, name, None)
    if not isinstance(resolved, torch._ops.OpOverload):
        message = f"cannot import the operator {target}: it is none of PyTorch's core operators"
        raise TuneFleetError(Reason.MODEL_UNSUPPORTED, message)


def _examine_expression(text: str) -> None:
    if not _EXPRESSION.fullmatch(text):
        raise _invalid("one of its symbolic shapes is no plain arithmetic")


def _examine_part(value: Any, field: str) -> None:
    if isinstance(value, str):
        pattern = _TREE_SPEC if field in _TREE_SPEC_FIELDS else _NAME
        if not pattern.fullmatch(value):
            raise _invalid(f"the name {value[:80]!r} is not allowed")
    elif isinstance(value, dict):
        for key, item in value.items():
            _examine_part(key, field)
            _examine_part(item, field)
    elif isinstance(value, list | tuple):
        for item in value:
            _examine_part(item, field)
    elif isinstance(value, schema.SymExpr):
        _examine_expression(value.expr_str)
    elif dataclasses.is_dataclass(value):
        _examine_fields(value)


def _examine_fields(value: Any) -> None:
    for entry in dataclasses.fields(value):
        # A union raises on fields that are not set.
        inner = getattr(value, entry.name, None)
        if isinstance(value, schema.Node) and entry.name == "target":
            _examine_operator(value.target)
        elif isinstance(inner, str) and entry.name == "as_operator":
            _examine_operator(inner)
        elif entry.name not in _UNCHECKED_FIELDS:
            _examine_part(inner, entry.name)


def _invalid(why: str) -> TuneFleetError:
    message = f"the file cannot be used as a torch.export program: {why}"
    return TuneFleetError(Reason.MODEL_INVALID, message)
