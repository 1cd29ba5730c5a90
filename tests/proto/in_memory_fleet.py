"""A coordinator's user services over a real socket, with everything in memory."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tunefleet.conversions import duration, timestamp
from tunefleet.errors import Reason
from tunefleet.v1 import (
    blob_service_pb2,
    blob_service_pb2_grpc,
    campaign_pb2,
    device_pb2,
    user_service_pb2,
    user_service_pb2_grpc,
)

TARGET = '{"kind":"llvm","mcpu":"znver4","num-cores":2}'


YEAR_S = 3e7


def abort(
    context: grpc.ServicerContext,
    reason: Reason,
    message: str,
    retry_after_s: float | None = None,
) -> NoReturn:
    """End a call the way a coordinator does: with the reason in google.rpc.ErrorInfo."""
    details = [any_pb2.Any()]
    hint = {"hint": f"{reason.value.hint} (sent)"}
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain="tunefleet", metadata=hint)
    details[0].Pack(info)
    if retry_after_s is not None:
        details.append(any_pb2.Any())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=duration(retry_after_s)))
    code = code_pb2.Code.Value(reason.value.grpc_status)
    status = status_pb2.Status(code=code, message=message, details=details)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


def make_campaign(campaign_id: str = "c0ffee01", **changes: Any) -> campaign_pb2.Campaign:
    """Make a campaign in the middle of tuning."""
    campaign = campaign_pb2.Campaign(
        campaign_id=campaign_id,
        spec=campaign_pb2.CampaignSpec(name="net", model_filename="net.onnx", trials=100),
        state=campaign_pb2.CAMPAIGN_STATE_TUNING,
        created_at=timestamp(1_700_000_000),
        tuning_time=duration(95),
        eta=duration(60),
        model_version="v2",
        activity="measuring conv2d on box",
        targets=[
            campaign_pb2.TargetProgress(
                target=TARGET,
                fingerprint="f00d",
                trials=40,
                trials_wanted=100,
                estimated_latency_s=0.010,
                estimated_baseline_s=0.250,
                devices=["box"],
            )
        ],
        tasks=[
            campaign_pb2.Task(
                workload="0123456789abcdef",
                name="conv2d",
                target=TARGET,
                fingerprint="f00d",
                weight=4,
                flops=2e8,
                trials=40,
                measured_trials=38,
                baseline_s=0.05,
                best_s=0.002,
            ),
            campaign_pb2.Task(
                workload="fedcba9876543210", name="softmax", target=TARGET, fingerprint="f00d"
            ),
        ],
    )
    campaign.MergeFrom(campaign_pb2.Campaign(**changes))
    return campaign


def make_done(
    blobs: dict[str, bytes], files: dict[str, bytes], campaign_id: str = "c0ffee01"
) -> campaign_pb2.Campaign:
    """Make a finished campaign whose results are in the blobs."""
    campaign = make_campaign(campaign_id, state=campaign_pb2.CAMPAIGN_STATE_DONE)
    campaign.ClearField("eta")
    campaign.ended_at.CopyFrom(timestamp(1_700_000_200))
    for name, seconds in (("untuned", 0.25), ("tuned", 0.01), ("onnxruntime", 0.008)):
        campaign.targets[0].benchmark_s[name] = seconds
    campaign.targets[0].max_abs_err = 3e-6
    campaign.tuning_ended = "the next round was expected to gain less than 0.5 %"
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        campaign.artifacts.add(path=path, digest=digest, size_bytes=len(content))
    return campaign


def make_device() -> device_pb2.Device:
    """Make a device of which some things are unknown."""
    return device_pb2.Device(
        device_id="d1",
        name="box",
        fingerprint="f00d",
        target=TARGET,
        state=device_pb2.DEVICE_STATE_ONLINE,
        last_seen=timestamp(1_700_000_000),
        labels={"site": "lab"},
        trials=1234,
        profile=device_pb2.DeviceProfile(
            arch="x86_64",
            cpu_model="Test CPU [rev 2]",
            logical_cores=2,
            l2_bytes=2**20,
            measured=device_pb2.MeasuredProfile(gflops_single_core=101.5),
        ),
    )


@dataclass
class InMemoryFleet(
    blob_service_pb2_grpc.BlobServiceServicer,
    user_service_pb2_grpc.CampaignServiceServicer,
    user_service_pb2_grpc.DeviceServiceServicer,
    user_service_pb2_grpc.ModelServiceServicer,
):
    """What the services know; tests fill and read it."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    campaigns: dict[str, campaign_pb2.Campaign] = field(default_factory=dict)
    devices: list[device_pb2.Device] = field(default_factory=list)
    models: list[user_service_pb2.ModelVersion] = field(default_factory=list)
    model_files: dict[str, list[campaign_pb2.Artifact]] = field(default_factory=dict)
    """By version."""
    model_requests: list[object] = field(default_factory=list)
    """Everything that was asked to change what versions there are, or which is in use."""
    watched: list[list[campaign_pb2.Campaign]] = field(default_factory=list)
    """What each watch streams before it breaks, first watch first; later ones stay silent."""
    created: list[user_service_pb2.CreateCampaignRequest] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    uploads: int = 0
    unavailable: int = 0
    """Calls of ListDevices to fail before one succeeds."""
    throttled: list[float] = field(default_factory=list)
    """Seconds to wait that the next calls of ListDevices and WatchCampaign are refused with."""
    break_after_bytes: int | None = None
    """Where to break off the next download."""

    def FindMissingBlobs(self, request, context):  # noqa: N802
        missing = [d for d in request.digests if d not in self.blobs]
        return blob_service_pb2.FindMissingBlobsResponse(digests=missing)

    def PutBlob(self, request_iterator, context):  # noqa: N802
        chunks = list(request_iterator)
        content = b"".join(c.chunk for c in chunks)
        if hashlib.sha256(content).hexdigest() != chunks[0].digest:
            abort(context, Reason.BLOB_CORRUPT, "the digest is another")
        self.blobs[chunks[0].digest] = content
        self.uploads += 1
        return blob_service_pb2.PutBlobResponse(total_bytes=len(content))

    def GetBlob(self, request, context):  # noqa: N802
        if request.digest not in self.blobs:
            abort(context, Reason.BLOB_UNKNOWN, "no such blob")
        content = self.blobs[request.digest]
        if self.break_after_bytes is not None:
            end, self.break_after_bytes = self.break_after_bytes, None
            yield blob_service_pb2.GetBlobResponse(
                total_bytes=len(content), chunk=content[request.offset : end]
            )
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        yield blob_service_pb2.GetBlobResponse(
            total_bytes=len(content), chunk=content[request.offset :]
        )

    def CreateCampaign(self, request, context):  # noqa: N802
        self.created.append(request)
        if request.spec.device_selector == "arch=none":
            abort(context, Reason.NO_DEVICE_MATCHES, "no device matches arch=none")
        campaign = next(iter(self.campaigns.values()))
        return user_service_pb2.CreateCampaignResponse(campaign=campaign)

    def GetCampaign(self, request, context):  # noqa: N802
        return user_service_pb2.GetCampaignResponse(campaign=self._find(request, context))

    def ListCampaigns(self, request, context):  # noqa: N802
        return user_service_pb2.ListCampaignsResponse(campaigns=self.campaigns.values())

    def WatchCampaign(self, request, context):  # noqa: N802
        self._throttle(context)
        campaign_id = self._find(request, context).campaign_id
        if not self.watched:
            yield user_service_pb2.WatchCampaignResponse(campaign=self.campaigns[campaign_id])
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()
            return
        for campaign in self.watched.pop(0):
            self.campaigns[campaign_id] = campaign
            yield user_service_pb2.WatchCampaignResponse(campaign=campaign)
        if self.watched:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    def PauseCampaign(self, request, context):  # noqa: N802
        campaign = self._find(request, context)
        if campaign.state == campaign_pb2.CAMPAIGN_STATE_DONE:
            abort(context, Reason.CAMPAIGN_STATE, "the campaign is done")
        campaign.state = campaign_pb2.CAMPAIGN_STATE_PAUSED
        return user_service_pb2.PauseCampaignResponse(campaign=campaign)

    def ResumeCampaign(self, request, context):  # noqa: N802
        campaign = self._find(request, context)
        campaign.state = campaign_pb2.CAMPAIGN_STATE_TUNING
        return user_service_pb2.ResumeCampaignResponse(campaign=campaign)

    def CancelCampaign(self, request, context):  # noqa: N802
        campaign = self._find(request, context)
        campaign.state = campaign_pb2.CAMPAIGN_STATE_CANCELLED
        return user_service_pb2.CancelCampaignResponse(campaign=campaign)

    def ListDevices(self, request, context):  # noqa: N802
        self._throttle(context)
        if self.unavailable:
            self.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "still starting")
        return user_service_pb2.ListDevicesResponse(devices=self.devices)

    def GetDevice(self, request, context):  # noqa: N802
        for device in self.devices:
            if request.device in (device.name, device.device_id):
                return user_service_pb2.GetDeviceResponse(device=device)
        return abort(context, Reason.DEVICE_UNKNOWN, f"no device is called {request.device}")

    def ReleaseDevice(self, request, context):  # noqa: N802
        for device in self.devices:
            if request.device in (device.name, device.device_id):
                device.ClearField("quarantine")
                device.state = device_pb2.DEVICE_STATE_ONLINE
                self.forgotten += [device.name] if request.forget_history else []
                return user_service_pb2.ReleaseDeviceResponse(device=device)
        return abort(context, Reason.DEVICE_UNKNOWN, f"no device is called {request.device}")

    def ListModelVersions(self, request, context):  # noqa: N802
        return user_service_pb2.ListModelVersionsResponse(versions=self.models)

    def GetModelVersion(self, request, context):  # noqa: N802
        for version in self.models:
            if version.version == request.version:
                return user_service_pb2.GetModelVersionResponse(
                    model_version=version, files=self.model_files.get(version.version, [])
                )
        # No ErrorInfo: the status code has to do.
        return context.abort(grpc.StatusCode.NOT_FOUND, f"no version is called {request.version}")

    def UploadModelVersion(self, request, context):  # noqa: N802
        self.model_requests.append(request)
        if request.digest == request.checkpoint_digest:
            abort(context, Reason.MODEL_INVALID, "they are one file")
        yield user_service_pb2.UploadModelVersionResponse(progress=0.5, activity="checking")
        made = user_service_pb2.ModelVersion(version="u1", digest=request.digest)
        self.models.insert(0, made)
        yield user_service_pb2.UploadModelVersionResponse(progress=1.0, model_version=made)

    def PromoteModelVersion(self, request, context):  # noqa: N802
        self.model_requests.append(request)
        if not request.force:
            abort(context, Reason.MODEL_RANKS_WORSE, f"{request.version} ranks worse")
        for version in self.models:
            version.current = version.promoted = version.version == request.version
        yield user_service_pb2.PromoteModelVersionResponse(
            progress=1.0, model_version=next(v for v in self.models if v.current)
        )

    def RollbackModelVersion(self, request, context):  # noqa: N802
        self.model_requests.append(request)
        for version in self.models:
            version.rolled_back = version.version == request.version
            version.current = not version.rolled_back
        return user_service_pb2.RollbackModelVersionResponse(
            model_version=next(v for v in self.models if v.current)
        )

    def _throttle(self, context) -> None:
        if self.throttled:
            abort(context, Reason.RATE_LIMITED, "too many", self.throttled.pop(0))

    def _find(self, request, context) -> campaign_pb2.Campaign:
        for campaign_id, campaign in self.campaigns.items():
            if campaign_id.startswith(request.campaign_id):
                return campaign
        return abort(context, Reason.CAMPAIGN_UNKNOWN, f"no campaign is {request.campaign_id}")


class _RequireDeadline(grpc.ServerInterceptor):
    """Refuses every call that could last for ever."""

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        kind = (
            ("stream" if handler.request_streaming else "unary")
            + "_"
            + ("stream" if handler.response_streaming else "unary")
        )
        inner = getattr(handler, kind)

        def call(request, context):
            if context.time_remaining() > YEAR_S:
                abort(context, Reason.INCOMPATIBLE, "the call has no deadline")
            return inner(request, context)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(call, handler.request_deserializer, handler.response_serializer)


@contextmanager
def serving(fleet: InMemoryFleet) -> Iterator[str]:
    """Serve a fleet on loopback; yields its address."""
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[_RequireDeadline()])
    blob_service_pb2_grpc.add_BlobServiceServicer_to_server(fleet, server)
    user_service_pb2_grpc.add_CampaignServiceServicer_to_server(fleet, server)
    user_service_pb2_grpc.add_DeviceServiceServicer_to_server(fleet, server)
    user_service_pb2_grpc.add_ModelServiceServicer_to_server(fleet, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def unused_address() -> str:
    """Return a loopback address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
