"""What the agent and its search worker say to each other; plain data, no TVM and no NumPy.

To the worker::

    {"op": "propose", "workload_path": str, "workload": hex, "target": str,
     "model_path": str ("" without a model), "hardware": [float or null, ...],
     "known": [{"trace": str, "latency_s": float, "candidate": hex}, ...],
     "related": [trace, ...], "tried": [hex, ...], "trials": int, "seed": int,
     "policy": {"population", "generations", "exploration"},
     "include_baseline": bool, "threads": int}

and back either::

    {"event": "proposal", "candidates": [{"candidate": hex, "trace": str, "features": base64 of
     little-endian float32 [stores, 172], "stores": int, "predicted": float or null,
     "explored": bool}, ...], "space_exhausted": bool, "model_version": str,
     "stats": {"sampled": int, "evaluated": int, "seconds": {phase: float, ...}}}
    {"event": "error", "kind": one of ErrorKind, "message": str}

Or to the worker::

    {"op": "featurize", "workload_path": str, "workload": hex, "target": str,
     "traces": [{"candidate": hex, "trace": str}, ...], "threads": int}

and back an error as above, or::

    {"event": "featurized", "results": [{"candidate": hex, "features": base64 or null,
     "stores": int, "error": str}, ...]}
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tunefleet.leases import FeaturizedTrace, KnownTrace, NamedTrace, RoundSpec, SearchPolicy
from tunefleet.trials import ProgramFeatures


class ErrorKind(StrEnum):
    """Why a search gave nothing."""

    WORKLOAD = "workload"
    """TVM cannot read or schedule the workload for the target."""
    MODEL = "model"
    """The cost model cannot be loaded or failed its self-test."""
    REQUEST = "request"
    """The request itself makes no sense."""
    INTERNAL = "internal"
    """A bug; the worker's log has more."""
    CRASHED = "crashed"
    """The worker died of it, twice."""
    TIMEOUT = "timeout"


class SearchError(Exception):
    """A search that gave nothing."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True)
class Request:
    """One round's search."""

    workload_path: Path
    model_path: Path | None
    hardware: tuple[float, ...]
    """The raw hardware vector; NaN where unknown."""
    threads: int
    work: RoundSpec
    """Its policy for measuring and its blobs' digests do not matter here."""


@dataclass(frozen=True)
class Candidate:
    """One program to measure."""

    candidate: str
    trace: str = field(repr=False)
    features: ProgramFeatures
    predicted: float | None
    explored: bool


@dataclass(frozen=True)
class SearchStats:
    """What a search cost."""

    sampled: int
    """Random programs drawn, equal and invalid ones included."""
    evaluated: int
    """Different valid programs looked at."""
    seconds: Mapping[str, float]
    """Wall time by phase; ``wait`` is time in which something else was being timed."""


@dataclass(frozen=True)
class Proposal:
    """The programs a search proposes: the baseline first if asked for, then the best first."""

    candidates: tuple[Candidate, ...]
    space_exhausted: bool
    """There are fewer untried programs than asked for, and all of them are here."""
    model_version: str
    """The model that predicted; empty without one."""
    stats: SearchStats


@dataclass(frozen=True)
class FeaturizeRequest:
    """Known schedules of one workload whose features are wanted."""

    workload_path: Path
    workload: str
    target: str
    traces: tuple[NamedTrace, ...]
    threads: int


def request_to_message(request: Request) -> dict[str, Any]:
    """Convert a request for the wire."""
    work = request.work
    return {
        "op": "propose",
        "workload_path": str(request.workload_path),
        "workload": work.workload,
        "target": work.target,
        "model_path": str(request.model_path or ""),
        "hardware": [None if math.isnan(value) else value for value in request.hardware],
        "known": [asdict(known) for known in work.known],
        "related": list(work.related),
        "tried": sorted(work.tried),
        "trials": work.trials,
        "seed": work.seed,
        "policy": asdict(work.search),
        "include_baseline": work.include_baseline,
        "threads": request.threads,
    }


