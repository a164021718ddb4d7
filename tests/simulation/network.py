"""A network of hops in a priority queue: seeded, single-threaded, and instant."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

from identity import Code, VerifiedPeer
from link import CONTROL_KIND_MIN, Frame, lane_of
from node.clocks import ManualClock

SIMULATED_SECONDS_MAX: Final = 3_600.0
CONTROL: Final = -1


class HopOwner(Protocol):
    """Who holds one end of a hop: a sidecar's router, or a gateway's relay."""

    def hop_opened(self, hop: "SimulatedHop") -> None: ...
    def hop_closed(self, hop: "SimulatedHop", code: Code) -> None: ...
    def frames_received(self, hop: "SimulatedHop", frames: list[Frame]) -> None: ...
    def stream_received(
        self, hop: "SimulatedHop", stream: int, data: bytes, ended: bool
    ) -> None: ...
    def stream_reset(self, hop: "SimulatedHop", stream: int, code: int) -> None: ...


@dataclass(frozen=True)
class Weather:
    """How kind the network is. Order is kept per lane, as QUIC keeps it; nothing else is."""

    delay_s_min: float = 0.0
    delay_s_max: float = 0.05
    notice_s_max: float = 5.0
    """How long an end of a lost hop may take to notice."""


class SimulatedNetwork:
    """Time, chance, and everything that is on its way."""

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.clock = ManualClock()
        self.random = random.Random(seed)
        self.weather = weather or Weather()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._hop_ids = count(1)

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        at_s = self.clock.now_s() + delay_s
        heapq.heappush(self._queue, (at_s, next(self._numbers), call))

    def run(self, until_s: float = SIMULATED_SECONDS_MAX) -> None:
        """Until nothing is due before ``until_s``; the clock then stands there, if it ends."""
        queue, clock = self._queue, self.clock
        while queue and queue[0][0] <= until_s:
            at_s, _number, call = heapq.heappop(queue)
            # Not before now: a call may be due for an instant that has just passed.
            clock.advance(max(0.0, at_s - clock.now_s()))
            call()
        if until_s < SIMULATED_SECONDS_MAX:
            self.clock.advance(max(0.0, until_s - self.clock.now_s()))

    def run_for(self, seconds: float) -> None:
        self.run(self.clock.now_s() + seconds)

    def connect(
        self,
        dialler: HopOwner,
        acceptor: HopOwner,
        peers: tuple[VerifiedPeer, VerifiedPeer],
        *,
        direct: bool = False,
    ) -> "SimulatedHop":
        """Join two owners by a hop that is open already. ``peers``: who each end sees."""
        hop = SimulatedHop(self, next(self._hop_ids), dialler, peers[0], is_dialler=True)
        hop.far = SimulatedHop(self, next(self._hop_ids), acceptor, peers[1], is_dialler=False)
        hop.far.far = hop
        hop.direct = hop.far.direct = direct
        acceptor.hop_opened(hop.far)
        dialler.hop_opened(hop)
        return hop


class SimulatedHop:
    """One end of a hop. Fits HopPort."""

    far: "SimulatedHop"

    def __init__(
        self,
        network: SimulatedNetwork,
        id_: int,
        owner: HopOwner,
        peer: VerifiedPeer,
        *,
        is_dialler: bool,
    ) -> None:
        self.id = id_
        self.peer = peer
        self.is_dialler = is_dialler
        self.is_open = True
        self.direct = False
        """Whether it joins two sidecars, without a gateway."""
        self.sent: list[Frame] = []
        """Every frame that left here, for tests that look."""
        self._network = network
        self._owner = owner
        self._is_cut = False
        self._takes_late = False
        self._free_at_s: dict[tuple[str, int], float] = {}
        self._next_stream = 0 if is_dialler else 1
        self._dead_streams: set[int] = set()

    @property
    def queued_bytes(self) -> int:
        return 0

    def stream_queued_bytes(self, stream: int) -> int:
        return 0

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        if not self.is_open:
            return
        frame = Frame(link, kind, body)
        self.sent.append(frame)
        lane = CONTROL if kind >= CONTROL_KIND_MIN else lane_of(link)
        self._carry(("lane", lane), lambda: self.far._receive(frame))

    def open_stream(self) -> int:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        return stream

    def send_stream(self, stream: int, data: bytes, end: bool = False) -> None:
        if self.is_open and stream not in self._dead_streams:
            self._carry(("stream", stream), lambda: self.far._receive_stream(stream, data, end))

    def reset_stream(self, stream: int, code: int) -> None:
        if self.is_open and stream not in self._dead_streams:
            self._dead_streams.add(stream)
            self._carry(("stream", stream), lambda: self.far._receive_reset(stream, code))

    def close(self, code: Code) -> None:
        """End the hop. The owner hears of it in a later turn, the far end when word arrives."""
        if not self.is_open:
            return
        self._carry(("lane", CONTROL), lambda: self.far._end(code))
        self.is_open = False
        self._network.after(0.0, lambda: self._tell(code))

    def cut(self, *, late: bool = False) -> None:
        """Nothing that is sent from now on arrives, either way; each end notices in its own time.

        What is on its way is lost too, or with ``late`` arrives at an end that has not noticed.
        """
        for end in (self, self.far):
            end._is_cut = True
            end._takes_late = late
            delay_s = self._network.random.uniform(0, self._network.weather.notice_s_max)
            self._network.after(delay_s, lambda end=end: end._end(Code.HOP_PEER_LOST))

    def vanish(self) -> None:
        """This end's process is gone: it is told nothing. The far end will notice."""
        self.is_open = False
        self._owner = _Nobody()
        self.cut()

    def _carry(self, way: tuple[str, int], arrive: Callable[[], None]) -> None:
        if self._is_cut:
            return
        network = self._network
        now_s = network.clock.now_s()
        weather = network.weather
        at_s = now_s + network.random.uniform(weather.delay_s_min, weather.delay_s_max)
        at_s = self._free_at_s[way] = max(at_s, self._free_at_s.get(way, 0.0))
        network.after(at_s - now_s, lambda: None if self._loses_it() else arrive())

    def _loses_it(self) -> bool:
        return self._is_cut and not self._takes_late

    def _receive(self, frame: Frame) -> None:
        if self.is_open:
            self._owner.frames_received(self, [frame])

    def _receive_stream(self, stream: int, data: bytes, ended: bool) -> None:
        if self.is_open and stream not in self._dead_streams:
            self._owner.stream_received(self, stream, data, ended)

    def _receive_reset(self, stream: int, code: int) -> None:
        if self.is_open and stream not in self._dead_streams:
            self._dead_streams.add(stream)
            self._owner.stream_reset(self, stream, code)

    def _end(self, code: Code) -> None:
        if self.is_open:
            self.is_open = False
            self._tell(code)

    def _tell(self, code: Code) -> None:
        self._owner.hop_closed(self, code)


class _Nobody:
    """The owner of a hop whose process is gone."""

    def hop_closed(self, hop: SimulatedHop, code: Code) -> None:
        pass
