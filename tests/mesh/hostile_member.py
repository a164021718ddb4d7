"""A member with a real credential and a real hop who sins on it: for tests of what others then do.

    python -m tests.mesh.hostile_member --sin garbage --state FOLDER --ticket … --seconds 2

It takes a ticket the first time, and its state folder after that. Whenever its hop is closed it
dials again, as long as its time lasts; then it prints one JSON object of what it did.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from channel import Channel, Prologue
from identity import AgentUri, Code, NamePrefix, NoiseKey
from link import Frame, FrameKind, LinkIds, LinkOpen, StreamPreamble, encode_frame
from link.limits import (
    FRAME_BODY_BYTES_MAX,
    INITIAL_WINDOW_BYTES,
    LINK_NONCE_BYTES,
    NOISE_1_BYTES_MAX,
    RECORD_BODY_BYTES_MIN,
    STREAM_PREAMBLE_BYTES,
)
from link.messages import encode_code, encode_link_open, encode_prefix, encode_stream_preamble
from node.logs import configure_logs
from node.parts import Parts, open_parts
from node.refuse_hops import RefuseHops
from node.settings import SidecarSettings
from node.settings_load import load_settings
from sidecar.enrol import enrol
from transport import Endpoint, Hop, HopPurpose

SECONDS_MAX: Final = 600.0
TRUST_DOMAIN: Final = "acme"
PREFIX: Final = "sinner"
VICTIM: Final = "billing/honest"
TARGET: Final = AgentUri.in_domain(TRUST_DOMAIN, VICTIM)
OWN_PREFIX: Final = NamePrefix(TRUST_DOMAIN, (PREFIX,))
ACCOMPLICE: Final = AgentUri.in_domain(TRUST_DOMAIN, f"{PREFIX}/accomplice")
# Always the same: one sound first message is then good for any number of openings.
NONCE: Final = bytes(LINK_NONCE_BYTES)
# What waits in our own hop stays small, so that what is said is said to the peer.
QUEUED_BYTES_HIGH: Final = 1 << 20
ROOM_POLL_S: Final = 0.001
# A node whose hop was closed is let in again at once; one that cannot get in waits so long.
DIAL_S_MAX: Final = 10.0
REST_S: Final = 0.05
ANSWER_S_MAX: Final = 1.0
LANE_STREAM: Final = 4
STREAMS_AT_ONCE: Final = 32
REGISTRATIONS_AT_ONCE: Final = 100
RECORDS_AT_ONCE: Final = 1_000
NO_LINK: Final = 1 << 20
LARGEST_RECORD: Final = bytes(FRAME_BODY_BYTES_MAX)


class Member:
    """One hop at a time to the gateway. Fits HopHandler."""

    def __init__(self, parts: Parts, endpoint: Endpoint) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._opened: asyncio.Queue[Hop] = asyncio.Queue()
        self._hop: Hop | None = None
        self._registered: Hop | None = None
        self._ids = LinkIds(is_dialler=True)
        self.closed: dict[str, int] = {}
        self.said = 0
        self.closes_what_is_answered = False
        self.reached: asyncio.Queue[int] = asyncio.Queue()
        """Links that came to us."""

    async def hop(self) -> Hop:
        """An open one that takes more; a new one if the last was closed."""
        while self._hop is None or not self._hop.is_open:
            self._hop = None
            [gateway, *_] = self._parts.store.gateways()
            self._endpoint.dial(
                gateway.host,
                gateway.port,
                purpose=HopPurpose.ADMIT,
                target=gateway.identifier,
                handler=self,
            )
            try:
                async with asyncio.timeout(DIAL_S_MAX):
                    self._hop = await self._opened.get()
            except TimeoutError:
                continue
            self._ids = LinkIds(is_dialler=True)
        hop = self._hop
        # That its queue is shorter, nothing tells.
        while hop.is_open and hop.queued_bytes > QUEUED_BYTES_HIGH:  # noqa: ASYNC110
            await asyncio.sleep(ROOM_POLL_S)
        return hop

    async def say(self, kind: int, body: bytes, link: int = 0) -> None:
        hop = await self.hop()
        if hop.is_open:
            hop.send_frame(link, kind, body)
            self.said += 1

    async def say_raw(self, data: bytes) -> None:
        """Bytes on the first lane, which our own side would not have put there."""
        hop = await self.hop()
        if hop.is_open:
            carrier = hop._carrier  # type: ignore[attr-defined]
            carrier.send_stream(LANE_STREAM, data, False)
            carrier.flush_soon()
            self.said += 1

    async def open_link(self, noise_1: bytes = b"", target: AgentUri | None = None) -> int:
        """To an agent of the victim's, by the name of one of ours."""
        await self.hop()
        link = self._ids.take()
        body = encode_link_open(opening(noise_1, target or TARGET))
        await self.say(FrameKind.LINK_OPEN, body, link)
        return link

    async def register(self) -> None:
        """Once for each hop."""
        hop = await self.hop()
        if self._registered is not hop:
            self._registered = hop
            await self.say(FrameKind.REGISTER, encode_prefix(OWN_PREFIX))

    # HopHandler.

    def hop_verified(self, hop: Hop) -> None:
        self._parts.admission.answer_hop(hop, role="gateway")

    def hop_opened(self, hop: Hop) -> None:
        self._opened.put_nowait(hop)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == FrameKind.LINK_OPEN:
                self.reached.put_nowait(frame.link)
            if self.closes_what_is_answered and frame.kind == FrameKind.LINK_ACCEPT:
                hop.send_frame(frame.link, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        pass

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        pass

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        self.closed[code.text] = self.closed.get(code.text, 0) + 1


def opening(noise_1: bytes, target: AgentUri = TARGET) -> LinkOpen:
    return LinkOpen(
        target=target,
        source=AgentUri.in_domain(TRUST_DOMAIN, f"{PREFIX}/main"),
        nonce=NONCE,
        source_node=None,
        noise_1=noise_1 or os.urandom(64),
    )


def first_message() -> bytes:
    """A sound one: who is sent it finds out only when its costly answer is not answered."""
    channel = Channel.connect(
        key=NoiseKey.generate(),
        proof=b"",
        prologue=Prologue(purpose="channel", target=str(TARGET), nonce=NONCE),
        verify=lambda proof, key: (_ for _ in ()).throw(AssertionError("nobody answers")),
        now_s=0.0,
    )
    [(_, noise_1)] = channel.take_output()
    return noise_1


async def say_garbage(member: Member) -> None:
    await member.say_raw(os.urandom(1_000))
    await asyncio.sleep(REST_S)


async def cut_frames_short(member: Member) -> None:
    """The length says so many bytes, and they come; what is in them stops half way."""
    whole = encode_link_open(opening(b""))
    await member.open_link()
    await member.say(FrameKind.LINK_OPEN, whole[: len(whole) // 2], link=NO_LINK)
    await asyncio.sleep(REST_S)


async def claim_lengths(member: Member) -> None:
    """A first message beyond its limit, and lengths of which the bytes never come."""
    await member.say(FrameKind.LINK_OPEN, encode_link_open(opening(bytes(NOISE_1_BYTES_MAX + 1))))
    await member.say(FrameKind.REGISTER, b"\x7b" + b"\xff" * 8)
    await member.say(FrameKind.REGISTER, LARGEST_RECORD)
    await asyncio.sleep(REST_S)


async def exceed_window(member: Member) -> None:
    """To an agent of our own, through the gateway: it grants nothing, and does not mind."""
    await member.register()
    link = await member.open_link(target=ACCOMPLICE)
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            await member.reached.get()
    except TimeoutError:
        return
    for _ in range(INITIAL_WINDOW_BYTES // len(LARGEST_RECORD) + 4):
        await member.say(FrameKind.RECORD, LARGEST_RECORD, link)


async def say_on_no_link(member: Member) -> None:
    """The smallest frames that are sound, for a link that there is not: as many as there can be."""
    frames = encode_frame(NO_LINK, FrameKind.RECORD, bytes(RECORD_BODY_BYTES_MIN)) * RECORDS_AT_ONCE
    await member.say_raw(frames)
    await asyncio.sleep(0)


async def open_streams(member: Member) -> None:
    """Byte streams for a link that there is not, and others of which nobody can say for which."""
    carrier = (await member.hop())._carrier  # type: ignore[attr-defined]
    preamble = encode_stream_preamble(StreamPreamble(link=NO_LINK, stream=1))
    for said in (preamble, preamble[: STREAM_PREAMBLE_BYTES // 2]) * STREAMS_AT_ONCE:
        carrier.send_stream(carrier.open_stream(), said, False)
        member.said += 1
    carrier.flush_soon()
    await asyncio.sleep(ROOM_POLL_S)


async def open_channels(member: Member) -> None:
    """One after the other, and never a second message on any."""
    await member.open_link(NOISE_1)
    await asyncio.sleep(0)


async def open_and_close_channels(member: Member) -> None:
    """Each is closed once it has cost its answer, and so makes room for the next."""
    member.closes_what_is_answered = True
    await open_channels(member)


async def register(member: Member) -> None:
    """Each is decided by policy and answered, and the decision is written down."""
    for _ in range(REGISTRATIONS_AT_ONCE):
        await member.say(FrameKind.REGISTER, encode_prefix(OWN_PREFIX))
    await asyncio.sleep(0)


NOISE_1: Final = first_message()

SINS: Mapping[str, Callable[[Member], Awaitable[Any]]] = {
    "garbage": say_garbage,
    "cut-short": cut_frames_short,
    "lengths": claim_lengths,
    "window": exceed_window,
    "no-link": say_on_no_link,
    "streams": open_streams,
    "channels": open_channels,
    "closed-channels": open_and_close_channels,
    "register": register,
}


async def sin(name: str, seconds: float, state: Path, ticket: str) -> Mapping[str, Any]:
    """Enrol if need be, and sin for so long."""
    flags = {"state": str(state), "listen": "127.0.0.1:0"} | ({"ticket": ticket} if ticket else {})
    settings = load_settings(SidecarSettings, flags)
    async with open_parts(settings) as parts:
        listen = settings.listen
        endpoint = await Endpoint.bind(
            listen.host, listen.port, identity=parts.node.hop_identity, handler=RefuseHops()
        )
        try:
            await enrol(parts, settings, endpoint)
            member = Member(parts, endpoint)
            end_s = time.monotonic() + min(seconds, SECONDS_MAX)
            while time.monotonic() < end_s:
                await SINS[name](member)
            return {"sin": name, "said": member.said, "closed": member.closed}
        finally:
            await endpoint.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sin", choices=sorted(SINS), required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--ticket", default="")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    configure_logs("sinner", "json", "warning")
    print(json.dumps(uvloop.run(sin(options.sin, options.seconds, options.state, options.ticket))))


if __name__ == "__main__":
    main()