def request_from_message(message: Mapping[str, Any]) -> Request:
    """Convert a request from the wire.

    Raises:
        SearchError: of kind ``request``.
    """
    if message.get("op") != "propose":
        raise SearchError(ErrorKind.REQUEST, f"unknown op {message.get('op')!r}")
    try:
        work = RoundSpec(
            workload=str(message["workload"]),
            workload_digest="",
            target=str(message["target"]),
            trials=int(message["trials"]),
            seed=int(message["seed"]),
            known=tuple(KnownTrace(**known) for known in message["known"]),
            related=tuple(str(trace) for trace in message["related"]),
            tried=frozenset(message["tried"]),
            include_baseline=bool(message["include_baseline"]),
            search=SearchPolicy(**message["policy"]),
        )
        return Request(
            workload_path=Path(message["workload_path"]),
            model_path=Path(message["model_path"]) if message["model_path"] else None,
            hardware=tuple(math.nan if v is None else float(v) for v in message["hardware"]),
            threads=int(message["threads"]),
            work=work,
        )
    except (KeyError, TypeError, ValueError) as e:
        raise SearchError(ErrorKind.REQUEST, f"malformed request: {e!r}") from e


def featurize_to_message(request: FeaturizeRequest) -> dict[str, Any]:
    """Convert a request for the wire."""
    return {
        "op": "featurize",
        "workload_path": str(request.workload_path),
        "workload": request.workload,
        "target": request.target,
        "traces": [asdict(trace) for trace in request.traces],
        "threads": request.threads,
    }


def featurize_from_message(message: Mapping[str, Any]) -> FeaturizeRequest:
    """Convert a request from the wire.

    Raises:
        SearchError: of kind ``request``.
    """
    try:
        return FeaturizeRequest(
            workload_path=Path(message["workload_path"]),
            workload=str(message["workload"]),
            target=str(message["target"]),
            traces=tuple(NamedTrace(**trace) for trace in message["traces"]),
            threads=int(message["threads"]),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise SearchError(ErrorKind.REQUEST, f"malformed request: {e!r}") from e


def featurized_to_message(results: Sequence[FeaturizedTrace]) -> dict[str, Any]:
    """Convert results for the wire."""
    return {
        "event": "featurized",
        "results": [
            {
                "candidate": r.candidate,
                "features": r.features and base64.b64encode(r.features.data).decode(),
                "stores": r.features.stores if r.features else 0,
                "error": r.error,
            }
            for r in results
        ],
    }


def featurized_from_message(message: Mapping[str, Any]) -> tuple[FeaturizedTrace, ...]:
    """Convert results from the wire.

    Raises:
        SearchError: the worker reported an error instead.
    """
    _raise_reported(message)
    return tuple(
        FeaturizedTrace(
            candidate=r["candidate"],
            features=None
            if r["features"] is None
            else ProgramFeatures(r["stores"], base64.b64decode(r["features"])),
            error=r["error"],
        )
        for r in message["results"]
    )


def _raise_reported(message: Mapping[str, Any]) -> None:
    if message["event"] == "error":
        raise SearchError(ErrorKind(message["kind"]), message["message"])


def proposal_to_message(proposal: Proposal) -> dict[str, Any]:
    """Convert a proposal for the wire."""
    return {
        "event": "proposal",
        "candidates": [
            {
                "candidate": c.candidate,
                "trace": c.trace,
                "features": base64.b64encode(c.features.data).decode(),
                "stores": c.features.stores,
                "predicted": c.predicted,
                "explored": c.explored,
            }
            for c in proposal.candidates
        ],
        "space_exhausted": proposal.space_exhausted,
        "model_version": proposal.model_version,
        "stats": asdict(proposal.stats),
    }


def proposal_from_message(message: Mapping[str, Any]) -> Proposal:
    """Convert a proposal from the wire.

    Raises:
        SearchError: the worker reported an error instead.
    """
    _raise_reported(message)
    return Proposal(
        candidates=_candidates_from(message["candidates"]),
        space_exhausted=message["space_exhausted"],
        model_version=message["model_version"],
        stats=SearchStats(**message["stats"]),
    )


def _candidates_from(messages: Sequence[Mapping[str, Any]]) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            candidate=m["candidate"],
            trace=m["trace"],
            features=ProgramFeatures(m["stores"], base64.b64decode(m["features"])),
            predicted=m["predicted"],
            explored=m["explored"],
        )
        for m in messages
    )
