"""Checks what a person asks for and makes a campaign of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from coordinator.server.bench_creation import bench_campaign, read_bench
from coordinator.server.compatibility import tvm_version
from coordinator.server.dataset_creation import read_sources, resolve
from coordinator.server.limits import (
    MAX_CAMPAIGN_TRIALS,
    MAX_FAMILY_WORKLOADS,
    MAX_NAME_CHARS,
    MAX_TIME_LIMIT_S,
    MAX_TRIALS_PER_TASK,
)
from coordinator.server.selectors import parse_selector, select
from coordinator.state.blobs import BlobStore
from coordinator.state.records import (
    CampaignPurpose,
    CampaignRecord,
    CampaignSpec,
    CampaignState,
    DeviceRecord,
)
from coordinator.state.store import Store
from tunefleet.budgets import DEFAULT_MIN_GAIN
from tunefleet.conversions import seconds
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.families import FAMILIES
from tunefleet.targets import canonical_target
from tunefleet.v1 import campaign_pb2

_WAITING = "waiting to import the model"

_MAX_INPUTS = 256
_MAX_RANK = 32
_MAX_SIZE = 2**31 - 1
"""Of an input in one dimension: ONNX and TVM know no larger ones that could be computed."""
_MAX_TARGETS = 64

_DEVICES_NAMED = 10
"""Known devices that a message lists before it says how many more there are."""


def create_campaign(
    store: Store,
    blobs: BlobStore,
    message: campaign_pb2.CampaignSpec,
    idempotency_key: str,
    now: float,
) -> CampaignRecord:
    """Check a campaign and store it, to be imported next.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, BLOB_UNKNOWN, NO_DEVICE_MATCHES, CAMPAIGN_UNKNOWN, ...
    """
    if len(idempotency_key) > MAX_NAME_CHARS:
        raise _invalid(f"an idempotency key has up to {MAX_NAME_CHARS} characters")
    spec = read_spec(message)
    if spec.bench is not None:
        made = bench_campaign(_new_id(now), spec, spec.bench, store, now)
        return store.create_campaign(made, idempotency_key)
    if spec.dataset is not None or spec.replay is not None:
        spec = resolve(spec, store, blobs)
    elif not spec.families:
        blobs.path(spec.model_digest)
    if spec.dataset is None:
        _check_devices(spec.device_selector, store.list_devices())
    campaign = CampaignRecord(
        campaign_id=_new_id(now),
        spec=spec,
        state=CampaignState.IMPORTING,
        created_at_unix_s=now,
        activity="waiting to begin" if spec.dataset or spec.replay else _WAITING,
        tvm_version=tvm_version(),
    )
    return store.create_campaign(campaign, idempotency_key)


def read_spec(message: campaign_pb2.CampaignSpec) -> CampaignSpec:
    """Read what was asked for. Raises INVALID_ARGUMENT."""
    filename = PurePath(message.model_filename).name
    if len(filename) > MAX_NAME_CHARS or not filename.isprintable():
        raise _invalid("the model file's name should be short and printable")
    name = message.name.strip() or PurePath(filename).stem
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise _invalid("the campaign needs a short, printable name or a model file's")
    if not 0 <= message.trials <= MAX_CAMPAIGN_TRIALS:
        raise _invalid(f"trials must be 0 to {MAX_CAMPAIGN_TRIALS}, not {message.trials}")
    shapes = {key: tuple(shape.dims) for key, shape in message.shapes.items()}
    for key, dims in shapes.items():
        if len(dims) > _MAX_RANK or not all(0 < dim <= _MAX_SIZE for dim in dims):
            raise _invalid(f"the shape of {key!r:.80} must have positive sizes, not {dims!s:.200}")
    if len(shapes) > _MAX_INPUTS or not all(key.isprintable() for key in shapes):
        raise _invalid(f"shapes can be given for {_MAX_INPUTS} inputs with printable names")
    if len(message.targets) > _MAX_TARGETS:
        raise _invalid(f"a campaign has {_MAX_TARGETS} targets at the most")
    parse_selector(message.device_selector)
    min_gain = message.min_gain if message.HasField("min_gain") else DEFAULT_MIN_GAIN
    if not 0 <= min_gain < 1:
        raise _invalid(
            f"the least gain must be a share of the latency from 0 to below 1, not {min_gain}"
        )
    return CampaignSpec(
        name=name,
        model_digest=message.model_digest,
        model_filename=filename,
        shapes=shapes,
        device_selector=message.device_selector,
        targets=tuple(dict.fromkeys(_read_target(t) for t in message.targets if t)),
        trials=message.trials,
        time_limit_s=_read_time_limit(message),
        min_gain=min_gain,
        seed=message.seed,
        **_read_collection(message),
    )


def _read_time_limit(message: campaign_pb2.CampaignSpec) -> float | None:
    if not message.HasField("time_limit"):
        return None
    try:
        limit_s = seconds(message.time_limit)
    except ValueError as e:
        raise _invalid(f"the time limit is no length of time: {e}") from e
    if not 0 < limit_s <= MAX_TIME_LIMIT_S:
        raise _invalid(f"the time limit must be positive and up to a year, not {limit_s} s")
    return limit_s


def _read_collection(message: campaign_pb2.CampaignSpec) -> dict[str, Any]:
    """Read what only a collection has, or an import, a replay or a benchmark."""
    if message.purpose == campaign_pb2.CAMPAIGN_PURPOSE_BENCH:
        return read_bench(message)
    if message.purpose in (
        campaign_pb2.CAMPAIGN_PURPOSE_IMPORT,
        campaign_pb2.CAMPAIGN_PURPOSE_REPLAY,
    ):
        return read_sources(message)
    if message.purpose not in campaign_pb2.CampaignPurpose.values():
        raise _invalid(f"the purpose {message.purpose} is not known")
    if message.purpose != campaign_pb2.CAMPAIGN_PURPOSE_COLLECT:
        if message.families:
            raise _invalid("families of operators can be collected from, but not tuned")
        return {}
    unknown = sorted(set(message.families) - set(FAMILIES))
    if unknown:
        raise _invalid(
            f"there is no family {', '.join(unknown)[:200]}; "
            f"there are {', '.join(sorted(FAMILIES))}"
        )
    if bool(message.families) == bool(message.model_digest):
        raise _invalid("a collection takes either a model or families")
    if not 1 <= message.trials_per_task <= MAX_TRIALS_PER_TASK:
        raise _invalid(
            f"the trials of a task must be 1 to {MAX_TRIALS_PER_TASK}, "
            f"not {message.trials_per_task}"
        )
    if message.families and not 1 <= message.workloads <= MAX_FAMILY_WORKLOADS:
        raise _invalid(
            f"the workloads of a family must be 1 to {MAX_FAMILY_WORKLOADS}, "
            f"not {message.workloads}"
        )
    return {
        "purpose": CampaignPurpose.COLLECT,
        "families": tuple(dict.fromkeys(message.families)),
        "workloads": message.workloads,
        "trials_per_task": message.trials_per_task,
    }


def _read_target(target: str) -> str:
    try:
        return canonical_target(target)
    except ValueError as e:
        raise _invalid(str(e)) from e


def _check_devices(selector: str, devices: Sequence[DeviceRecord]) -> None:
    if select(selector, devices):
        return
    if not devices:
        raise TuneFleetError(
            Reason.NO_DEVICE_MATCHES,
            "no device is known yet: start one with `tunefleet-agent run`",
        )
    known = ", ".join(device.name for device in devices[:_DEVICES_NAMED])
    more = len(devices) - _DEVICES_NAMED
    raise TuneFleetError(
        Reason.NO_DEVICE_MATCHES,
        f"no device matches {selector!r:.200}; known are {known}"
        + (f" and {more} more" if more > 0 else ""),
    )


def _new_id(now: float) -> str:
    day = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d")
    return f"c-{day}-{secrets.token_hex(3)}"


def _invalid(message: str) -> TuneFleetError:
    return TuneFleetError(Reason.INVALID_ARGUMENT, message)
