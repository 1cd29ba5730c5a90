"""What proves an identity: a key, its certificate, and the authority that both sides trust."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509

from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.keys import SERVER_NAME

FILE = "identity.pem"
"""One file, so that a key and a certificate that belong together are replaced together."""

CREDENTIALS_VARIABLE = "TUNEFLEET_CREDENTIALS"
INSECURE_VARIABLE = "TUNEFLEET_INSECURE"
"""Environment variable; where it is set to 1, plain text is asked for, which loopback allows."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)
_MAX_FILE_BYTES = 64 * 1024
_PROBE_S = 2.0


@dataclass(frozen=True)
class Credentials:
    """An identity that a coordinator gave."""

    key: bytes
    """PEM."""
    certificate: bytes
    """PEM."""
    authority: bytes
    """PEM; the coordinator's own certificate must be signed by it."""

    @classmethod
    def load(cls, folder: Path) -> Credentials | None:
        """Read credentials from a folder; ``None`` where it holds none.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, the file cannot be read or is damaged.
        """
        path = folder / FILE
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_FILE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise _damaged(path, e.strerror or str(e)) from e
        blocks = [(match[1], match[0]) for match in _BLOCK.finditer(text)]
        keys = [block for label, block in blocks if label.endswith(b"PRIVATE KEY")]
        certificates = [block for label, block in blocks if label == b"CERTIFICATE"]
        if len(keys) != 1 or len(certificates) != 2:
            raise _damaged(path, "it should hold one key and two certificates")
        return cls(keys[0], certificates[0], certificates[1])

    def save(self, folder: Path) -> None:
        """Write them for this user alone, wholly or not at all."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / f"{FILE}.{os.getpid()}"
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(self.key + self.certificate + self.authority)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / FILE)

    def name(self) -> str:
        """Return the name in the certificate: a device id, or a user's name."""
        [attribute] = self._parsed().subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(attribute.value)

    def seconds_left(self, now_unix_s: float) -> float:
        """Return for how long the certificate is still good by a clock."""
        return self._parsed().not_valid_after_utc.timestamp() - now_unix_s

    def lifetime_s(self) -> float:
        """Return for how long it was good when it was made, the time it was dated back included."""
        parsed = self._parsed()
        period: datetime.timedelta = parsed.not_valid_after_utc - parsed.not_valid_before_utc
        return period.total_seconds()

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Make what a gRPC channel takes."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)

    def _parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate)

    def __repr__(self) -> str:
        return f"Credentials({self.name()})"


CHANNEL_OPTIONS: tuple[tuple[str, str], ...] = (("grpc.ssl_target_name_override", SERVER_NAME),)
"""For every channel with credentials: see :data:`SERVER_NAME`."""


def insecure_wanted() -> bool:
    """Whether the environment asks for plain text."""
    return os.environ.get(INSECURE_VARIABLE, "") not in {"", "0"}


def config_folder() -> Path:
    """Return the folder with a person's credentials, one folder for each coordinator."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "tunefleet" / "credentials"


def folder_for(address: str) -> Path:
    """Return where a person's credentials for the coordinator at HOST:PORT are kept."""
    host, _, port = address.rpartition(":")
    if is_loopback(address):
        host = "127.0.0.1"
    return config_folder() / re.sub(r"[^A-Za-z0-9._-]", "_", f"{host}_{port}")


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT stays on this machine."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_credentials(address: str, folder: Path | None = None) -> Credentials | None:
    """Find a person's credentials for the coordinator at HOST:PORT.

    They are in the folder given, or that TUNEFLEET_CREDENTIALS names, else where
    ``tunefleet login`` put them, or a coordinator that this person runs on this machine.

    Returns:
        ``None`` where TUNEFLEET_INSECURE asks for plain text.

    Raises:
        TuneFleetError: UNAUTHENTICATED, there are none; NOT_LOOPBACK, plain text is for loopback.
    """
    if folder is None and insecure_wanted():
        if is_loopback(address):
            return None
        raise TuneFleetError(
            Reason.NOT_LOOPBACK,
            f"{INSECURE_VARIABLE} is set, but {address} is another machine",
            hint=f"Unset {INSECURE_VARIABLE} and join with `tunefleet login`.",
        )
    named = os.environ.get(CREDENTIALS_VARIABLE)
    folder = folder or (Path(named) if named else folder_for(address))
    found = Credentials.load(folder)
    if found is not None:
        return found
    _require_listener(address)
    raise TuneFleetError(
        Reason.UNAUTHENTICATED,
        f"there are no credentials for the coordinator at {address} in {folder}",
        hint="Join with a token from its admin: `tunefleet login`. For a coordinator that runs "
        f"with --insecure, set {INSECURE_VARIABLE}=1.",
    )


def _require_listener(address: str) -> None:
    """Say so where nobody listens: that is what to mend first then."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except OSError as e:
        raise TuneFleetError(
            Reason.COORDINATOR_UNREACHABLE,
            f"no coordinator answers at {address}: {e.strerror or e}",
        ) from e


def _damaged(path: Path, why: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.INVALID_ARGUMENT,
        f"the credentials in {path} cannot be used: {why}",
        hint="Remove the file and join again with a new token.",
    )
