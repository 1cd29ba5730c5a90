"""Attacks on who may connect and join, against a real server with certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from secure_server import PATIENCE_S, SecureServer, secure_server
from server_harness import failure_of, registration

from coordinator.security.rules import RULES
from coordinator.state.identity_records import Role
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.keys import certificate_request, new_key
from tunefleet.identity.tokens import JoinToken
from tunefleet.v1 import (
    agent_service_pb2,
    blob_service_pb2,
    dataset_service_pb2,
    user_service_pb2,
)
from tunefleet.v1 import (
    identity_service_pb2 as identity_pb,
)


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's own folder for credentials."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SecureServer]:
    async with secure_server(tmp_path / "home") as started:
        yield started


def me() -> identity_pb.WhoAmIRequest:
    return identity_pb.WhoAmIRequest()


async def refusal_of(call: Any) -> grpc.StatusCode:
    """Return how a connection that the handshake refuses shows itself."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(me(), timeout=10)
    return raised.value.code()


class TestConnecting:
    async def test_without_a_certificate_nothing_answers(self, server: SecureServer) -> None:
        stranger = server.peer(None)
        assert await refusal_of(stranger.identities.WhoAmI) is grpc.StatusCode.UNAVAILABLE

    async def test_plain_text_is_not_understood(self, server: SecureServer) -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = channel.unary_unary("/tunefleet.v1.IdentityService/WhoAmI")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"", timeout=10)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    async def test_a_certificate_of_another_authority_is_refused(
        self, server: SecureServer, tmp_path: Path
    ) -> None:
        forged = server.peer(server.forged("admin", authority=tmp_path / "another"))
        assert await refusal_of(forged.identities.WhoAmI) is grpc.StatusCode.UNAVAILABLE

    async def test_a_certificate_that_has_ended_is_refused(self, server: SecureServer) -> None:
        ended = server.peer(server.forged("admin", expired=True))
        assert await refusal_of(ended.identities.WhoAmI) is grpc.StatusCode.UNAVAILABLE

    async def test_a_certificate_for_a_name_that_was_never_let_in_is_refused(
        self, server: SecureServer
    ) -> None:
        unknown = server.peer(server.forged("nobody"))
        assert (await failure_of(unknown.identities.WhoAmI(me()))).reason == "UNAUTHENTICATED"

    async def test_an_agents_certificate_is_no_servers(self, server: SecureServer) -> None:
        agent = (await server.enrol(await server.token(), "id-pi4")).credentials
        pairs = [(agent.key, agent.certificate)]
        impostor = grpc.aio.server()
        port = impostor.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pairs))
        await impostor.start()
        trusting = grpc.ssl_channel_credentials(agent.authority)
        options = (("grpc.ssl_target_name_override", "coordinator.tunefleet"),)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trusting, options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/any")(b"", timeout=10)
        await impostor.stop(None)
        assert "CERTIFICATE_VERIFY_FAILED" in (raised.value.details() or "")


class TestRevoking:
    async def test_a_revoked_agent_is_refused_at_once(self, server: SecureServer) -> None:
        agent = await server.agent()
        assert (await agent.identities.WhoAmI(me())).name == "id-pi4"
        request = identity_pb.RevokeIdentityRequest(name="id-pi4")
        await server.admin.identities.RevokeIdentity(request)
        assert (await failure_of(agent.identities.WhoAmI(me()))).reason == "UNAUTHENTICATED"

    async def test_its_calls_in_progress_are_broken_off(self, server: SecureServer) -> None:
        agent = await server.agent()
        await agent.agents.RegisterAgent(registration())
        control = agent.agents.Control(agent_service_pb2.ControlRequest(device_id="id-pi4"))
        await control.read()
        request = identity_pb.RevokeIdentityRequest(name="pi4")
        await server.admin.identities.RevokeIdentity(request)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await control.read()
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED

    async def test_it_stays_out_after_a_restart_and_with_a_new_token(self, tmp_path: Path) -> None:
        async with secure_server(tmp_path / "home") as server:
            agent = (await server.enrol(await server.token(), "id-pi4")).credentials
            request = identity_pb.RevokeIdentityRequest(name="id-pi4")
            await server.admin.identities.RevokeIdentity(request)
        async with secure_server(tmp_path / "home") as server:
            refused = await failure_of(server.peer(agent).identities.WhoAmI(me()))
            assert refused.reason == "UNAUTHENTICATED"
            with pytest.raises(TuneFleetError) as raised:
                await server.enrol(await server.token(), "id-pi4")
            assert raised.value.reason is Reason.FORBIDDEN

    async def test_a_renewal_that_a_backup_forgot_is_heeded_too(self, server: SecureServer) -> None:
        await server.agent()
        adopted = server.peer(server.forged("id-pi4"))
        assert (await adopted.identities.WhoAmI(me())).role == identity_pb.ROLE_AGENT
        request = identity_pb.RevokeIdentityRequest(name="id-pi4")
        await server.admin.identities.RevokeIdentity(request)
        assert (await failure_of(adopted.identities.WhoAmI(me()))).reason == "UNAUTHENTICATED"


