"""``tunefleet-agent doctor`` as people and scripts run it, on this very machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.doctor.undo_log import FILE_NAME, UndoFile, UndoLog
from agent.session.home import Home
from tunefleet.errors import Reason

NAMES = [
    *("governor", "turbo", "temperature", "throttling", "power", "clock", "clocksource", "load"),
    *("steal", "cores", "smt", "numa", "cpu_limit", "memory", "swap", "disk", "clock_sync"),
    *("permissions", "libraries", "environment", "compiler"),
]
PROBE = """
import sys
from agent.cli import main
try:
    main()
finally:
    heavy = {"grpc", "tvm", "numpy", "psutil", "packaging", "onnxruntime", "tunefleet.v1"}
    print("imported:", sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FORCE_COLOR": "", "COLUMNS": "200"},
    )


def test_json_has_every_finding_by_its_stable_name(tmp_path: Path) -> None:
    done = doctor("--format", "json", "--home", str(tmp_path / "home"))
    answer = json.loads(done.stdout)
    assert [finding["name"] for finding in answer["findings"]] == NAMES
    assert answer["can_undo"] is False
    assert done.stderr == ""
    assert done.returncode == (1 if answer["status"] == "bad" else 0)
    assert not (tmp_path / "home").exists()


def test_every_complaint_says_why_and_what_to_do(tmp_path: Path) -> None:
    answer = json.loads(doctor("--quick", "--format", "json", "--home", str(tmp_path)).stdout)
    statuses = {finding["status"] for finding in answer["findings"]}
    assert statuses <= {"ok", "warn", "bad", "unknown"}
    harmful = [each for each in answer["findings"] if each["status"] in {"warn", "bad"}]
    assert all(each["why"] and each["advice"] for each in harmful)
    assert all(each["seen"] for each in answer["findings"])
    assert not any(each["seen"].startswith("the check itself") for each in answer["findings"])


def test_quick_leaves_the_compiler_out(tmp_path: Path) -> None:
    answer = json.loads(doctor("--quick", "--format", "json", "--home", str(tmp_path)).stdout)
    compiler = answer["findings"][-1]
    assert (compiler["name"], compiler["status"]) == ("compiler", "unknown")


def test_text_names_every_check_and_has_no_colours_in_a_pipe(tmp_path: Path) -> None:
    done = doctor("--quick", "--home", str(tmp_path))
    assert all(name in done.stdout for name in NAMES)
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith(("First", "Nothing here harms"))


def test_a_bad_finding_makes_the_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = doctor("--quick", "--format", "json", "--home", str(tmp_path / "file"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "bad"


def test_an_agent_may_be_running(tmp_path: Path) -> None:
    with Home(tmp_path):
        done = doctor("--quick", "--fix", "--format", "json", "--home", str(tmp_path))
    answer = json.loads(done.stdout)
    assert {each["result"] for each in answer["fixes"]} <= {"changed", "failed"}
    doctor("--undo", "--home", str(tmp_path))


def test_an_undo_without_a_fix_says_so(tmp_path: Path) -> None:
    done = doctor("--undo", "--home", str(tmp_path / "home"))
    assert done.returncode == 0
    assert done.stdout == (
        f"Nothing to undo: no change of a doctor's is noted in {tmp_path / 'home'}.\n"
    )
    assert not (tmp_path / "home").exists()


def test_what_can_be_undone_is_told(tmp_path: Path) -> None:
    undo = UndoFile(tmp_path)
    with undo.locked():
        undo.write(UndoLog(None))
    done = doctor("--quick", "--home", str(tmp_path))
    assert f"doctor --undo --home {tmp_path}" in done.stdout.splitlines()[-1]
    done = doctor("--undo", "--format", "json", "--home", str(tmp_path))
    assert json.loads(done.stdout) == {"restored": []}
    assert not undo.path.exists()


def test_damaged_notes_end_an_undo_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("{")
    done = doctor("--undo", "--home", str(tmp_path))
    assert done.returncode == Reason.INVALID_ARGUMENT.value.exit_code
    assert FILE_NAME in done.stderr
    assert "Traceback" not in done.stderr


def test_fix_and_undo_exclude_each_other(tmp_path: Path) -> None:
    done = doctor("--fix", "--undo", "--home", str(tmp_path))
    assert done.returncode == Reason.INVALID_ARGUMENT.value.exit_code
    assert "exclude each other" in done.stderr


@pytest.mark.parametrize(
    "words", ["--fix", "--undo", "--quick", "--format", "--home", "1 something is bad"]
)
def test_help_has_the_options_and_exit_codes(words: str) -> None:
    done = doctor("--help")
    assert words in " ".join(done.stdout.split())


def test_help_does_not_wait_for_what_an_examination_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "doctor", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == "imported: []\n"
