"""Running a network: TVM's Relax VM or onnxruntime behind one interface."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.benchmark.profiling import OnnxProfiler, Profiler, RelaxProfiler

if TYPE_CHECKING:
    import numpy.typing as npt

    Tensors = Sequence[npt.NDArray[Any]]


class Runner(Protocol):
    """A network bound to its inputs."""

    def run(self) -> None:
        """Compute the outputs once."""

    def outputs(self) -> Tensors:
        """Return what the last run computed."""

    def profiler(self) -> Profiler:
        """Prepare to find out where the time goes; plain runs stay what they were."""


def load_runner(kind: str, path: Path, inputs: Tensors, threads: int) -> Runner:
    """Load a network.

    Args:
        kind: ``tvm`` (a shared library for Relax's VM) or ``onnx``.
        path: the file.
        inputs: one tensor an input, in order.
        threads: how many onnxruntime uses; TVM reads ``TVM_NUM_THREADS`` when it is imported.

    Raises:
        ValueError: the kind is neither.
    """
    if kind == "tvm":
        return _RelaxRunner(path, inputs)
    if kind == "onnx":
        return _OnnxRunner(path, inputs, threads)
    raise ValueError(f"a subject is of kind 'tvm' or 'onnx', not {kind!r}")


class _RelaxRunner:
    def __init__(self, path: Path, inputs: Tensors) -> None:
        import tvm  # noqa: PLC0415
        from tvm import relax  # noqa: PLC0415

        library = tvm.runtime.load_module(str(path))
        self._machine = relax.VirtualMachine(library, tvm.cpu())
        self._main = self._machine["main"]
        self._inputs = [tvm.runtime.tensor(value) for value in inputs]
        self._result: Any = None

    def run(self) -> None:
        self._result = self._main(*self._inputs)

    def outputs(self) -> Tensors:
        return list(_flatten(self._result))

    def profiler(self) -> Profiler:
        return RelaxProfiler(self._machine, self.run)


class _OnnxRunner:
    def __init__(self, path: Path, inputs: Tensors, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._session = self._open(profiling="")
        names = [value.name for value in self._session.get_inputs()]
        self._feed = dict(zip(names, inputs, strict=True))
        self._result: list[Any] = []

    def _open(self, profiling: str) -> Any:
        import onnxruntime as ort  # noqa: PLC0415

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        if profiling:
            options.enable_profiling = True
            options.profile_file_prefix = profiling
        return ort.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])

    def run(self) -> None:
        self._result = self._session.run(None, self._feed)

    def outputs(self) -> Tensors:
        return self._result

    def profiler(self) -> Profiler:
        # Profiling cannot be switched on later: a session of its own, with the same threads. What
        # it writes lies beside the network, so that it goes when that goes.
        prefix = Path(tempfile.mkdtemp(prefix="profile-", dir=self._path.parent)) / "run"
        session = self._open(profiling=str(prefix))
        return OnnxProfiler(session, lambda: session.run(None, self._feed))


def _flatten(result: Any) -> Any:
    """Walk through the tuples that a network with several outputs returns."""
    if hasattr(result, "numpy"):
        yield result.numpy()
        return
    for item in result:
        yield from _flatten(item)
