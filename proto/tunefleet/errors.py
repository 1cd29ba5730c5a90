"""The catalogue of errors: a stable name, an exit code and a gRPC status for each.

Names travel in the ``reason`` of google.rpc.ErrorInfo. Exit codes are never used twice; a removed
error's code stays reserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class ErrorKind:
    """One kind of failure a user can meet."""

    exit_code: int
    grpc_status: str
    """Name of the gRPC status code it travels under."""
    hint: str
    """What to do next."""


class Reason(Enum):
    """Every kind of failure, by its stable name."""

    INTERNAL = ErrorKind(1, "INTERNAL", "Look into the coordinator's log, then report a bug.")
    INVALID_ARGUMENT = ErrorKind(2, "INVALID_ARGUMENT", "See --help for what is accepted.")
    MODEL_INVALID = ErrorKind(
        10, "INVALID_ARGUMENT", "Give an ONNX file or a program saved by torch.export.save."
    )
    MODEL_UNSUPPORTED = ErrorKind(
        11, "INVALID_ARGUMENT", "Replace the operator named above, or cut it off the model."
    )
    SHAPE_REQUIRED = ErrorKind(
        12, "INVALID_ARGUMENT", "Give each symbolic input's shape, e.g. --shape data=1,3,224,224."
    )
    MODEL_NOTHING_TO_TUNE = ErrorKind(
        13, "INVALID_ARGUMENT", "The model has no operator that TVM could tune."
    )
    DATASET_INVALID = ErrorKind(
        14, "INVALID_ARGUMENT", "Give a folder or file that `tunefleet dataset export` wrote."
    )
    SPLIT_IMPOSSIBLE = ErrorKind(
        15,
        "FAILED_PRECONDITION",
        "Collect trials of more workloads, networks or targets, or choose another split or share.",
    )
    NO_DEVICE_MATCHES = ErrorKind(
        20, "FAILED_PRECONDITION", "See `tunefleet devices list`, then correct --devices."
    )
    COORDINATOR_UNREACHABLE = ErrorKind(
        21, "UNAVAILABLE", "Start one with `tunefleet up`, or give its address with --coordinator."
    )
    CAMPAIGN_UNKNOWN = ErrorKind(22, "NOT_FOUND", "See `tunefleet campaigns list`.")
    DEVICE_UNKNOWN = ErrorKind(23, "NOT_FOUND", "See `tunefleet devices list`.")
    MODEL_VERSION_UNKNOWN = ErrorKind(24, "NOT_FOUND", "See `tunefleet model list`.")
    CAMPAIGN_STATE = ErrorKind(
        25, "FAILED_PRECONDITION", "See the campaign's state with `tunefleet campaigns show`."
    )
    CAMPAIGN_FAILED = ErrorKind(26, "ABORTED", "See `tunefleet campaigns show`.")
    MODEL_VERSION_STATE = ErrorKind(27, "FAILED_PRECONDITION", "See `tunefleet model list`.")
    MODEL_RANKS_WORSE = ErrorKind(
        28, "FAILED_PRECONDITION", "Measure or train more, or promote it all the same with --force."
    )
    BLOB_UNKNOWN = ErrorKind(30, "NOT_FOUND", "Upload the blob first.")
    BLOB_CORRUPT = ErrorKind(31, "DATA_LOSS", "Send it again; if it persists, check the disk.")
    LEASE_LOST = ErrorKind(32, "FAILED_PRECONDITION", "Drop the work and lease anew.")
    AGENT_UNKNOWN = ErrorKind(33, "NOT_FOUND", "Register the agent again.")
    INCOMPATIBLE = ErrorKind(
        40, "FAILED_PRECONDITION", "Install the same TuneFleet release on both sides."
    )
    NOT_LOOPBACK = ErrorKind(
        41, "INVALID_ARGUMENT", "Leave --insecure out, or listen on 127.0.0.1."
    )
    HOME_IN_USE = ErrorKind(
        42, "FAILED_PRECONDITION", "Stop the other process, or choose another --home."
    )
    NOT_INSTALLED = ErrorKind(
        43, "FAILED_PRECONDITION", "Install it with `pip install 'tunefleet[coordinator,agent]'`."
    )
    UNAUTHENTICATED = ErrorKind(
        44, "UNAUTHENTICATED", "Join the coordinator with a token: see `tunefleet login --help`."
    )
    ADDRESS_IN_USE = ErrorKind(
        45, "UNAVAILABLE", "Stop who listens there, or choose another --listen (port 0 finds one)."
    )
    DATABASE_UNREACHABLE = ErrorKind(
        46, "UNAVAILABLE", "Check that the database runs, and the URL given with --database."
    )
    DISK_FULL = ErrorKind(
        47, "RESOURCE_EXHAUSTED", "Make room on the coordinator's disk; all goes on by itself then."
    )
    FORBIDDEN = ErrorKind(
        49, "PERMISSION_DENIED", "Ask an admin of the coordinator for a role that may do this."
    )
    RATE_LIMITED = ErrorKind(
        50, "RESOURCE_EXHAUSTED", "Ask less often, or fewer things at a time; then try again."
    )
    TIMED_OUT = ErrorKind(
        51, "DEADLINE_EXCEEDED", "Try again; if it persists, look into load and network."
    )
    BLOB_QUOTA = ErrorKind(
        52, "RESOURCE_EXHAUSTED", "Give the coordinator more room with `serve --blob-quota`."
    )
    INTERRUPTED = ErrorKind(130, "CANCELLED", "Take it up again with `tunefleet campaigns watch`.")


class TuneFleetError(Exception):
    """A failure with a name from the catalogue and a message for the person who met it."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        hint: str = "",
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint or reason.value.hint
        """What to do next; the catalogue's words unless the place knows better ones."""
        self.retry_after_s = retry_after_s
        """Seconds after which the same call may succeed, where that is known."""
