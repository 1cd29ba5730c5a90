"""What a failed call means, by the catalogue of errors."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import INSECURE_VARIABLE, insecure_wanted
from tunefleet.retry_info import retry_after_s

_REASONS_BY_STATUS = {
    "UNAVAILABLE": Reason.COORDINATOR_UNREACHABLE,
    "DEADLINE_EXCEEDED": Reason.COORDINATOR_UNREACHABLE,
    "INVALID_ARGUMENT": Reason.INVALID_ARGUMENT,
    "OUT_OF_RANGE": Reason.INVALID_ARGUMENT,
    "FAILED_PRECONDITION": Reason.CAMPAIGN_STATE,
    "ABORTED": Reason.CAMPAIGN_FAILED,
    "DATA_LOSS": Reason.BLOB_CORRUPT,
    "UNIMPLEMENTED": Reason.INCOMPATIBLE,
    "UNAUTHENTICATED": Reason.UNAUTHENTICATED,
    "PERMISSION_DENIED": Reason.FORBIDDEN,
    "CANCELLED": Reason.INTERRUPTED,
}


def named_failure(
    failed: grpc.RpcError, address: str, *, not_found: Reason = Reason.INTERNAL
) -> TuneFleetError:
    """Name a failed call by the catalogue.

    The reason travels in google.rpc.ErrorInfo; where there is none, the status code decides.

    Args:
        failed: what the call raised.
        address: HOST:PORT that was called, for the message.
        not_found: what a NOT_FOUND that does not name its reason means here.
    """
    code, details = status_of(failed)
    info = _error_info(failed)
    if info is not None:
        return TuneFleetError(
            Reason[info.reason],
            details,
            hint=info.metadata["hint"],
            retry_after_s=_retry_after_s(failed),
        )
    if code == "NOT_FOUND":
        return TuneFleetError(not_found, details)
    reason = _REASONS_BY_STATUS.get(code, Reason.INTERNAL)
    if reason is Reason.COORDINATOR_UNREACHABLE:
        return _unreachable(code, details, address)
    return TuneFleetError(reason, details or f"the call ended with {code}")


def _retry_after_s(failed: grpc.RpcError) -> float | None:
    return (
        retry_after_s(failed.trailing_metadata()) or None if isinstance(failed, grpc.Call) else None
    )


def _unreachable(code: str, details: str, address: str) -> TuneFleetError:
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return TuneFleetError(
            Reason.UNAUTHENTICATED,
            f"who answers at {address} is not the coordinator that your credentials are of",
            hint="Check the address; after the coordinator's folder was made anew, join again.",
        )
    if "handshake" in details or "WRONG_VERSION_NUMBER" in details:
        return TuneFleetError(
            Reason.UNAUTHENTICATED,
            f"the coordinator at {address} and this side could not agree on a secure connection",
            hint="The coordinator may run with --insecure, or your certificate have ended; "
            "join again with a new token.",
        )
    if details.endswith("Socket closed") and insecure_wanted():
        return TuneFleetError(
            Reason.UNAUTHENTICATED,
            f"the coordinator at {address} hangs up on plain text",
            hint=f"Unset {INSECURE_VARIABLE}, and join with a token: `tunefleet login`.",
        )
    # gRPC puts the plain cause, such as "Connection refused", last.
    cause = details.rpartition(": ")[2]
    why = "it did not answer in time" if code == "DEADLINE_EXCEEDED" else cause
    return TuneFleetError(
        Reason.COORDINATOR_UNREACHABLE, f"no coordinator answers at {address}: {why}"
    )


def is_unavailable(error: Exception) -> bool:
    """Whether a failed call is worth another attempt."""
    return isinstance(error, grpc.RpcError) and status_of(error)[0] == "UNAVAILABLE"


def status_of(error: grpc.RpcError) -> tuple[str, str]:
    """Return the name of the status code and the message of a failed call."""
    if not isinstance(error, grpc.Call):
        return "UNKNOWN", str(error)
    return error.code().name, _first_line(error.details() or "")


def _first_line(details: str) -> str:
    # gRPC's own messages carry lists of subchannels after the first sentence.
    return details.strip().splitlines()[0] if details.strip() else ""


def _error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """Return what the coordinator said of a failure, if its reason is in our catalogue."""
    if not isinstance(error, grpc.Call):
        return None
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details contradict the status they came with
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.reason in Reason.__members__:
            return info
    return None
