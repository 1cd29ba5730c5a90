"""Versions of libraries, and a compiler that is really tried."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import metadata

import psutil
import pytest

from agent.doctor.compiling import check_compiler
from agent.doctor.finding import Status
from agent.doctor.software import check_libraries

REQUIRED = (
    "grpcio<2,>=1.81",
    'apache-tvm==0.27.0.post1; extra == "agent"',
    'apache-tvm-ffi==0.1.14.post1; extra == "agent"',
    'torch==2.13.0; extra == "coordinator"',
    'colorama; sys_platform == "win32"',
)
INSTALLED = {"grpcio": "1.85.1", "apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}


def version_in(installed: dict[str, str]):  # type: ignore[no-untyped-def]
    def version_of(name: str) -> str:
        try:
            return installed[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    return version_of


def test_what_is_required_of_agents_is_compared() -> None:
    finding = check_libraries(REQUIRED, version_in(INSTALLED))
    assert (finding.status, finding.seen) == (Status.OK, "all 3 as this release requires them")


def test_another_version_is_bad_and_named_with_the_cure() -> None:
    finding = check_libraries(REQUIRED, version_in({**INSTALLED, "apache-tvm-ffi": "0.1.15.post2"}))
    assert finding.status is Status.BAD
    assert finding.seen == "apache-tvm-ffi 0.1.15.post2 (required ==0.1.14.post1)"
    assert "crash" in finding.why
    assert finding.command == f"{sys.executable} -m pip install apache-tvm-ffi==0.1.14.post1"


def test_a_missing_library_is_bad_and_quoted_for_the_shell() -> None:
    installed = {name: version for name, version in INSTALLED.items() if name != "grpcio"}
    finding = check_libraries(REQUIRED, version_in(installed))
    assert finding.seen == "grpcio is missing (required <2,>=1.81)"
    assert finding.command == f"{sys.executable} -m pip install 'grpcio<2,>=1.81'"


def test_this_installation_is_compared_without_importing_any_of_it() -> None:
    script = (
        "import sys; from agent.doctor.software import check_libraries;"
        "print(check_libraries().status, {'tvm', 'numpy', 'grpc'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "ok set()\n"


def test_tvm_builds_and_runs_here() -> None:
    finding = check_compiler()
    assert finding.status is Status.OK
    assert metadata.version("apache-tvm") in finding.seen


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("raise ImportError('No module named tvm')", "ImportError: No module named tvm"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "was killed by SIGILL"),
    ],
)
def test_a_compiler_that_fails_is_bad_and_its_end_described(script: str, seen: str) -> None:
    finding = check_compiler([sys.executable, "-c", script])
    assert finding.status is Status.BAD
    assert seen in finding.seen
    assert finding.command


def test_a_compiler_that_hangs_is_ended_with_all_it_started() -> None:
    mark = f"doctor-test-{time.monotonic_ns()}"
    script = (
        "import subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', sys.argv[1]]);"
        "time.sleep(600)"
    )
    finding = check_compiler([sys.executable, "-c", script, mark], timeout_s=2)
    assert finding.status is Status.BAD
    assert "within 2 s" in finding.seen
    assert not [p for p in psutil.process_iter() if mark in _line(p)]


def test_a_compiler_that_computes_nonsense_is_bad() -> None:
    result = {
        "version": "0.27",
        "target": "llvm -mcpu=znver9",
        "cpu": "znver9",
        "correct": False,
        "import_s": 1.0,
        "build_s": 1.0,
    }
    script = f"import sys; open(sys.argv[2], 'w').write({json.dumps(result)!r})"
    finding = check_compiler([sys.executable, "-c", script])
    assert finding.status is Status.BAD
    assert "znver9" in finding.seen


def _line(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.NoSuchProcess:
        return []
