"""How the agent belongs to its coordinator: joins with a token, keeps its certificate fresh."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from agent.session.coordinator import Coordinator
from agent.session.pace import Backoff, Pace
from agent.session.rpc import Unavailable, open_channel
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import Credentials
from tunefleet.identity.enrolling import enrol
from tunefleet.identity.keys import certificate_request, key_from_pem, key_to_pem, new_key
from tunefleet.identity.tokens import JoinToken

RENEW_BELOW_S = 30 * 86400.0
"""A third of a certificate's life: a coordinator that is away for weeks is back in time."""
_CHECK_EVERY_S = 6 * 3600.0
_KEY_FILE = "key.pem"
_USED_FILE = "joined-with"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Membership:
    """Where an agent keeps who it is."""

    folder: Path
    coordinator: str
    device_id: str

    async def join(self, token: JoinToken | None, pace: Pace) -> Credentials:
        """Return the agent's credentials, after joining where it has none or the token is new.

        It is repeated while the coordinator is away.

        Raises:
            TuneFleetError: UNAUTHENTICATED, there is neither a certificate nor a token, or the
                coordinator refuses the token.
        """
        held = Credentials.load(self.folder)
        if held is not None and (token is None or self._used() == token.token_id):
            return held
        if token is None:
            raise TuneFleetError(
                Reason.UNAUTHENTICATED,
                "this agent has not joined a coordinator yet",
                "Give --token with what `tunefleet tokens create` prints; or --insecure, for a "
                "coordinator on this machine that runs so, too.",
            )
        key = self._key(held)
        backoff = Backoff(pace)
        while True:
            try:
                joined = await asyncio.to_thread(
                    enrol, self.coordinator, token, key, self.device_id
                )
                break
            except TuneFleetError as e:
                # A thousand boards behind one router are told to come one after the other.
                if e.reason not in {Reason.COORDINATOR_UNREACHABLE, Reason.RATE_LIMITED}:
                    raise
                _log.warning("cannot join yet, trying again", why=e.message)
                await backoff.wait(e.retry_after_s or 0.0)
        await asyncio.to_thread(joined.credentials.save, self.folder)
        (self.folder / _USED_FILE).write_text(f"{token.token_id}\n")
        _log.info("joined", coordinator=self.coordinator, device_id=joined.name)
        return joined.credentials

    async def renew(self, coordinator: Coordinator, pace: Pace) -> None:
        """Renew the certificate in time, by the coordinator's clock, until cancelled."""
        while True:
            left_s = await coordinator.certificate_left_s()
            if left_s is not None and left_s < RENEW_BELOW_S:
                await self._renew(coordinator)
            await asyncio.sleep(pace.spread(_CHECK_EVERY_S))

    async def _renew(self, coordinator: Coordinator) -> None:
        key = new_key()
        try:
            made = await coordinator.renew_certificate(certificate_request(key))
        except (Unavailable, TuneFleetError) as e:
            _log.warning("the certificate could not be renewed, trying again later", why=str(e))
            return
        fresh = Credentials(key_to_pem(key), made.certificate, made.authority)
        await asyncio.to_thread(fresh.save, self.folder)
        await coordinator.use(open_channel(self.coordinator, fresh))
        _log.info("certificate renewed")

    def _used(self) -> str:
        try:
            return (self.folder / _USED_FILE).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _key(self, held: Credentials | None) -> ec.EllipticCurvePrivateKey:
        """Return the key to join with, on disk before use: the coordinator knows us by it."""
        if held is not None:
            return key_from_pem(held.key)
        path = self.folder / _KEY_FILE
        try:
            return key_from_pem(path.read_bytes())
        except (FileNotFoundError, ValueError):
            made = new_key()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(key_to_pem(made))
        return made