class TestTokens:
    async def test_a_token_lets_in_as_many_as_it_says(self, server: SecureServer) -> None:
        token = await server.token(uses=2)
        await server.enrol(token, "a")
        await server.enrol(token, "b")
        with pytest.raises(TuneFleetError) as raised:
            await server.enrol(token, "c")
        assert raised.value.reason is Reason.UNAUTHENTICATED
        assert "used as often" in raised.value.message

    async def test_repeating_with_the_same_key_takes_no_further_use(
        self, server: SecureServer
    ) -> None:
        token, key = await server.token(), new_key()
        await server.enrol(token, "a", key)
        assert (await server.enrol(token, "a", key)).name == "a"

    async def test_a_stolen_token_does_not_take_over_a_device(self, server: SecureServer) -> None:
        token = await server.token(uses=5)
        await server.enrol(token, "id-pi4")
        with pytest.raises(TuneFleetError) as raised:
            await server.enrol(token, "id-pi4")
        assert raised.value.reason is Reason.FORBIDDEN

    async def test_a_device_cannot_join_under_a_users_name(self, server: SecureServer) -> None:
        with pytest.raises(TuneFleetError) as raised:
            await server.enrol(await server.token(), "admin")
        assert raised.value.reason is Reason.FORBIDDEN

    async def test_a_revoked_token_lets_nobody_in(self, server: SecureServer) -> None:
        token = await server.token()
        request = identity_pb.RevokeTokenRequest(token_id=token.token_id)
        await server.admin.identities.RevokeToken(request)
        with pytest.raises(TuneFleetError) as raised:
            await server.enrol(token, "a")
        assert raised.value.reason is Reason.UNAUTHENTICATED

    async def test_a_token_that_has_ended_lets_nobody_in(self, server: SecureServer) -> None:
        admission = server.admission()
        token, _ = admission.create_token(
            Role.AGENT, "", {}, uses=1, ttl_s=1.0, created_by="", port=1
        )
        late = server.core.clock() + 2.0
        admission._clock = lambda: late
        request = certificate_request(new_key())
        with pytest.raises(TuneFleetError) as raised:
            admission.enrol(token.token_id, token.secret, request, "a")
        assert raised.value.reason is Reason.UNAUTHENTICATED

    async def test_a_wrong_secret_is_refused_as_an_unknown_token_is(
        self, server: SecureServer
    ) -> None:
        token = await server.token()
        messages = set()
        for token_id in (token.token_id, "0" * 16):
            wrong = JoinToken(token_id, b"\0" * 20, token.pin, token.port)
            with pytest.raises(TuneFleetError) as raised:
                await server.enrol(wrong, "a")
            assert raised.value.reason is Reason.UNAUTHENTICATED
            messages.add(raised.value.message)
        assert len(messages) == 1

    async def test_secrets_are_stored_nowhere(self, server: SecureServer) -> None:
        token = await server.token()
        stored = (server.home / "tunefleet.db").read_bytes()
        stored += (server.home / "tunefleet.db-wal").read_bytes()
        assert token.token_id.encode() in stored
        assert token.secret not in stored
        assert token.secret.hex().encode() not in stored

    async def test_a_token_does_not_lead_to_another_coordinator(
        self, server: SecureServer, tmp_path: Path
    ) -> None:
        async with secure_server(tmp_path / "impostor") as impostor:
            mine, theirs = await server.token(), await impostor.token()
            redirected = JoinToken(mine.token_id, mine.secret, mine.pin, theirs.port)
            with pytest.raises(TuneFleetError) as raised:
                await server.enrol(redirected, "a")
        assert raised.value.reason is Reason.UNAUTHENTICATED
        assert "not the coordinator" in raised.value.message

    @pytest.mark.parametrize("request_der", [b"", b"\x30", b"\0" * 4000, b"x" * 9000])
    async def test_a_damaged_certificate_request_is_refused_and_costs_no_use(
        self, server: SecureServer, request_der: bytes
    ) -> None:
        token = await server.token()
        admission = server.admission()
        with pytest.raises(TuneFleetError) as raised:
            admission.enrol(token.token_id, token.secret, request_der, "a")
        assert raised.value.reason is Reason.INVALID_ARGUMENT
        assert (await server.enrol(token, "a")).name == "a"


def test_every_method_has_a_rule() -> None:
    modules = (
        agent_service_pb2,
        blob_service_pb2,
        dataset_service_pb2,
        identity_pb,
        user_service_pb2,
    )
    methods = {
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    # It answers on a port of its own, to whoever has a token.
    assert methods - {"/tunefleet.v1.EnrolmentService/Enrol"} == set(RULES)


async def test_only_joining_answers_without_a_certificate(server: SecureServer) -> None:
    token = await server.token()
    trusting = grpc.ssl_channel_credentials(
        (server.home / "authority" / "enrolment.pem").read_bytes()
    )
    options = (("grpc.ssl_target_name_override", "coordinator.tunefleet"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{token.port}", trusting, options) as channel:
        for method in RULES:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(method)(b"", timeout=10)
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_keys_are_readable_by_their_owner_alone(server: SecureServer) -> None:
    keys = [*(server.home / "authority").iterdir(), *(server.home / "admin").iterdir()]
    assert len(keys) == 3
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


async def test_commands_of_the_homes_owner_find_their_credentials(
    server: SecureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunefleet.client import TuneFleet

    monkeypatch.delenv("TUNEFLEET_INSECURE")

    def ask() -> str:
        with TuneFleet(server.address) as fleet:
            return fleet.whoami().name

    assert await asyncio.to_thread(ask) == "admin"
