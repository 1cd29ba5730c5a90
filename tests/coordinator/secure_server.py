"""A real server with certificates, and whoever joins it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from server_harness import ListPlanner

from coordinator.security.admission import Admission
from coordinator.security.authority import Authority
from coordinator.security.directory import Directory
from coordinator.server.app import Wiring, serve
from coordinator.server.core import Core, ServerConfig
from tunefleet.identity.credentials import CHANNEL_OPTIONS, Credentials
from tunefleet.identity.enrolling import Enrolled, enrol
from tunefleet.identity.keys import key_to_pem, new_key
from tunefleet.identity.tokens import JoinToken, parse_token
from tunefleet.v1 import (
    agent_service_pb2_grpc,
    blob_service_pb2_grpc,
    identity_service_pb2_grpc,
    user_service_pb2_grpc,
)
from tunefleet.v1 import (
    identity_service_pb2 as pb,
)

PATIENCE_S = 60.0
ALONE = (("grpc.use_local_subchannel_pool", 1),)
"""A connection for each channel, as for each process."""


@dataclass
class Peer:
    """Somebody with a channel of their own."""

    channel: grpc.aio.Channel

    @property
    def agents(self) -> Any:
        return agent_service_pb2_grpc.AgentServiceStub(self.channel)

    @property
    def blobs(self) -> Any:
        return blob_service_pb2_grpc.BlobServiceStub(self.channel)

    @property
    def campaigns(self) -> Any:
        return user_service_pb2_grpc.CampaignServiceStub(self.channel)

    @property
    def devices(self) -> Any:
        return user_service_pb2_grpc.DeviceServiceStub(self.channel)

    @property
    def models(self) -> Any:
        return user_service_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def identities(self) -> Any:
        return identity_service_pb2_grpc.IdentityServiceStub(self.channel)


@dataclass
class SecureServer:
    """A running server with certificates."""

    address: str
    home: Path
    core: Core
    planner: ListPlanner
    channels: list[grpc.aio.Channel]

    def peer(self, credentials: Credentials | None) -> Peer:
        """Connect; with no certificate at all for ``None``, but trusting the authority."""
        authority = Credentials.load(self.home / "admin")
        assert authority is not None
        shown = (
            grpc.ssl_channel_credentials(authority.authority)
            if credentials is None
            else credentials.channel_credentials()
        )
        channel = grpc.aio.secure_channel(self.address, shown, (*CHANNEL_OPTIONS, *ALONE))
        self.channels.append(channel)
        return Peer(channel)

    @property
    def admin(self) -> Peer:
        """Whoever owns the home."""
        return self.peer(self.admin_credentials)

    @property
    def admin_credentials(self) -> Credentials:
        held = Credentials.load(self.home / "admin")
        assert held is not None
        return held

    async def token(self, role: str = "agent", **changes: Any) -> JoinToken:
        """Have the admin make a token."""
        fields: dict[str, Any] = {"role": f"ROLE_{role.upper()}", "uses": 1}
        request = pb.CreateTokenRequest(**(fields | changes))
        if not request.HasField("ttl"):
            request.ttl.FromSeconds(600)
        return parse_token((await self.admin.identities.CreateToken(request)).token)

    async def enrol(self, token: JoinToken, name: str = "", key: Any = None) -> Enrolled:
        """Join with a token."""
        return await asyncio.to_thread(enrol, self.address, token, key or new_key(), name)

    async def agent(self, name: str = "id-pi4", labels: Mapping[str, str] | None = None) -> Peer:
        """Let an agent in."""
        token = await self.token(labels=dict(labels or {}))
        return self.peer((await self.enrol(token, name)).credentials)

    async def user(self, role: str, name: str = "") -> Peer:
        """Let a person in."""
        token = await self.token(role, name=name or f"some-{role}")
        return self.peer((await self.enrol(token)).credentials)

    def forged(self, name: str, *, expired: bool = False, authority: Path | None = None) -> Any:
        """Make credentials by the server's own authority, or by another in a folder."""
        signs = Authority(authority or self.home / "authority")
        now = self.core.clock()
        key = new_key()
        began, lifetime_s = (now - 3600.0, 60.0) if expired else (now, 3600.0)
        issued = signs.issue(key.public_key(), name, began, lifetime_s)
        return Credentials(key_to_pem(key), issued.pem, self.admin_credentials.authority)

    def admission(self) -> Admission:
        """What the server lets people in with, as another process of the same home would."""
        authority = Authority(self.home / "authority")
        return Admission(self.core.store, authority, Directory(self.core.store), self.core.clock)


@asynccontextmanager
async def secure_server(home: Path) -> AsyncIterator[SecureServer]:
    """Run a server with certificates on free ports for as long as the context lasts."""
    planner = ListPlanner()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    def wire(core: Core) -> Wiring:
        planner.core = core
        return Wiring(planner)

    config = ServerConfig(home, "127.0.0.1:0", insecure=False)
    finished = asyncio.create_task(serve(config, wire, ready=ready.set_result, stop=stop))
    await asyncio.wait({ready, finished}, return_when=asyncio.FIRST_COMPLETED)
    if finished.done():
        finished.result()
    assert planner.core is not None
    server = SecureServer(ready.result(), home, planner.core, planner, [])
    try:
        yield server
    finally:
        for channel in server.channels:
            await channel.close()
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await finished
