"""Processes that torch is kept out of, wholly or for TVM alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="there is no torch to keep out"
)


@pytest.mark.parametrize(
    ("function", "statements", "loaded"),
    [
        ("forbid_torch", "import tvm", (True, False)),
        ("import_tvm_without_torch", "import tvm", (True, False)),
        ("import_tvm_without_torch", "import torch", (False, True)),
        ("import_tvm_without_torch", "import tvm, torch", (True, True)),
    ],
)
def test_tvm_is_loaded_without_torch(
    function: str, statements: str, loaded: tuple[bool, bool]
) -> None:
    code = (
        f"import sys; from tunefleet.torch_free import {function}; {function}(); {statements}; "
        "print('tvm' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{} {}".format(*loaded)


def test_who_forbids_torch_cannot_import_it_later() -> None:
    code = "from tunefleet.torch_free import forbid_torch; forbid_torch(); import torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().endswith("ModuleNotFoundError: torch is of no use here")
