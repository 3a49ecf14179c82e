"""Free ports, below those that the system gives to connections: one of these could take a port before it is used."""

import socket
from random import SystemRandom

_LOWEST, _HIGHEST = 10_000, 32_000


def free_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        port = SystemRandom().randrange(_LOWEST, _HIGHEST)
        with socket.socket() as probe:
            if port not in ports and not _is_taken(probe, port):
                ports.append(port)
    return ports


def _is_taken(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return True
    return False
