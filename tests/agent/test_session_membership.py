"""How an agent joins and keeps its certificate, against a real coordinator with certificates."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.session import membership
from agent.session.coordinator import Coordinator, Identity
from agent.session.membership import Membership
from agent.session.pace import Pace
from agent.session.rpc import open_channel
from coordinator.security.authority import Authority
from coordinator.server.app import serve
from coordinator.server.calls import throttling
from coordinator.server.calls.rates import Rate
from coordinator.server.core import ServerConfig
from tunefleet.client import TuneFleet
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import Credentials
from tunefleet.identity.tokens import JoinToken, parse_token

DEVICE_ID = "11111111-2222-3333-4444-555555555555"
QUICK = Pace(first_retry_s=0.01, longest_retry_s=0.05)
PATIENCE_S = 60.0


class Home:
    """A coordinator's folder, and the coordinator in it while one runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = "127.0.0.1:0"
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        config = ServerConfig(self.folder, self.address, insecure=False)
        running = asyncio.create_task(serve(config, ready=ready.set_result, stop=self._stop))
        await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
        self.address, self._running = ready.result(), running

    async def stop(self) -> None:
        if self._running is not None:
            self._stop.set()
            await self._running
            self._running = None

    async def ask(self, what: Callable[[TuneFleet], Any]) -> Any:
        """Ask as the admin."""

        def work() -> Any:
            with TuneFleet(self.address, credentials=self.folder / "admin") as fleet:
                return what(fleet)

        return await asyncio.to_thread(work)

    async def token(self) -> JoinToken:
        return parse_token((await self.ask(lambda fleet: fleet.create_token())).text)


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = Home(tmp_path / "home")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def member(home: Home, tmp_path: Path) -> Membership:
    return Membership(tmp_path / "identity", home.address, DEVICE_ID)


def connect(home: Home, credentials: Credentials) -> Coordinator:
    channel = open_channel(home.address, credentials)
    return Coordinator(channel, Identity(DEVICE_ID, "pi4"), QUICK)


async def test_joining_once_is_enough(home: Home, member: Membership) -> None:
    token = await home.token()
    joined = await member.join(token, QUICK)
    assert joined.name() == DEVICE_ID
    assert await member.join(token, QUICK) == joined
    assert await member.join(None, QUICK) == joined
    [identity] = [i for i in await home.ask(TuneFleet.identities) if i.role == "agent"]
    assert identity.name == DEVICE_ID


async def test_without_a_token_the_first_start_says_what_to_do(member: Membership) -> None:
    with pytest.raises(TuneFleetError) as raised:
        await member.join(None, QUICK)
    assert raised.value.reason is Reason.UNAUTHENTICATED
    assert "tokens create" in raised.value.hint


async def test_it_waits_for_its_turn_where_many_join_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setitem(throttling.RATES, throttling.Traffic.WRITE, Rate(2.0, 1.0))
    home = Home(tmp_path / "home")
    await home.start()
    made = await home.ask(lambda fleet: fleet.create_token(uses=3))
    members = [Membership(tmp_path / f"board-{n}", home.address, f"board-{n}") for n in range(3)]
    joined = await asyncio.gather(*(m.join(parse_token(made.text), QUICK) for m in members))
    assert [credentials.name() for credentials in joined] == ["board-0", "board-1", "board-2"]
    await home.stop()


async def test_it_joins_once_the_coordinator_is_there(home: Home, member: Membership) -> None:
    token = await home.token()
    await home.stop()
    joining = asyncio.create_task(member.join(token, QUICK))
    while not (member.folder / "key.pem").exists():
        await asyncio.sleep(0.01)
    # The enrolment port is another one after the restart, so the token's must be asked for.
    address = home.address
    restarted = Home(home.folder)
    restarted.address = address
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    config = ServerConfig(home.folder, address, insecure=False, enrolment_port=token.port)
    running = asyncio.create_task(serve(config, ready=ready.set_result, stop=stop))
    async with asyncio.timeout(PATIENCE_S):
        assert (await joining).name() == DEVICE_ID
    stop.set()
    await running


async def test_an_answer_that_was_lost_costs_no_second_use(home: Home, member: Membership) -> None:
    token = await home.token()
    await member.join(token, QUICK)
    # As if the agent had died before it wrote what it got.
    (member.folder / "identity.pem").unlink()
    (member.folder / "joined-with").unlink()
    assert (await member.join(token, QUICK)).name() == DEVICE_ID


async def test_a_new_token_has_it_join_again_with_the_same_key(
    home: Home, member: Membership
) -> None:
    first = await member.join(await home.token(), QUICK)
    second = await member.join(await home.token(), QUICK)
    assert second.key == first.key
    assert second.certificate != first.certificate


async def test_a_certificate_is_renewed_in_time_and_used(
    home: Home, member: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await member.join(await home.token(), QUICK)
    coordinator = connect(home, before)
    # Of a certificate's 90 days a third counts as little.
    monkeypatch.setattr(membership, "RENEW_BELOW_S", sys.float_info.max)
    renewing = asyncio.create_task(member.renew(coordinator, QUICK))
    async with asyncio.timeout(PATIENCE_S):
        while Credentials.load(member.folder) == before:
            await asyncio.sleep(0.01)
    after = Credentials.load(member.folder)
    assert after is not None
    assert after.key != before.key
    assert await coordinator.certificate_left_s() is not None
    renewing.cancel()
    await coordinator.close()
    anew = connect(home, after)
    assert await anew.certificate_left_s() is not None
    await anew.close()


async def test_another_coordinator_at_the_same_address_is_not_trusted(
    home: Home, member: Membership, tmp_path: Path
) -> None:
    joined = await member.join(await home.token(), QUICK)
    other = Authority(tmp_path / "other")
    stranger = Credentials(joined.key, joined.certificate, other.pem)
    coordinator = connect(home, stranger)
    with pytest.raises(TuneFleetError) as raised:
        await coordinator.certificate_left_s()
    assert raised.value.reason is Reason.UNAUTHENTICATED
    await coordinator.close()
