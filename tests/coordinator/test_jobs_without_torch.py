"""TVM without torch where nobody needs it, and with it where somebody does."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statements", "loaded"),
    [
        ("import coordinator.models.compile_job", (True, False)),
        ("import coordinator.models.import_database_job", (True, False)),
        ("import coordinator.models.compile_job, torch", (True, True)),
        ("import coordinator.models.torch_network as n; import tvm", (True, True)),
    ],
)
def test_torch_is_loaded_by_those_who_ask_for_it(
    statements: str, loaded: tuple[bool, bool]
) -> None:
    code = f"import sys; {statements}; print('tvm' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{} {}".format(*loaded)
