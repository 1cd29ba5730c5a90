"""The schedules of one workload, made by the parts of TVM's MetaSchedule."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from agent.search.evolution import FloatArray, Program
from agent.search.executor import PoliteExecutor
from agent.search.lru import ROWS_BYTES, STORES_BYTES, FeatureCache
from agent.search.trace_rows import TraceRows, row_of_text
from agent.tvm_startup import import_tvm
from tunefleet.features import MAX_STORES, PROGRAM_FEATURES_PER_STORE
from tunefleet.leases import BASELINE_TRACE

tvm = import_tvm()

from tvm.s_tir import Schedule  # noqa: E402 (TVM must have been imported in our way before)
from tvm.s_tir import meta_schedule as ms  # noqa: E402
from tvm.s_tir.meta_schedule import _ffi_api as ms_ffi  # noqa: E402
from tvm.s_tir.schedule import Trace  # noqa: E402
from tvm.s_tir.schedule import _ffi_api as schedule_ffi  # noqa: E402
from tvm_ffi import structural_hash  # noqa: E402

Item = TypeVar("Item")
Result = TypeVar("Result")

_SPACE_SEED = 1
"""Generating a design space draws nothing of consequence, but it must be the same every time."""
_MUTATION_ATTEMPTS = 4
"""Mutators tried on one trace; some have nothing to change in some programs."""
_NAMES_KEPT = 5_000
"""Decisions whose program's name is remembered: about a megabyte."""


class WorkloadError(ValueError):
    """The workload or its target is none that TVM can work with."""


@dataclass(frozen=True)
class _Applied:
    """What a trace makes of the workload."""

    candidate: str
    row: FloatArray
    """The row of the schedule with this target's postprocessing, float32 [1, 172]."""
    schedule: Any | None
    """``None`` where the trace was met before, and its program's features are known."""


@dataclass(frozen=True)
class _Decided:
    """A trace with all its decisions, and what came of it."""

    key: int
    """Names the decisions."""
    trace: Any
    applied: _Applied


