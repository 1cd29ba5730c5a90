"""The façade of the client: one coordinator and what can be asked of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tunefleet.budgets import DEFAULT_MIN_GAIN
from tunefleet.client import blobs, datasets
from tunefleet.client.bench import BenchCalls
from tunefleet.client.campaign import Campaign
from tunefleet.client.checks import checked_targets
from tunefleet.client.connection import Connection
from tunefleet.client.draining import DrainCalls
from tunefleet.client.identities import IdentityCalls
from tunefleet.client.messages import campaign_from_proto, device_from_proto
from tunefleet.client.models import ModelCalls
from tunefleet.client.tables import Listing, campaigns_html, devices_html
from tunefleet.client.values import Device
from tunefleet.conversions import duration
from tunefleet.errors import Reason
from tunefleet.v1 import campaign_pb2, dataset_service_pb2, user_service_pb2, user_service_pb2_grpc

DEFAULT_ADDRESS = "127.0.0.1:7460"
"""Where ``tunefleet up`` and ``tunefleet serve`` listen unless told otherwise."""


class TuneFleet(BenchCalls, ModelCalls, DrainCalls, IdentityCalls):
    """A connection to one coordinator; close it, or use it in a ``with`` statement."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, credentials: Path | None = None) -> None:
        """Open a channel; the coordinator is contacted by the first call.

        Args:
            address: HOST:PORT.
            credentials: folder with credentials; by default those that ``tunefleet login`` left, or
                a coordinator that we run on this machine.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, the address is not HOST:PORT; UNAUTHENTICATED, there
                are no credentials for it.
        """
        self._connection = Connection(address, credentials)
        channel = self._connection.channel
        self._campaigns = user_service_pb2_grpc.CampaignServiceStub(channel)
        self._devices = user_service_pb2_grpc.DeviceServiceStub(channel)

    def tune(
        self,
        model: str | Path,
        *,
        devices: str = "",
        trials: int = 0,
        time_limit_s: float | None = None,
        min_gain: float = DEFAULT_MIN_GAIN,
        shapes: Mapping[str, Sequence[int]] | None = None,
        target: str = "",
        name: str = "",
        seed: int = 0,
        upload_progress: blobs.Progress | None = None,
    ) -> Campaign:
        """Send a model and start a campaign for it.

        Args:
            model: an ONNX file, or a program saved by ``torch.export.save``.
            devices: selector such as ``arch=x86_64,site=lab``; empty for all.
            trials: over all tasks of each target; 0 lets the coordinator choose.
            time_limit_s: longest time for tuning, the finish not counted.
            min_gain: tuning ends where no next round is expected to lower the network's latency by
                this share of it; 0 uses the whole budget of trials and time.
            shapes: dimensions of inputs that the model leaves open, by input name.
            target: TVM target in place of each device's own.
            name: in listings; the file's name by default.
            seed: of everything random in the campaign.
            upload_progress: called with the bytes sent and the bytes in all.

        Raises:
            TuneFleetError: MODEL_INVALID, NO_DEVICE_MATCHES, INVALID_ARGUMENT, ...
        """
        path = Path(model)
        blobs.check_model_file(path)
        spec = campaign_pb2.CampaignSpec(
            name=name or path.stem,
            model_filename=path.name,
            shapes={
                key: campaign_pb2.Shape(dims=list(dims)) for key, dims in (shapes or {}).items()
            },
            device_selector=devices,
            targets=checked_targets([target] if target else []),
            trials=trials,
            time_limit=duration(time_limit_s) if time_limit_s is not None else None,
            min_gain=min_gain,
            seed=seed,
        )
        spec.model_digest = blobs.upload(self._connection, path, upload_progress)
        return self._create(spec)

    def collect(
        self,
        model: str | Path | None = None,
        *,
        families: Sequence[str] = (),
        workloads: int = 25,
        per_task: int = 32,
        devices: str = "",
        targets: Sequence[str] = (),
        time_limit_s: float | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        name: str = "",
        seed: int = 0,
        upload_progress: blobs.Progress | None = None,
    ) -> Campaign:
        """Collect trials of diverse candidates, for cost models to learn from.

        Args:
            model: a file as for :meth:`tune`; or else
            families: names from :data:`tunefleet.families.FAMILIES`.
            workloads: sampled from each family.
            per_task: trials of each task on each target.
            devices: selector such as ``arch=x86_64,site=lab``; empty for all.
            targets: TVM targets in place of each device's own; records of each are kept apart.
            time_limit_s: longest time for measuring.
            shapes: dimensions of inputs that the model leaves open, by input name.
            name: in listings; the file's name, or ``families``, by default.
            seed: of everything random; the same seed samples the same workloads.
            upload_progress: called with the bytes sent and the bytes in all.

        Raises:
            TuneFleetError: MODEL_INVALID, NO_DEVICE_MATCHES, INVALID_ARGUMENT, ...
        """
        spec = campaign_pb2.CampaignSpec(
            name=name or (Path(model).stem if model else "families"),
            shapes={
                key: campaign_pb2.Shape(dims=list(dims)) for key, dims in (shapes or {}).items()
            },
            device_selector=devices,
            targets=checked_targets(targets),
            time_limit=duration(time_limit_s) if time_limit_s is not None else None,
            seed=seed,
            purpose=campaign_pb2.CAMPAIGN_PURPOSE_COLLECT,
            families=families,
            workloads=workloads if families else 0,
            trials_per_task=per_task,
        )
        if model is not None:
            path = Path(model)
            blobs.check_model_file(path)
            spec.model_filename = path.name
            spec.model_digest = blobs.upload(self._connection, path, upload_progress)
        return self._create(spec)

    def replay(
        self,
        campaign: str,
        *,
        devices: str = "",
        targets: Sequence[str] = (),
        best: int = 0,
        per_task: int = 0,
        time_limit_s: float | None = None,
        name: str = "",
    ) -> Campaign:
        """Measure a campaign's schedules again, on these devices or on others.

        Args:
            campaign: whose schedules, by id, an unambiguous beginning of it, or name.
            devices: selector such as ``arch=x86_64,site=lab``; empty for all.
            targets: TVM targets in place of each device's own; records of each are kept apart.
            best: only so many of the fastest of each task; 0 for all.
            per_task: so many of each task, spread over its latencies; 0 for all.
            time_limit_s: longest time for measuring.
            name: in listings.

        Returns:
            The campaign that measures; its artifact ``replay.json`` compares the latencies.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN, NO_DEVICE_MATCHES, INVALID_ARGUMENT, ...
        """
        spec = campaign_pb2.CampaignSpec(
            name=name or f"replay of {campaign}",
            purpose=campaign_pb2.CAMPAIGN_PURPOSE_REPLAY,
            device_selector=devices,
            targets=checked_targets(targets),
            time_limit=duration(time_limit_s) if time_limit_s is not None else None,
            replay=campaign_pb2.ReplayOptions(campaign_id=campaign, best=best, per_task=per_task),
        )
        return self._create(spec)

    def _create(self, spec: campaign_pb2.CampaignSpec) -> Campaign:
        request = user_service_pb2.CreateCampaignRequest(
            spec=spec, idempotency_key=uuid.uuid4().hex
        )
        response = self._connection.call(self._campaigns.CreateCampaign, request)
        return Campaign(self._connection, campaign_from_proto(response.campaign))

    def campaigns(self) -> Listing[Campaign]:
        """Return all campaigns, newest first; their statuses come without tasks."""
        response = self._connection.call(
            self._campaigns.ListCampaigns, user_service_pb2.ListCampaignsRequest()
        )
        return Listing(
            (Campaign(self._connection, campaign_from_proto(c)) for c in response.campaigns),
            lambda campaigns: campaigns_html([c.status for c in campaigns]),
        )

    def campaign(self, campaign_id: str) -> Campaign:
        """Return one campaign, by its id, an unambiguous beginning of it, or its name.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN.
        """
        response = self._connection.call(
            self._campaigns.GetCampaign,
            user_service_pb2.GetCampaignRequest(campaign_id=campaign_id),
            not_found=Reason.CAMPAIGN_UNKNOWN,
        )
        return Campaign(self._connection, campaign_from_proto(response.campaign))

    def devices(self, selector: str = "", *, imported: bool = False) -> Listing[Device]:
        """Return the devices that match a selector such as ``arch=aarch64``, by name.

        Args:
            selector: empty for all.
            imported: those known from datasets alone, in place of those that can be sent work.
        """
        response = self._connection.call(
            self._devices.ListDevices,
            user_service_pb2.ListDevicesRequest(selector=selector, imported=imported),
        )
        return Listing((device_from_proto(d) for d in response.devices), devices_html)

    def device(self, name: str) -> Device:
        """Return one device, by its name or id.

        Raises:
            TuneFleetError: DEVICE_UNKNOWN.
        """
        response = self._connection.call(
            self._devices.GetDevice,
            user_service_pb2.GetDeviceRequest(device=name),
            not_found=Reason.DEVICE_UNKNOWN,
        )
        return device_from_proto(response.device)

    def dataset_stats(
        self,
        *,
        campaigns: Sequence[str] = (),
        targets: Sequence[str] = (),
        devices: Sequence[str] = (),
    ) -> datasets.DatasetStats:
        """Count stored trials, all or those of some campaigns, targets or devices.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN, DEVICE_UNKNOWN or INVALID_ARGUMENT.
        """
        selection = datasets.Selection(campaigns, targets, devices)
        return datasets.stats(self._connection, selection)

    def export_dataset(
        self,
        folder: str | Path,
        *,
        campaigns: Sequence[str] = (),
        targets: Sequence[str] = (),
        devices: Sequence[str] = (),
        dataset_format: str = "parquet",
        features: bool = True,
        best: int = 0,
        licence: str = "",
        description: str = "",
        activity: datasets.Activity | None = None,
        progress: blobs.Progress | None = None,
    ) -> datasets.ExportedDataset:
        """Write stored trials to a folder: Parquet with a data card, or a MetaSchedule database.

        Args:
            folder: made where it does not exist; files of the same names are replaced.
            campaigns: only their trials, each by id, an unambiguous beginning of it, or name.
            targets: only trials for these.
            devices: only trials of these, each by name or id.
            dataset_format: ``parquet``, or ``metaschedule``, which takes one device and target.
            features: leave them out where false; they can be computed again.
            best: fastest schedules of each workload in a MetaSchedule database; 0 for all.
            licence: that the files name.
            description: a sentence on what it is.
            activity: called with the share done and what is being done.
            progress: called with the bytes fetched and the bytes in all.

        Raises:
            TuneFleetError: DATASET_INVALID, there is no such trial; CAMPAIGN_UNKNOWN, ...
        """
        selection = datasets.Selection(campaigns, targets, devices)
        request = dataset_service_pb2.ExportDatasetRequest(
            selection=selection.to_proto(),
            format=datasets.checked_format(dataset_format),
            without_features=not features,
            best=best,
            licence=licence,
            description=description,
        )
        return datasets.export(self._connection, Path(folder), request, activity, progress)

    def release(self, name: str, *, forget_history: bool = False) -> Device:
        """End a device's quarantine.

        Args:
            name: its name or id.
            forget_history: take what its reference kernel takes now as normal from now on.

        Raises:
            TuneFleetError: DEVICE_UNKNOWN.
        """
        response = self._connection.call(
            self._devices.ReleaseDevice,
            user_service_pb2.ReleaseDeviceRequest(device=name, forget_history=forget_history),
            not_found=Reason.DEVICE_UNKNOWN,
        )
        return device_from_proto(response.device)

    def import_dataset(
        self,
        place: str | Path,
        *,
        dataset_format: str = "parquet",
        device: str = "",
        target: str = "",
        featurize: bool = False,
        name: str = "",
        upload_progress: blobs.Progress | None = None,
    ) -> Campaign:
        """Send a dataset and have its trials taken in; those that are known already stay.

        Args:
            place: a folder, or a file with trials.
            dataset_format: ``parquet``, or ``metaschedule`` for a MetaSchedule database.
            device: name or id of the device that measured a MetaSchedule database.
            target: that it was built for.
            featurize: have agents compute features where they are missing or of another schema.
            name: in listings; the folder's by default.
            upload_progress: called with the bytes sent and the bytes in all.

        Returns:
            The campaign that imports it; its artifact ``import.json`` says what came of it.

        Raises:
            TuneFleetError: DATASET_INVALID, INVALID_ARGUMENT, DEVICE_UNKNOWN, ...
        """
        files = datasets.files_of(Path(place), dataset_format)
        spec = campaign_pb2.CampaignSpec(
            name=name or Path(place).absolute().name,
            purpose=campaign_pb2.CAMPAIGN_PURPOSE_IMPORT,
            dataset=campaign_pb2.ImportSpec(
                files=datasets.upload(self._connection, files, upload_progress),
                format=datasets.checked_format(dataset_format),
                device=device,
                target=target,
                featurize=featurize,
            ),
        )
        return self._create(spec)

    def close(self) -> None:
        """Close the connection; campaigns go on without it."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TuneFleet({self._connection.address!r})"
