"""The proxy on real sockets: distinct sources, whole datagrams, other ports, and the dark."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.impairment.proxy import OLD_SOCKETS_MAX, Address, UdpProxy
from tests.impairment.settings import Impairment

WAIT_S = 10.0
HOSTS = ("127.0.0.1", "::1")
UDP_SEGMENT = 103  # linux/udp.h


class Peer:
    """A UDP socket that notes what comes from where, and may send it back."""

    def __init__(self, address: Address, *, echoes: bool) -> None:
        self.heard: list[tuple[bytes, Address]] = []
        self._echoes = echoes
        self._changed = asyncio.Event()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(address)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    @property
    def address(self) -> Address:
        host, port = self._socket.getsockname()[:2]
        return (host, port)

    @property
    def datagrams(self) -> list[bytes]:
        return [data for data, _ in self.heard]

    @property
    def sources(self) -> list[Address]:
        return [source for _, source in self.heard]

    def send(self, datagram: bytes, to: Address) -> None:
        self._socket.sendto(datagram, to)

    async def wait_heard(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.heard) < count:
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                datagram, source = self._socket.recvfrom(65_536)
                self.heard.append((datagram, source[:2]))
                self._changed.set()
                if self._echoes:
                    self._socket.sendto(datagram, source)


@asynccontextmanager
async def peer(
    host: str = "127.0.0.1", port: int = 0, *, echoes: bool = False
) -> AsyncIterator[Peer]:
    made = Peer((host, port), echoes=echoes)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("host", HOSTS)
async def test_clients_are_answered_each_by_itself_and_the_target_sees_them_apart(
    host: str,
) -> None:
    async with (
        peer(host, echoes=True) as echo,
        UdpProxy.open(echo.address) as proxy,
        peer(host) as first,
        peer(host) as second,
    ):
        first.send(b"from the first", proxy.address)
        second.send(b"from the second", proxy.address)
        await first.wait_heard(1)
        await second.wait_heard(1)

        assert first.heard == [(b"from the first", proxy.address)]
        assert second.heard == [(b"from the second", proxy.address)]
        assert len(set(echo.sources)) == 2
        assert proxy.stats()["flows"] == 2


async def test_the_two_families_meet_in_a_proxy() -> None:
    async with (
        peer("::1", echoes=True) as echo,
        UdpProxy.open(echo.address, listen=("127.0.0.1", 0)) as proxy,
        peer("127.0.0.1") as client,
    ):
        client.send(b"across", proxy.address)
        await client.wait_heard(1)

        assert client.datagrams == [b"across"]


async def test_datagrams_of_every_size_pass_whole_and_in_order() -> None:
    chance = random.Random(1)
    sent = [chance.randbytes(size) for size in (0, 1, 1_200, 1_452, 9_000, 14_720, 65_507)]
    async with (
        peer(echoes=True) as echo,
        UdpProxy.open(echo.address) as proxy,
        peer() as client,
    ):
        for datagram in sent:
            client.send(datagram, proxy.address)
        await client.wait_heard(len(sent))

        assert echo.datagrams == sent
        assert client.datagrams == sent


async def test_what_the_kernel_sent_as_segments_passes_as_the_datagrams_it_was() -> None:
    async with peer() as target, UdpProxy.open(target.address) as proxy:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            segments = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", 1_000))]
            sender.sendmsg([bytes(3_500)], segments, 0, proxy.address)
            await target.wait_heard(4)

    assert [len(datagram) for datagram in target.datagrams] == [1_000, 1_000, 1_000, 500]


async def test_thousands_of_datagrams_pass_and_none_is_lost() -> None:
    count, window = 3_000, 100
    async with (
        peer(echoes=True) as echo,
        UdpProxy.open(echo.address) as proxy,
        peer() as client,
    ):
        for number in range(count):
            client.send(struct.pack("=I", number) + bytes(1_200), proxy.address)
            if number % window == 0:
                await client.wait_heard(number - window)
        await client.wait_heard(count)

        numbers = [struct.unpack_from("=I", datagram)[0] for datagram in client.datagrams]
        stats = proxy.stats()
    assert numbers == list(range(count))
    assert stats["kernel_drops"] == 0
    assert stats["up"]["delivered"] == stats["down"]["delivered"] == count


async def test_a_delay_is_paid_each_way() -> None:
    delayed = Impairment(delay_ms=40)
    loop = asyncio.get_running_loop()
    async with (
        peer(echoes=True) as echo,
        UdpProxy.open(echo.address, up=delayed, down=delayed) as proxy,
        peer() as client,
    ):
        begun_s = loop.time()
        client.send(b"there and back", proxy.address)
        await client.wait_heard(1)

        assert loop.time() - begun_s >= 0.08


async def test_each_direction_has_an_impairment_of_its_own() -> None:
    async with (
        peer(echoes=True) as echo,
        UdpProxy.open(echo.address, down=Impairment(loss=1.0)) as proxy,
        peer() as client,
    ):
        client.send(b"heard, and never answered", proxy.address)
        await echo.wait_heard(1)
        await until(lambda: proxy.stats()["down"]["dropped"] == {"lost": 1})

        assert client.heard == []


async def until(is_so: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110  # counters make no event
            await asyncio.sleep(0.001)


async def test_after_a_rebinding_the_echo_sees_another_port_and_the_old_one_is_deaf() -> None:
    async with (
        peer() as target,
        UdpProxy.open(target.address) as proxy,
        peer() as client,
    ):
        client.send(b"before", proxy.address)
        await target.wait_heard(1)
        proxy.core.rebind()
        proxy.look()
        client.send(b"after", proxy.address)
        await target.wait_heard(2)
        old, new = target.sources
        target.send(b"to the old port", old)
        target.send(b"to the new port", new)
        await client.wait_heard(1)
        await until(lambda: proxy.stats()["down"]["received"] == 2)

        assert old != new
        assert client.datagrams == [b"to the new port"]
        assert proxy.stats()["down"]["dropped"] == {"rebound": 1}


async def test_rebinding_again_and_again_keeps_a_bounded_number_of_sockets() -> None:
    async with peer() as target, UdpProxy.open(target.address) as proxy, peer() as client:
        for number in range(OLD_SOCKETS_MAX + 10):
            client.send(b"%d" % number, proxy.address)
            await target.wait_heard(number + 1)
            proxy.core.rebind()
            proxy.look()

        assert len(set(target.sources)) > OLD_SOCKETS_MAX
        assert len(proxy._old) == OLD_SOCKETS_MAX


async def test_a_blackhole_passes_nothing_and_then_passes_again() -> None:
    loop = asyncio.get_running_loop()
    async with (
        peer(echoes=True) as echo,
        UdpProxy.open(echo.address) as proxy,
        peer() as client,
    ):
        proxy.core.blackhole(loop.time() + 3_600)
        for number in range(10):
            client.send(b"%d" % number, proxy.address)
        await until(lambda: proxy.stats()["up"]["dropped"] == {"blackholed": 10})
        assert echo.heard == []

        proxy.core.blackhole(loop.time())
        client.send(b"light", proxy.address)
        await client.wait_heard(1)

        assert echo.datagrams == client.datagrams == [b"light"]


async def test_a_target_that_is_not_there_yet_is_reached_once_it_is() -> None:
    async with peer() as reserved:
        address = reserved.address
    async with UdpProxy.open(address) as proxy, peer() as client:
        for number in range(3):
            client.send(b"%d" % number, proxy.address)
        await until(lambda: proxy.stats()["up"]["received"] == 3)
        assert proxy.stats()["up"]["delivered"] == 3, "word of one is no fault of the next"
        async with peer(*address, echoes=True) as late:
            client.send(b"now", proxy.address)
            await client.wait_heard(1)

    assert late.datagrams == [b"now"]


async def test_a_proxy_that_is_closed_sends_nothing_and_leaves_nothing_behind() -> None:
    async with peer() as target, peer() as client:
        async with UdpProxy.open(target.address) as proxy:
            listening = proxy.address
        proxy.core.receive_from_client("late", b"after its end", 0.0)
        proxy.look()
        client.send(b"past it", target.address)
        await target.wait_heard(1)

        assert target.datagrams == [b"past it"]
        async with peer(*listening) as next_one:
            assert next_one.address == listening
