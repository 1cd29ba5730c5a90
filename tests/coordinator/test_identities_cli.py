"""``tunefleet tokens|users|whoami|audit`` against a real coordinator with certificates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from secure_server import SecureServer, secure_server

from tunefleet.cli.app import run


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecureServer]:
    monkeypatch.setenv("TUNEFLEET_INSECURE", "0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    async with secure_server(tmp_path / "home") as started:
        yield started


async def command(server: SecureServer, *arguments: str) -> None:
    code = await asyncio.to_thread(run, [*arguments, "--coordinator", server.address])
    assert code == 0


async def answer(
    server: SecureServer, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    """Return the JSON object that a command printed; the server here logs to the same place."""
    capsys.readouterr()
    await command(server, *arguments, "--format", "json")
    out = capsys.readouterr().out
    found: dict[str, Any] = json.loads(out[out.index("{\n") :])
    return found


async def test_a_token_comes_with_the_command_that_it_is_for(
    server: SecureServer, capsys: pytest.CaptureFixture[str]
) -> None:
    await command(server, "tokens", "create")
    out = capsys.readouterr().out
    assert f"tunefleet-agent run --coordinator {server.address} --token tft1-" in out
    # A name of this machine would send others where nobody listens.
    assert "On this machine only" in out
    assert "--listen 0.0.0.0:" in out


async def test_a_token_can_be_listed_and_revoked(
    server: SecureServer, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await answer(server, capsys, "tokens", "create", "--label", "site=lab", "--uses", "3")
    assert made["loopback_only"]
    token_id = made["token"]["id"]
    [listed] = (await answer(server, capsys, "tokens", "list"))["tokens"]
    assert (listed["id"], listed["uses"]) == (token_id, 3)
    assert listed["labels"] == {"site": "lab"}
    assert made["text"] not in str(listed)
    await command(server, "tokens", "revoke", token_id)
    [listed] = (await answer(server, capsys, "tokens", "list"))["tokens"]
    assert listed["revoked"]


async def test_a_person_is_told_how_to_log_in(
    server: SecureServer, capsys: pytest.CaptureFixture[str]
) -> None:
    await command(server, "users", "add", "ada", "--role", "viewer")
    assert f"tunefleet login --coordinator {server.address} tft1-" in capsys.readouterr().out


async def test_who_one_is_and_what_was_done(
    server: SecureServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await answer(server, capsys, "whoami"))["whoami"]["role"] == "admin"
    await command(server, "tokens", "create")
    entries = (await answer(server, capsys, "audit"))["entries"]
    assert any("CreateToken" in str(entry) and "OK" in str(entry) for entry in entries)