class DesignSpace:
    """All schedules MetaSchedule's rules give for one workload and target.

    Implements :class:`agent.search.evolution.Space`. Work done for a program is kept for later
    rounds; what was kept never changes a result. Not for use by several threads at once: it
    spreads its work over the executor's threads by itself.
    """

    def __init__(self, workload: str, target: str) -> None:
        """Generate the space.

        Args:
            workload: an IRModule with one PrimFunc ``main``, as TVM's JSON.
            target: a canonical target.

        Raises:
            WorkloadError: TVM cannot read or schedule it.
        """
        self._module = load_module(workload)
        try:
            self._context = ms.TuneContext(
                mod=self._module,
                target=tvm.target.Target(json.loads(target)),
                space_generator="post-order-apply",
                rand_state=_SPACE_SEED,
                num_threads=1,
            )
            sketches = self._context.generate_design_space()
        except Exception as e:
            raise WorkloadError(f"TVM cannot schedule the workload for {target}: {e}") from e
        self._sketches = [Trace(sketch.trace.insts, {}) for sketch in sketches]
        generator = self._context.space_generator
        self._postprocs = list(generator.postprocs or [])
        mutators: dict[Any, Any] = dict((generator.mutator_probs or {}).items())
        self._mutators = list(mutators)
        self._mutator_weights = [_number(p) for p in mutators.values()]
        self._extractor = ms.feature_extractor.PerStoreFeature(extract_workload=True)
        self._trace_rows = TraceRows()
        self._stores: FeatureCache[str] = FeatureCache(STORES_BYTES)
        # A row follows from the decisions. Those of two schedules that make the same program
        # differ, and training will see the row of the very trace that is written down.
        self._rows: FeatureCache[int] = FeatureCache(ROWS_BYTES)
        self._candidates: dict[int, str] = {}
        self._executor: PoliteExecutor | None = None
        self.workload = program_name(self._module)
        """Structural hash of the unscheduled program in hex."""
        self.seconds: dict[str, float] = defaultdict(float)
        """Wall time per phase since :meth:`work_on`, without waiting for others' timing."""

    @contextmanager
    def work_on(self, executor: PoliteExecutor) -> Iterator[None]:
        """Use these threads for what is asked of the space inside the context."""
        self._executor = executor
        self.seconds = defaultdict(float)
        try:
            yield
        finally:
            self._executor = None

    def sample(self, seeds: Sequence[int]) -> list[Program]:
        """Draw one random program for each seed, leaving out invalid ones."""
        if not self._sketches:
            return []
        applied = self._map("sample", self._sample, seeds)
        found: list[_Decided] = []
        for one in applied:
            if one is not None and one.schedule is not None:
                trace = one.schedule.trace
                found.append(_Decided(_decisions_key(trace), trace, one))
        return self._finish(found)

    def mutate(self, parents: Sequence[Program], seeds: Sequence[int]) -> list[Program]:
        """Change one decision of each parent, leaving out failures and invalid programs."""
        pairs = list(zip(parents, seeds, strict=True))
        return self._realise("mutate", self._map("mutate", self._mutate, pairs))

    def load(self, traces: Sequence[str]) -> list[Program]:
        """Re-create programs from traces as JSON, leaving out what does not fit the workload.

        A trace made for another target becomes the program this target's postprocessing makes
        of its decisions.
        """
        wanted = [t for t in traces if t != BASELINE_TRACE]
        return self._realise("load", self._map("load", self._parse, wanted))

    def baseline(self) -> Program:
        """Return the unscheduled program; it may have no stores, but has an empty trace's row."""
        schedule = Schedule(self._module)
        stores = self._map("features", self._extract, [schedule])[0]
        if stores is None:
            stores = np.zeros((0, PROGRAM_FEATURES_PER_STORE), np.float32)
        row = row_of_text(BASELINE_TRACE)
        return Program(self.workload, np.concatenate([row, stores]), None)

    def write(self, programs: Sequence[Program]) -> list[str | None]:
        """Write programs down as traces in JSON, postprocessing included.

        Returns:
            One text for each; ``None`` for one whose trace does not reproduce it.
        """
        return self._map("write", self._write, programs)

    def _map(self, phase: str, function: Callable[[Item], Result], items: Any) -> list[Result]:
        assert self._executor is not None, "the space has no threads to work on"
        waited = self._executor.waited_s
        begun = time.perf_counter()
        results = self._executor.map(function, items)
        waited = self._executor.waited_s - waited
        self.seconds[phase] += time.perf_counter() - begun - waited
        return results

    def _realise(self, phase: str, traces: Sequence[Any | None]) -> list[Program]:
        """Make programs of traces with all their decisions; ``None`` and invalid ones go."""
        # Half of all mutants are equal, and comparing decisions is far cheaper than applying them.
        keyed = [(_decisions_key(trace), trace) for trace in traces if trace is not None]
        unknown = {key: trace for key, trace in keyed if not self._is_known(key)}
        made = dict(zip(unknown, self._map(phase, self._apply, unknown.values()), strict=True))
        found: list[_Decided] = []
        for key, trace in keyed:
            applied = made[key] if key in made else self._recalled(key)
            if applied is not None:
                found.append(_Decided(key, trace, applied))
        return self._finish(found)

    def _is_known(self, key: int) -> bool:
        return self._candidates.get(key) in self._stores and key in self._rows

    def _recalled(self, key: int) -> _Applied:
        return _Applied(self._candidates[key], self._rows.get(key), None)

    def _finish(self, found: Sequence[_Decided]) -> list[Program]:
        """Add the stores; programs TVM cannot extract any from are left out."""
        applied = [one.applied for one in found]
        missing = {a.candidate: a.schedule for a in applied if a.candidate not in self._stores}
        extracted = self._map("features", self._extract, missing.values())
        new = dict(zip(missing, extracted, strict=True))
        if len(self._candidates) > _NAMES_KEPT:
            self._candidates.clear()
        programs: list[Program] = []
        for one in found:
            name, row = one.applied.candidate, one.applied.row
            stores = new[name] if name in new else self._stores.get(name)
            if stores is not None:
                programs.append(Program(name, np.concatenate([row, stores]), one.trace))
                self._candidates[one.key] = name
                if one.key not in self._rows:
                    self._rows.put(one.key, row)
        for name, stores in new.items():
            if stores is not None:
                self._stores.put(name, stores)
        return programs

    def _sample(self, seed: int) -> _Applied | None:
        rng = random.Random(seed)
        return self._apply(rng.choice(self._sketches), seed)

    def _mutate(self, pair: tuple[Program, int]) -> Any | None:
        parent, seed = pair
        rng = random.Random(seed)
        for mutator in rng.choices(self._mutators, self._mutator_weights, k=_MUTATION_ATTEMPTS):
            # Mutator.apply would draw a seed of its own, and no search could be repeated.
            mutant = ms_ffi.MutatorApply(mutator, parent.trace, seed)
            if mutant is not None:
                return mutant
        return None

    def _apply(self, trace: Any, seed: int = _SPACE_SEED) -> _Applied | None:
        schedule = self._schedule(trace, seed)
        if schedule is None:
            return None
        try:
            row = self._trace_rows.row(schedule.trace)
        except ValueError:
            return None
        return _Applied(program_name(schedule.mod), row, schedule)

    def _schedule(self, trace: Any, seed: int = _SPACE_SEED) -> Any | None:
        """Apply a trace, with this target's postprocessing; ``None`` where it is invalid."""
        # Errors are expected here, and rendering one with its program costs more than the program.
        schedule = Schedule(self._module, seed=seed, error_render_level="none")
        try:
            trace.apply_to_schedule(schedule, remove_postproc=True)
            schedule.enter_postproc()
            if not all(postproc.apply(schedule) for postproc in self._postprocs):
                return None
        except Exception:
            return None
        return schedule

    def _parse(self, text: str) -> Any | None:
        schedule = Schedule(self._module, error_render_level="none")
        try:
            Trace.apply_json_to_schedule(json.loads(text), schedule)
        except Exception:
            return None
        return schedule.trace

    def _write(self, program: Program) -> str | None:
        if program.trace is None:
            return BASELINE_TRACE
        schedule = self._schedule(program.trace)
        if schedule is None or program_name(schedule.mod) != program.candidate:
            return None
        return json.dumps(schedule.trace.as_json(), default=_number)

    def _extract(self, schedule: Any) -> FloatArray | None:
        try:
            return extract_features(self._extractor, self._context, schedule)
        except Exception:
            return None


