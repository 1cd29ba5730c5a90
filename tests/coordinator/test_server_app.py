from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_harness import PATIENCE_S, failure_of, running_server

from coordinator.server.address import join_address, listen_address
from coordinator.server.app import serve
from coordinator.server.core import ServerConfig
from coordinator.state.home import Home
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import agent_service_pb2, user_service_pb2, user_service_pb2_grpc

IDLE_RSS_LIMIT_MB = 300


@dataclass
class Coordinator:
    """A coordinator in a process of its own."""

    process: subprocess.Popen[str]
    address: str


@contextmanager
def coordinator(home: Path) -> Iterator[Coordinator]:
    command = [sys.executable, "-m", "coordinator", "--home", str(home), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield Coordinator(process, _address(process, Home(home).address_file))
    finally:
        process.kill()
        process.communicate()


def _address(process: subprocess.Popen[str], file: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists():
            return file.read_text().strip()
        time.sleep(0.02)
    raise AssertionError("the coordinator wrote no address")


def list_campaigns(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub = user_service_pb2_grpc.CampaignServiceStub(channel)
        request = user_service_pb2.ListCampaignsRequest()
        return len(stub.ListCampaigns(request, timeout=PATIENCE_S).campaigns)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coordinator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_it_gracefully(self, tmp_path: Path, number: signal.Signals) -> None:
        with coordinator(tmp_path) as running:
            assert list_campaigns(running.address) == 0
            running.process.send_signal(number)
            assert running.process.wait(PATIENCE_S) == 0
        assert not Home(tmp_path).address_file.exists()

    def test_a_killed_one_can_be_started_again(self, tmp_path: Path) -> None:
        with coordinator(tmp_path) as running:
            list_campaigns(running.address)
            running.process.kill()
            running.process.wait()
        Home(tmp_path).address_file.unlink()
        with coordinator(tmp_path) as running:
            assert list_campaigns(running.address) == 0

    def test_a_second_one_is_kept_out_of_the_home(self, tmp_path: Path) -> None:
        with coordinator(tmp_path):
            second = run("--home", str(tmp_path), "--listen", "127.0.0.1:0")
        assert second.returncode == Reason.HOME_IN_USE.value.exit_code
        assert str(tmp_path) in second.stderr

    def test_a_port_in_use_is_named(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            refused = run("--home", str(tmp_path), "--listen", address)
        assert refused.returncode == Reason.ADDRESS_IN_USE.value.exit_code
        assert address in refused.stderr

    def test_two_coordinators_cannot_share_a_port(self, tmp_path: Path) -> None:
        with coordinator(tmp_path / "one") as running:
            refused = run("--home", str(tmp_path / "two"), "--listen", running.address)
        assert refused.returncode == Reason.ADDRESS_IN_USE.value.exit_code

    def test_an_open_address_is_refused_before_anything_is_made(self, tmp_path: Path) -> None:
        refused = run("--home", str(tmp_path / "home"), "--listen", "0.0.0.0:0")
        assert refused.returncode == Reason.NOT_LOOPBACK.value.exit_code
        assert not (tmp_path / "home").exists()

    def test_idle_it_is_small_and_asleep(self, tmp_path: Path) -> None:
        with coordinator(tmp_path) as running:
            list_campaigns(running.address)
            status = Path(f"/proc/{running.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert int(fields["VmRSS"].split()[0]) / 1024 < IDLE_RSS_LIMIT_MB

    def test_it_allows_for_more_connections_than_shells_do(self, tmp_path: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
        try:
            with coordinator(tmp_path) as running:
                allowed, _ = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert allowed > 1024

    def test_it_imports_nothing_heavy(self, tmp_path: Path) -> None:
        script = Path(__file__).with_name("server_idle.py")
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, check=True
        )
        # The log goes to stdout where nobody configured it; the answer is the last line.
        imported = set(json.loads(done.stdout.splitlines()[-1]))
        assert "sqlalchemy" in imported
        heavy = {"torch", "tvm", "tvm_ffi", "numpy", "matplotlib", "onnx", "onnxruntime"}
        assert imported & (heavy | {"agent"}) == set()


class TestServing:
    async def test_health_and_reflection_answer(self, tmp_path: Path) -> None:
        async with running_server(tmp_path) as server:
            health = health_pb2_grpc.HealthStub(server.channel)
            request = health_pb2.HealthCheckRequest(service="tunefleet.v1.AgentService")
            answer = await health.Check(request)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

            reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel)
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            stream = reflection.ServerReflectionInfo(iter([asked]))
            listed = (await stream.read()).list_services_response.service
            assert "tunefleet.v1.CampaignService" in {service.name for service in listed}

    async def test_a_waiting_health_check_hears_of_the_end(self, tmp_path: Path) -> None:
        async with running_server(tmp_path) as server, asyncio.timeout(PATIENCE_S):
            health = health_pb2_grpc.HealthStub(server.channel)
            stream = health.Watch(health_pb2.HealthCheckRequest())
            assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVING
            server.stop.set()
            assert (await stream.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            stream.cancel()

    async def test_an_unexpected_error_tells_nothing_of_the_inside(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: object) -> None:
            raise ValueError("the secret")

        async with running_server(tmp_path) as server:
            await server.register()
            monkeypatch.setattr(server.planner, "next_lease", fail)
            request = agent_service_pb2.AcquireLeaseRequest(device_id="id-pi4")
            failure = await failure_of(server.agents.AcquireLease(request))
        assert (failure.reason, failure.code) == ("INTERNAL", grpc.StatusCode.INTERNAL)
        assert "secret" not in failure.message

    async def test_a_background_task_that_fails_ends_the_server(self, tmp_path: Path) -> None:
        async def fail() -> None:
            raise RuntimeError("the runner broke")

        with pytest.raises(RuntimeError, match="the runner broke"):
            async with running_server(tmp_path, [fail]) as server, asyncio.timeout(PATIENCE_S):
                await server.finished

    async def test_background_tasks_are_cancelled_at_the_end(self, tmp_path: Path) -> None:
        ended = asyncio.Event()

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with running_server(tmp_path, [wait]):
            pass
        assert ended.is_set()

    async def test_the_home_is_free_again_after_a_failed_start(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            config = ServerConfig(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(TuneFleetError):
                await serve(config)
        async with running_server(tmp_path):
            pass


class TestAddress:
    @pytest.mark.parametrize(
        ("listen", "expected"),
        [
            ("127.0.0.1:7460", ("127.0.0.1", 7460)),
            ("127.8.9.1:0", ("127.8.9.1", 0)),
            ("[::1]:7460", ("::1", 7460)),
            ("localhost:1", ("127.0.0.1", 1)),
        ],
    )
    def test_loopback_is_accepted(self, listen: str, expected: tuple[str, int]) -> None:
        assert listen_address(listen, insecure=True) == expected

    def test_with_certificates_anybody_may_connect(self) -> None:
        assert listen_address("0.0.0.0:7460", insecure=False) == ("0.0.0.0", 7460)

    @pytest.mark.parametrize(
        ("listen", "reason"),
        [
            ("0.0.0.0:7460", Reason.NOT_LOOPBACK),
            ("[::]:7460", Reason.NOT_LOOPBACK),
            ("192.0.2.1:7460", Reason.NOT_LOOPBACK),
            ("0:7460", Reason.NOT_LOOPBACK),
            ("7460", Reason.INVALID_ARGUMENT),
            (":7460", Reason.INVALID_ARGUMENT),
            ("127.0.0.1:http", Reason.INVALID_ARGUMENT),
            ("127.0.0.1:70000", Reason.INVALID_ARGUMENT),
            ("no-such-host.invalid:7460", Reason.INVALID_ARGUMENT),
        ],
    )
    def test_on_plain_text_everything_else_is_refused(self, listen: str, reason: Reason) -> None:
        with pytest.raises(TuneFleetError) as raised:
            listen_address(listen, insecure=True)
        assert raised.value.reason is reason

    def test_ipv6_addresses_are_written_with_brackets(self) -> None:
        assert join_address("::1", 7460) == "[::1]:7460"
