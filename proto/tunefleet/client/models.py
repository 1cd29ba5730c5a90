"""What can be asked of a coordinator's cost models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from tunefleet import __version__
from tunefleet.client import blobs
from tunefleet.client.connection import Connection
from tunefleet.client.messages import model_version_from_proto
from tunefleet.client.tables import Listing, models_html
from tunefleet.client.values import Artifact, ModelVersion
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.model_files import ABOUT_FILE, CHECKPOINT_FILE, FORMAT, ONNX_FILE
from tunefleet.v1 import user_service_pb2 as pb
from tunefleet.v1 import user_service_pb2_grpc

Activity = Callable[[float, str], None]
"""Called with the share done (0 to 1) and what is being done."""

UPLOAD_DEADLINE_S = 900.0
"""Checks take ten seconds, and wait for whatever is being timed on the coordinator's machine."""
PROMOTE_DEADLINE_S = 3600.0
"""Judging reads every held-out trial there is."""
MAX_DESCRIPTION_CHARS = 200


@dataclass(frozen=True)
class ExportedModel:
    """A version that was fetched."""

    model: ModelVersion
    files: tuple[Path, ...]


class _Step(Protocol):
    progress: float
    activity: str
    model_version: pb.ModelVersion

    def HasField(self, name: str) -> bool: ...  # noqa: N802 - protobuf's name