def extract_features(extractor: Any, context: Any, schedule: Any) -> FloatArray:
    """Return a scheduled program's features [stores, 172]. Raises whatever TVM raises."""
    candidate = ms.search_strategy.MeasureCandidate(schedule, [])
    rows = extractor.extract_from(context, [candidate])[0].numpy()
    return np.ascontiguousarray(rows[:MAX_STORES], dtype="<f4")


def load_module(workload: str) -> Any:
    """Read a workload from TVM's JSON. Raises WorkloadError."""
    try:
        module = tvm.ir.load_json(workload)
    except Exception as e:
        raise WorkloadError(f"the workload is not a module in TVM's JSON: {e}") from e
    if not isinstance(module, tvm.ir.IRModule):
        raise WorkloadError(f"the workload is a {type(module).__name__} instead of an IRModule")
    return module


def program_name(module: Any) -> str:
    """Name a program by its structure, equal in every process."""
    return f"{structural_hash(module) & 0xFFFFFFFFFFFFFFFF:016x}"


def _decisions_key(trace: Any) -> int:
    """Name a trace by its instructions and decisions, without the postprocessing."""
    return int(structural_hash(schedule_ffi.TraceAsJSON(trace, True)))


def _number(value: Any) -> int | float:
    """Unpack a TVM immediate; some decisions and probabilities are such."""
    number: int | float = getattr(value, "value", value)
    return number
