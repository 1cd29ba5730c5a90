"""What the fuzzer sends: every RPC of every service, over real connections, as raw bytes."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import tunefleet.v1
from scripts.benches import fuzz_messages as messages
from scripts.benches.fuzz_home import DEVICES
from scripts.benches.fuzz_identities import ADMIN, STRANGER, Identity
from tunefleet.v1 import user_service_pb2

_PARALLEL = 24
"""Calls in flight from each process."""
_CHANNELS = 3
"""For each of those who call, in each process."""
_DEADLINE_S = 20.0
_PATIENCE_S = 0.1
"""Longest wait for an answer of a stream after its first one."""
_JOB_DEADLINE_S = 5.0
_LEARN_EVERY = 4_000
"""Inputs between two looks at what the coordinator knows by now."""
_KEEP_FAILURES = 200
_OVERSIZED_BYTES = 17 * 2**20
"""Beyond what the coordinator receives in one message."""
_JOB_SHARE = 1 / 1000
"""Of those inputs that would start a process of a second or two, how many may."""

_Channels = Mapping[str, Sequence[grpc.aio.Channel]]
"""By who calls."""

_EITHER = frozenset({"BlobService/GetBlob", "IdentityService/RenewCertificate"})
_NOTED = ("Create", "Drain", "Undrain", "Release", "Revoke", "Promote", "Rollback", "Upload")
"""Methods of which each call is written to the audit log begin so."""
_SERVER_FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True)
class Rpc:
    """One RPC."""

    path: str
    request: Descriptor
    streams_requests: bool
    streams_responses: bool

    @property
    def name(self) -> str:
        """Service and method, without the package."""
        return self.path.rpartition(".")[2]


@dataclass
class Outcome:
    """What came of many inputs; can be added up."""

    inputs: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """By RPC and status code."""
    faults: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Answers that blame the server: RPC, details, and the request."""
    fault_count: int = 0
    late: Counter[str] = field(default_factory=Counter)
    """Calls that were not answered in time, by RPC."""

    def add(self, other: Outcome) -> None:
        """Add another's."""
        self.inputs += other.inputs
        self.codes += other.codes
        self.faults += other.faults
        self.fault_count += other.fault_count
        self.late += other.late


