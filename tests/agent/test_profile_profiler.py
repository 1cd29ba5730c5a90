"""Measuring a device: the job, and what the main process makes of its end."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import eventually, is_running
from structlog.testing import capture_logs

from agent.profile.cache import FILE_NAME
from agent.profile.profiler import measure_profile
from agent.profile.static import read_static_profile
from tunefleet.devices import DeviceProfile, MeasuredProfile

STATIC = DeviceProfile(
    arch="x86_64", cpu_model="a CPU", isa_features=(), simd_bits=128, logical_cores=3
)
FIGURES = {"gflops_single_core": 100.0, "bandwidth_l1_gbs": 200.0}
UNKNOWN = MeasuredProfile()

# Stand-ins for the job; their arguments are --spec FILE --out FILE.
FAILING = "raise SystemExit('no such target')"
HANGING = "import time; time.sleep(600)"
SILENT = "pass"


def writing(result: object) -> str:
    return f"import sys; open(sys.argv[4], 'w').write({json.dumps(result)!r})"


def job(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


GOOD = job(writing({"llvm_cpu": "znver4", "measured": FIGURES, "undisturbed": True}))
DISTURBED = job(writing({"llvm_cpu": "znver4", "measured": FIGURES, "undisturbed": False}))
STRANGE = job(writing({"llvm_cpu": None, "measured": {"speed": 1}, "undisturbed": True}))


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the real job on this machine; its result, with ``loaded``, the modules it imported."""
    folder = tmp_path_factory.mktemp("profile")
    static = json.loads(read_static_profile().to_json())
    (folder / "spec.json").write_text(json.dumps({"profile": static, "target": None}))
    script = (
        "import runpy, sys; runpy.run_module('agent.profile.job', run_name='__main__');"
        "print('\\n'.join(sys.modules))"
    )
    files = ["--spec", str(folder / "spec.json"), "--out", str(folder / "out.json")]
    done = subprocess.run(
        [*job(script), *files], capture_output=True, text=True, check=True, timeout=120
    )
    return {**json.loads((folder / "out.json").read_text()), "loaded": done.stdout.split()}


def test_the_job_measures_every_level_that_is_known(real_run: dict[str, Any]) -> None:
    static = read_static_profile()
    levels = {"l1": static.l1d_bytes, "l2": static.l2_bytes, "l3": static.l3_bytes}
    known = {f"bandwidth_{level}_gbs" for level, size in levels.items() if size is not None}
    assert known <= real_run["measured"].keys()


def test_the_job_finds_every_figure_plausible(real_run: dict[str, Any]) -> None:
    assert None not in real_run["measured"].values()


@pytest.mark.skipif(read_static_profile().l1d_bytes is None, reason="cache sizes are not told")
def test_the_first_cache_is_faster_than_memory(real_run: dict[str, Any]) -> None:
    figures = real_run["measured"]
    assert figures["bandwidth_l1_gbs"] > figures["bandwidth_memory_gbs"]


def test_the_job_asks_llvm_for_the_cpu(real_run: dict[str, Any]) -> None:
    assert real_run["llvm_cpu"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="there is no torch to load")
def test_the_job_loads_tvm_and_not_torch(real_run: dict[str, Any]) -> None:
    loaded = real_run["loaded"]
    assert ("tvm" in loaded, "torch" in loaded) == (True, False)


async def test_a_measured_device_has_its_figures(tmp_path: Path) -> None:
    profile = await measure_profile(STATIC, tmp_path, None, command=GOOD)
    assert (profile.measured, profile.llvm_cpu) == (MeasuredProfile(**FIGURES), "znver4")


async def test_measuring_keeps_the_fingerprint(tmp_path: Path) -> None:
    profile = await measure_profile(STATIC, tmp_path, None, command=GOOD)
    assert profile.fingerprint() == STATIC.fingerprint()


async def test_a_restart_does_not_measure_again(tmp_path: Path) -> None:
    first = await measure_profile(STATIC, tmp_path, None, command=GOOD)
    assert await measure_profile(STATIC, tmp_path, None, command=job(FAILING)) == first


async def test_another_target_is_measured_by_itself(tmp_path: Path) -> None:
    await measure_profile(STATIC, tmp_path, None, command=GOOD)
    other = await measure_profile(STATIC, tmp_path, '{"kind":"llvm"}', command=job(FAILING))
    assert other.measured == UNKNOWN


async def test_a_corrupt_cache_is_measured_anew(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"half')
    profile = await measure_profile(STATIC, tmp_path, None, command=GOOD)
    assert profile.measured == MeasuredProfile(**FIGURES)


async def test_disturbed_figures_are_used(tmp_path: Path) -> None:
    profile = await measure_profile(STATIC, tmp_path, None, command=DISTURBED)
    assert profile.measured == MeasuredProfile(**FIGURES)


async def test_disturbed_figures_are_not_kept(tmp_path: Path) -> None:
    await measure_profile(STATIC, tmp_path, None, command=DISTURBED)
    assert not (tmp_path / FILE_NAME).exists()


async def test_a_home_that_cannot_be_written_to_does_not_lose_the_figures(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    profile = await measure_profile(STATIC, home, None, command=GOOD)
    assert profile.measured == MeasuredProfile(**FIGURES)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (job(FAILING), "no such target"),
        (job(HANGING), "did not end within"),
        (job(SILENT), "no usable result"),
        (job(writing([])), "no usable result"),
        (
            job(writing({"llvm_cpu": None, "measured": {"speed": 1}, "undisturbed": True})),
            "figures",
        ),
        (("/nonexistent/python",), "No such file"),
    ],
)
async def test_a_job_that_fails_leaves_the_figures_unknown_and_says_why(
    command: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    with capture_logs() as logs:
        profile = await measure_profile(STATIC, tmp_path, None, command=command, timeout_s=2)
    assert profile.measured == UNKNOWN
    assert [log["event"] for log in logs] == ["profile.not_measured"]
    assert reason in logs[0]["reason"]


async def test_the_job_is_told_how_many_threads_there_are(tmp_path: Path) -> None:
    script = (
        "import os, sys; n = float(os.environ['TVM_NUM_THREADS']);"
        "open(sys.argv[4], 'w').write('{\"llvm_cpu\": null, \"undisturbed\": true,'"
        ' \'"measured": {"gflops_all_cores": %g}}\' % n)'
    )
    profile = await measure_profile(STATIC, tmp_path, None, command=job(script))
    assert profile.measured == MeasuredProfile(gflops_all_cores=3.0)


async def test_an_agent_that_stops_takes_its_job_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        f"import os, pathlib, time; path = pathlib.Path({str(pid_file)!r});"
        "path.with_suffix('.new').write_text(str(os.getpid()));"
        "path.with_suffix('.new').rename(path); time.sleep(600)"
    )
    measuring = asyncio.create_task(measure_profile(STATIC, tmp_path, None, command=job(script)))
    await eventually(pid_file.exists)
    measuring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await measuring
    assert not is_running(int(pid_file.read_text()))