class ModelCalls:
    """The part of a connection to a coordinator that knows its cost models."""

    _connection: Connection

    def models(self) -> Listing[ModelVersion]:
        """Return all versions of the cost model, newest first."""
        response = self._connection.call(
            self._model_service().ListModelVersions, pb.ListModelVersionsRequest()
        )
        return Listing((model_version_from_proto(v) for v in response.versions), models_html)

    def model(self, version: str) -> ModelVersion:
        """Return one version of the cost model.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN.
        """
        return model_version_from_proto(self._get_model(version).model_version)

    def export_model(
        self, version: str, folder: str | Path, *, progress: blobs.Progress | None = None
    ) -> ExportedModel:
        """Fetch a version: its ONNX file, its checkpoint, and what is known of it as JSON.

        Args:
            version: its name.
            folder: made where it does not exist; must be empty.
            progress: called with the bytes fetched and the bytes in all.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN; INVALID_ARGUMENT, there is something in the
                folder; BLOB_UNKNOWN, the coordinator has lost a file.
        """
        place = Path(folder)
        check_new_folder(place)
        response = self._get_model(version)
        found = {f.path: Artifact(f.path, f.digest, f.size_bytes) for f in response.files}
        missing = {ONNX_FILE, CHECKPOINT_FILE} - found.keys()
        if missing:
            raise TuneFleetError(
                Reason.BLOB_UNKNOWN,
                f"the coordinator has lost {' and '.join(sorted(missing))} of {version}",
                hint="Restore its folder of blobs, or train another version.",
            )
        files = tuple(found[name] for name in (ONNX_FILE, CHECKPOINT_FILE))
        paths = blobs.download(self._connection, files, place, progress)
        model = model_version_from_proto(response.model_version)
        about = place / ABOUT_FILE
        about.write_text(json.dumps(_about(model, files), indent=2) + "\n", encoding="utf-8")
        return ExportedModel(model, (*paths, about))

    def upload_model(
        self,
        folder: str | Path,
        *,
        description: str = "",
        activity: Activity | None = None,
        progress: blobs.Progress | None = None,
    ) -> ModelVersion:
        """Send a model and have it checked; it becomes a version that is not in use yet.

        Args:
            folder: with its ONNX file and its checkpoint, as ``tunefleet model train`` writes it.
            description: one line for listings; by default what the folder says of itself.
            activity: called with the share of the checks done and what is being done.
            progress: called with the bytes sent and the bytes in all.

        Raises:
            TuneFleetError: MODEL_INVALID, with the reason why.
        """
        place = Path(folder)
        paths = [place / ONNX_FILE, place / CHECKPOINT_FILE]
        for path in paths:
            if not path.is_file():
                raise TuneFleetError(
                    Reason.MODEL_INVALID,
                    f"{place} holds no {path.name}",
                    hint="Give a folder that `tunefleet model train` or `model export` wrote.",
                )
            blobs.check_model_file(path)
        total, before = sum(path.stat().st_size for path in paths), 0
        digests = []
        for path in paths:

            def advance(done: int, _: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + done, total)

            digests.append(blobs.upload(self._connection, path, advance))
            before += path.stat().st_size
        request = pb.UploadModelVersionRequest(
            digest=digests[0],
            checkpoint_digest=digests[1],
            description=description or _described(place),
        )
        steps = self._model_service().UploadModelVersion(request, timeout=UPLOAD_DEADLINE_S)
        return self._last(steps, activity)

    def promote_model(
        self, version: str, *, force: bool = False, activity: Activity | None = None
    ) -> ModelVersion:
        """Have agents rank with a version, if it ranks no worse than the one in use.

        Args:
            version: its name.
            force: however it ranks.
            activity: called with the share of the judging done and what is being done.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN, MODEL_RANKS_WORSE; MODEL_VERSION_STATE, another
                was promoted meanwhile.
        """
        request = pb.PromoteModelVersionRequest(version=version, force=force)
        steps = self._model_service().PromoteModelVersion(request, timeout=PROMOTE_DEADLINE_S)
        return self._last(steps, activity)

    def roll_back_model(self, version: str = "") -> ModelVersion:
        """Take the version that agents rank with out of use.

        Args:
            version: its name; another is not rolled back. By default whichever it is.

        Returns:
            The version that was in use before it, and is again.

        Raises:
            TuneFleetError: MODEL_VERSION_STATE, it is not in use or there is none to go back to.
        """
        if not version:
            current = next((v.version for v in self.models() if v.current), None)
            if current is None:
                raise TuneFleetError(
                    Reason.MODEL_VERSION_STATE, "agents rank with no model: nothing to roll back"
                )
            version = current
        response = self._connection.call(
            self._model_service().RollbackModelVersion,
            pb.RollbackModelVersionRequest(version=version),
            not_found=Reason.MODEL_VERSION_UNKNOWN,
        )
        return model_version_from_proto(response.model_version)

    def _model_service(self) -> user_service_pb2_grpc.ModelServiceStub:
        return user_service_pb2_grpc.ModelServiceStub(self._connection.channel)

    def _get_model(self, version: str) -> pb.GetModelVersionResponse:
        return self._connection.call(
            self._model_service().GetModelVersion,
            pb.GetModelVersionRequest(version=version),
            not_found=Reason.MODEL_VERSION_UNKNOWN,
        )

    def _last(self, steps: Any, activity: Activity | None) -> ModelVersion:
        """Follow a stream to its end, which brings the version."""
        found: pb.ModelVersion | None = None
        messages: Iterator[_Step] = steps
        try:
            for step in messages:
                if activity is not None:
                    activity(step.progress, step.activity)
                if step.HasField("model_version"):
                    found = step.model_version
        except grpc.RpcError as e:
            raise self._connection.error(e, not_found=Reason.MODEL_VERSION_UNKNOWN) from e
        finally:
            steps.cancel()
        if found is None:
            raise TuneFleetError(Reason.INTERNAL, "the coordinator ended without an answer")
        return model_version_from_proto(found)


def check_new_folder(folder: Path) -> None:
    """Make sure that a model's files would replace nothing.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{folder} exists and is not empty",
            hint="Name a new folder for the model.",
        )


def _about(model: ModelVersion, files: tuple[Artifact, ...]) -> dict[str, Any]:
    return {
        "tunefleet_model": FORMAT,
        "name": model.version,
        "release": __version__,
        "created_unix_s": model.created_at.timestamp(),
        "exported_unix_s": time.time(),
        "feature_schema": model.feature_schema,
        "files": {f.path: {"sha256": f.digest, "size_bytes": f.size_bytes} for f in files},
        "parent": {"name": model.parent} if model.parent else None,
        "trained_on": None,
        "trials": model.trials,
        "why": model.why,
        "metrics": {name: {"value": value} for name, value in model.metrics.items()},
    }


def _described(folder: Path) -> str:
    """Make a line of what a folder says of itself, which may be anything."""
    parts = [folder.absolute().name]
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        parts[0] = str(about["name"])
        learned_from = [str(dataset["name"]) for dataset in about["trained_on"]]
        parts.append(f"trained on {', '.join(learned_from)}")
    line = ", ".join(parts)
    return "".join(c for c in line if c.isprintable())[:MAX_DESCRIPTION_CHARS]
