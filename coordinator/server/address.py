"""Where the server listens: anywhere with certificates, on loopback alone without."""

from __future__ import annotations

import ipaddress
import socket

from tunefleet.errors import Reason, TuneFleetError

DEFAULT_LISTEN = "127.0.0.1:7460"


def listen_address(listen: str, *, insecure: bool) -> tuple[str, int]:
    """Check HOST:PORT and return the IP address and the port to bind; port 0 picks a free one.

    A name is resolved here, once, so that what is checked is what is bound.

    Args:
        listen: what was asked for.
        insecure: plain text, for which only loopback is allowed.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, or NOT_LOOPBACK if anybody else could connect.
    """
    host, colon, port_text = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port_text.isdecimal() or int(port_text) > 65535:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT, f"the address {listen!r} should look like 127.0.0.1:7460"
        )
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as e:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT, f"the host {host!r} of {listen!r} is not known: {e}"
        ) from e
    addresses = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
    if insecure and not all(address.is_loopback for address in addresses):
        raise TuneFleetError(
            Reason.NOT_LOOPBACK,
            f"{listen} is open to other machines, which plain text (--insecure) is not for",
        )
    # IPv4 first: it is what everybody expects of "localhost".
    return str(min(addresses, key=lambda address: address.version)), int(port_text)


def join_address(host: str, port: int) -> str:
    """Write an IP address and a port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