def rpcs() -> list[Rpc]:
    """List every RPC that there is, from the descriptors: one that is added is fuzzed as well."""
    modules = [
        importlib.import_module(f"tunefleet.v1.{found.name}")
        for found in pkgutil.iter_modules(tunefleet.v1.__path__)
        if found.name.endswith("_pb2")
    ]
    services = [
        service
        for module in (*modules, health_pb2, reflection_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    return [_rpc(method) for service in services for method in service.methods]


def _rpc(method: MethodDescriptor) -> Rpc:
    return Rpc(
        f"/{method.containing_service.full_name}/{method.name}",
        method.input_type,
        method.client_streaming,
        method.server_streaming,
    )


def fuzz(
    everybody: Sequence[Identity],
    pools: dict[str, list[Any]],
    seed: str,
    inputs: int,
    only: Sequence[str] = (),
) -> Outcome:
    """Send inputs from this process; the same seed sends the same, as far as answers are the same.

    Args:
        everybody: in whose names.
        pools: what the coordinator knows, by field name.
        seed: of all chance.
        inputs: how many.
        only: RPCs by name, such as ``AgentService/Control``; all where there is none.
    """
    return asyncio.run(_Fuzzer(pools, seed, only).run(everybody, inputs))


class _Fuzzer:
    def __init__(self, pools: dict[str, list[Any]], seed: str, only: Sequence[str]) -> None:
        self._pools = pools
        self._seed = seed
        self._rpcs = [rpc for rpc in rpcs() if not only or rpc.name in only]
        self._weights = [_weight(rpc) for rpc in self._rpcs]
        self._outcome = Outcome()
        self._next = 0

    async def run(self, everybody: Sequence[Identity], inputs: int) -> Outcome:
        channels = {who.name: [who.connect() for _ in range(_CHANNELS)] for who in everybody}
        await self._learn(channels)
        await asyncio.gather(*(self._work(channels, inputs) for _ in range(_PARALLEL)))
        for channel in (channel for each in channels.values() for channel in each):
            await channel.close()
        return self._outcome

    async def _work(self, channels: _Channels, inputs: int) -> None:
        while (number := self._next) < inputs:
            self._next += 1
            rng = random.Random(f"{self._seed}/{number}")
            [rpc] = rng.choices(self._rpcs, self._weights)
            await self._one(channels, rpc, rng)
            if number % _LEARN_EVERY == _LEARN_EVERY - 1:
                await self._learn(channels)

    async def _one(self, channels: _Channels, rpc: Rpc, rng: random.Random) -> None:
        who = _somebody(rpc, rng)
        requests = self._requests(rpc, who, rng)
        deadline_s = _JOB_DEADLINE_S if rpc.name in _STARTS_JOB else _DEADLINE_S
        began = time.monotonic()
        try:
            async with asyncio.timeout(2 * deadline_s):
                code, details = await _call(
                    rng.choice(channels[who]), rpc, requests, rng, deadline_s
                )
        except TimeoutError:
            code, details = grpc.StatusCode.DEADLINE_EXCEEDED, "no answer at all"
        self._outcome.inputs += 1
        self._outcome.codes[f"{rpc.name} {code.name}"] += 1
        if code in _SERVER_FAULTS:
            self._outcome.fault_count += 1
            if len(self._outcome.faults) < _KEEP_FAILURES:
                sent = b"".join(requests)[:100_000]
                self._outcome.faults.append((rpc.name, details, sent))
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED and rpc.name not in _STARTS_JOB:
            self._outcome.late[f"{rpc.name} after {time.monotonic() - began:.0f} s"] += 1

    def _requests(self, rpc: Rpc, who: str, rng: random.Random) -> list[bytes]:
        """Make what is sent in one call: mostly one message, even where none or many are due."""
        if rpc.path.endswith("/PutBlob") and rng.random() < 0.3:
            return _blob(rpc, rng)
        if rpc.streams_requests:
            count = rng.choice((0, 1, 1, 2, 3, 30))
        else:
            count = rng.choices((1, 0, 2, 3), (97, 1, 1, 1))[0]
        return [self._request(rpc, who, rng) for _ in range(count)]

    def _request(self, rpc: Rpc, who: str, rng: random.Random) -> bytes:
        how = rng.random()
        if how < 0.15:
            return _guarded(rpc, messages.random_bytes(rng), rng)
        if how < 0.17:
            return messages.wrong_length(rng)
        if how > 0.9999:
            return rng.randbytes(1) * _OVERSIZED_BYTES
        message = messages.plausible(rpc.request, self._pools, rng)
        self._make_fit(message, who, rng)
        if how < 0.8:
            messages.mutate(message, rng)
        data = message.SerializeToString()
        if 0.4 < how < 0.6:
            data = messages.damage(data, rng)
        if rng.random() < 0.1:
            data += messages.unknown_field(rng)
        return _guarded(rpc, data, rng)

    def _make_fit(self, message: Any, who: str, rng: random.Random) -> None:
        """Let most of what an agent says name itself, and its own lease with its token."""
        fields = message.DESCRIPTOR.fields_by_name
        if "device_id" not in fields or rng.random() < 0.1:
            return
        message.device_id = who
        held = [lease for lease in self._pools["leases"] if lease[0] == who]
        if "fencing_token" not in fields or not held:
            return
        _, message.lease_id, message.fencing_token = rng.choice(held)
        if "trials" in fields:
            for trial in message.trials:
                trial.lease_id = message.lease_id

    async def _learn(self, channels: _Channels) -> None:
        """Bring the pools up to date with leases that are held and versions that there are."""
        for device_id in DEVICES:
            answer = await _ask(
                channels[device_id][0], "AgentService/AcquireLease", device_id=device_id
            )
            if answer is not None and answer.HasField("lease"):
                held = (device_id, answer.lease.lease_id, answer.lease.fencing_token)
                if held not in self._pools["leases"]:
                    self._pools["leases"] = [*self._pools["leases"][-7:], held]
        self._pools["lease_id"] = self._pools["lease_ids"] = [h[1] for h in self._pools["leases"]]
        channel = channels[ADMIN][0]
        versions = await _ask(channel, "ModelService/ListModelVersions")
        if versions is not None:
            self._pools["version"] = [v.version for v in versions.versions] or ["v1"]


def _weight(rpc: Rpc) -> float:
    """Return how often an RPC is called beside the cheap ones, so that all get many inputs."""
    service, _, method = rpc.name.partition("/")
    if rpc.name == "CampaignService/ListCampaigns":
        return 0.05  # it reads the tasks of every campaign
    noted = method.startswith(_NOTED) and service != "AgentService"
    return 0.3 if noted or service in ("CampaignService", "CoordinatorService") else 1.0


def _somebody(rpc: Rpc, rng: random.Random) -> str:
    """Choose who calls: mostly those who may, so that inputs get beyond the door."""
    service = rpc.name.partition("/")[0]
    if service == "EnrolmentService":
        return STRANGER
    agents_may = service == "AgentService" or rpc.name in _EITHER
    if rng.random() < 0.1:
        agents_may = not agents_may
    return rng.choice(DEVICES) if agents_may else ADMIN


async def _ask(channel: grpc.aio.Channel, name: str, **fields: Any) -> Any | None:
    [rpc] = [r for r in rpcs() if r.name == name]
    method = rpc.path.rpartition("/")[2]
    modules = [importlib.import_module(rpc.request.file.name.replace("/", ".")[:-6] + "_pb2")]
    request, response = (getattr(modules[0], f"{method}{end}") for end in ("Request", "Response"))
    call = channel.unary_unary(
        rpc.path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    try:
        return await call(request(**fields), timeout=_DEADLINE_S)
    except grpc.aio.AioRpcError:
        return None


async def _call(
    channel: grpc.aio.Channel,
    rpc: Rpc,
    requests: Sequence[bytes],
    rng: random.Random,
    deadline_s: float,
) -> tuple[grpc.StatusCode, str]:
    """Make a call with raw bytes and return how it ended."""
    streams = rpc.streams_requests or len(requests) != 1
    # Without serializers, bytes are sent and received as they are.
    kind = f"{'stream' if streams else 'unary'}_{'stream' if rpc.streams_responses else 'unary'}"
    method: Any = getattr(channel, kind)(rpc.path)
    sent: Any = _each(requests, rng.choice((0.0, 0.0, 0.0, 0.01))) if streams else requests[0]
    call = method(sent, timeout=deadline_s)
    try:
        if not rpc.streams_responses:
            await call
        else:
            await _read(call, rng.choice((1, 1, 3)))
    except grpc.aio.AioRpcError as e:
        # Said by gRPC's client where the server ended a call that it was still sending to.
        by_client = e.details() == "Internal error from Core"
        return grpc.StatusCode.CANCELLED if by_client else e.code(), e.details() or ""
    except asyncio.CancelledError:
        if not call.done():
            raise
    return grpc.StatusCode.OK, ""


async def _read(call: Any, most: int) -> None:
    """Read a few of the answers, then hang up; many streams say nothing for long."""
    if await call.read() is grpc.aio.EOF:
        return
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for _ in range(most - 1):
                if await call.read() is grpc.aio.EOF:
                    return
    except TimeoutError:
        pass
    call.cancel()


async def _each(requests: Sequence[bytes], pause_s: float) -> AsyncIterator[bytes]:
    for request in requests:
        if pause_s:
            await asyncio.sleep(pause_s)
        yield request


def _blob(rpc: Rpc, rng: random.Random) -> list[bytes]:
    """Send a small blob in chunks, under its own digest or one that is not its."""
    import hashlib  # noqa: PLC0415

    content = bytes([rng.randrange(64)]) * rng.choice((0, 1, 4096))
    digest = hashlib.sha256(content).hexdigest()
    if rng.random() < 0.5:
        digest = rng.choice((digest[:-1] + "0", digest.upper(), "0" * 64, "../" * 21 + "x"))
    kind: Any = messages.plausible(rpc.request, {}, rng).__class__
    chunks = [content[at : at + 1000] for at in range(0, max(1, len(content)), 1000)]
    requests = [kind(digest="" if n else digest, chunk=c) for n, c in enumerate(chunks)]
    if rng.random() < 0.2:
        rng.shuffle(requests)
    return [request.SerializeToString() for request in requests]


# What would start a process for each input, or leave a row for each: most of it is made to name
# something that is there already, or that is not. By RPC.
_Guard = Callable[[Any, random.Random], bytes]


def _same_device(request: Any, rng: random.Random) -> bytes:
    sound = 0 < len(request.device_id) <= 64 and request.device_id.isascii()
    return _last(request, "device_id", rng.choice(DEVICES)) if sound else b""


def _same_campaign(request: Any, rng: random.Random) -> bytes:
    key = request.idempotency_key
    if len(key) > 200 or "\0" in key:
        return b""
    return _last(request, "idempotency_key", f"fuzz-{rng.randrange(30)}")


def _unless_lucky(name: str, value: Any) -> _Guard:
    def guard(request: Any, rng: random.Random) -> bytes:
        return b"" if rng.random() < _JOB_SHARE else _last(request, name, value)

    return guard


def _not_us(request: Any, _: random.Random) -> bytes:
    return _last(request, "name", "nobody") if request.name in (ADMIN, *DEVICES) else b""


_GUARDS: Mapping[str, _Guard] = {
    "AgentService/RegisterAgent": _same_device,
    "CampaignService/CreateCampaign": _same_campaign,
    "IdentityService/RevokeIdentity": _not_us,
    "DatasetService/ExportDataset": _unless_lucky("best", -1),
    "ModelService/UploadModelVersion": _unless_lucky("digest", "0" * 64),
    "ModelService/PromoteModelVersion": _unless_lucky("force", True),
}
_STARTS_JOB = frozenset(
    name for name in _GUARDS if name.startswith(("DatasetService/", "ModelService/"))
)


def _guarded(rpc: Rpc, data: bytes, rng: random.Random) -> bytes:
    guard = _GUARDS.get(rpc.name)
    if guard is None:
        return data
    request = messages.parsed(rpc.request, data)
    return data if request is None else data + guard(request, rng)


def _last(request: Any, name: str, value: Any) -> bytes:
    return messages.last_wins(request.DESCRIPTOR, name, value)


assert user_service_pb2  # registers the messages that responses are read as
