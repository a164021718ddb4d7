"""Floods of an endpoint by strangers, each of one kind, in a test or as a process of its own.

    python -m tests.transport.flood --target 127.0.0.1:7440 --kind initials --seconds 5

It ends by itself and prints one JSON object of what it sent and what came back. ``--sources`` takes
that many addresses of 127.0.0.0/8, for a target on loopback.
"""

import argparse
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from transport import TransportSettings, retry
from transport.certificate import ThrowAwayCertificate
from transport.engine import Connected, EngineConnection
from transport.engines import make_engine
from transport.limits import QUIC_VERSION
from transport.path import Address, PathPlan

PORTS = 64
SECONDS_MAX = 600.0
INITIAL_BYTES = 1_200
_ANSWERS_PER_PORT = 64
_STEPS_PER_HANDSHAKE = 40
_PLAN = PathPlan(INITIAL_BYTES, is_loopback=False, is_guessed=False)


@dataclass(slots=True)
class Sent:
    """What a flood did. ``retries`` and ``connected`` are what it got out of the target."""

    datagrams: int = 0
    retries: int = 0
    connected: int = 0


class Ports:
    """Many sockets, as an attacker with many addresses has them."""

    def __init__(self, target: Address, count: int = PORTS, sources: int = 1) -> None:
        self.target = target
        self.sent = Sent()
        self.sockets = [_bind(target[0], number % sources) for number in range(count)]

    def send(self, sock: socket.socket, datagram: bytes) -> None:
        try:
            sock.sendto(datagram, self.target)
        except OSError:
            return  # Full, or nobody listens yet.
        self.sent.datagrams += 1

    def answers(self, sock: socket.socket) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < _ANSWERS_PER_PORT:
            try:
                found.append(sock.recv(65_536))
            except OSError:
                break
        return found

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()

    def __enter__(self) -> "Ports":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bind(host: str, number: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if number:
        sock.bind((f"127.0.{1 + number // 250}.{1 + number % 250}", 0))
    else:
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    return sock


def initial(destination_id: bytes, token: bytes = b"") -> bytes:
    """An Initial that looks like one from outside: its payload is noise."""
    head = b"\xc0" + QUIC_VERSION.to_bytes(4, "big") + bytes([len(destination_id)])
    head += destination_id + b"\x08" + os.urandom(8)
    head += (len(token) | 0x4000).to_bytes(2, "big") + token
    rest = INITIAL_BYTES - len(head) - 2
    return head + (rest | 0x4000).to_bytes(2, "big") + os.urandom(rest)


def read_retry(packet: bytes) -> tuple[bytes, bytes] | None:
    """The connection id and the token of a Retry; None if it is something else."""
    if len(packet) < 40 or packet[0] & 0xF0 != 0xF0:
        return None
    header = retry.parse_long_header_untrusted(packet)
    start = 7 + len(header.destination_id) + len(header.source_id)
    return header.source_id, packet[start:-16]


def flood_initials(ports: Ports) -> Iterator[None]:
    """Initials without a token: each asks for a Retry."""
    datagrams = [initial(os.urandom(8)) for _ in range(256)]
    while True:
        for sock in ports.sockets:
            ports.send(sock, random.choice(datagrams))
            ports.sent.retries += sum(read_retry(a) is not None for a in ports.answers(sock))
            yield


def flood_replays(ports: Ports) -> Iterator[None]:
    """Tokens that are good: from their own port again and again, and from others'."""
    tokens: dict[socket.socket, bytes] = {}
    for sock in ports.sockets:
        ports.send(sock, initial(os.urandom(8)))
        yield
    while True:
        for sock in ports.sockets:
            for answer in ports.answers(sock):
                found = read_retry(answer)
                if found is not None:
                    ports.sent.retries += 1
                    tokens[sock] = initial(*found)
            if not tokens:
                ports.send(sock, initial(os.urandom(8)))
                yield
                continue
            own = tokens.get(sock)
            ports.send(sock, random.choice(list(tokens.values())) if own is None else own)
            yield


def flood_noise(ports: Ports) -> Iterator[None]:
    """What is no QUIC, or no whole QUIC."""
    whole = initial(os.urandom(8))
    datagrams = [
        *(os.urandom(size) for size in (1, 7, 20, 200, 1_200, 1_472)),
        *(b"\x40" + os.urandom(size) for size in (8, 40, 1_200)),
        *(whole[:size] for size in (1, 5, 6, 7, 30, 600, 1_199)),
        b"\xc0" + bytes(4) + whole[5:],
        b"\xc0\x6b\x33\x43\xcf" + whole[5:],
        b"\xe0" + whole[1:],
    ]
    while True:
        for sock in ports.sockets:
            ports.send(sock, random.choice(datagrams))
            ports.answers(sock)
            yield


def flood_stalls(ports: Ports) -> Iterator[None]:
    """Real clients that come back with their token, say their first words, and fall silent."""
    yield from _flood_clients(ports, lambda client: client.key_phase is None, wait_for_tls=False)


def flood_handshakes(ports: Ports) -> Iterator[None]:
    """Real clients that go through TLS and then leave without a word, over and over."""
    yield from _flood_clients(ports, lambda client: True, wait_for_tls=True)


def _flood_clients(
    ports: Ports, goes_on: Callable[[EngineConnection], bool], *, wait_for_tls: bool
) -> Iterator[None]:
    engine = make_engine(ThrowAwayCertificate.generate(), TransportSettings())
    clients: dict[socket.socket, tuple[EngineConnection, int]] = {}
    while True:
        for sock in ports.sockets:
            client, steps = clients.get(sock, (None, 0))
            now_s = time.monotonic()
            if client is None or steps >= _STEPS_PER_HANDSHAKE:
                client, steps = engine.dial(_PLAN), 0
                client.connect(ports.target, now_s)
            answers = ports.answers(sock)
            is_retried = any(read_retry(answer) is not None for answer in answers)
            ports.sent.retries += is_retried
            for answer in answers:
                client.receive(answer, 0, ports.target, now_s)
            clients[sock] = client, steps + 1
            if any(isinstance(event, Connected) for event in client.take_events()):
                ports.sent.connected += 1
                clients[sock] = client, _STEPS_PER_HANDSHAKE
            if wait_for_tls or steps == 0 or is_retried:
                for datagram, _ in client.take_datagrams(now_s):
                    ports.send(sock, datagram)
            yield


KINDS: dict[str, Callable[[Ports], Iterator[None]]] = {
    "initials": flood_initials,
    "replays": flood_replays,
    "stalls": flood_stalls,
    "noise": flood_noise,
    "handshakes": flood_handshakes,
}


def run(
    kind: str,
    target: Address,
    *,
    seconds: float,
    rate: float = 0.0,
    ports: int = PORTS,
    sources: int = 1,
) -> Sent:
    """Flood for so long, at no more than ``rate`` steps a second (0: as fast as one core can)."""
    begun_s = time.monotonic()
    with Ports(target, ports, sources) as made:
        for step, _ in enumerate(KINDS[kind](made)):
            now_s = time.monotonic()
            if now_s - begun_s >= min(seconds, SECONDS_MAX):
                break
            if rate and (ahead_s := step / rate - (now_s - begun_s)) > 0.001:
                time.sleep(ahead_s)
    return made.sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=0.0, help="steps a second; 0 is unbounded")
    parser.add_argument("--ports", type=int, default=PORTS)
    parser.add_argument("--sources", type=int, default=1, help="addresses of 127.0.0.0/8")
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    sent = run(
        options.kind,
        (host.strip("[]"), int(port)),
        seconds=options.seconds,
        rate=options.rate,
        ports=options.ports,
        sources=options.sources,
    )
    print(
        json.dumps(
            {
                "kind": options.kind,
                "datagrams": sent.datagrams,
                "retries": sent.retries,
                "connected": sent.connected,
            }
        )
    )


if __name__ == "__main__":
    main()
