"""One QUIC connection of an endpoint: an engine below, a hop above, one timer beside.

Whatever the engine or the owner's handler raises ends this connection and no other.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from identity import Code
from transport import limits, retry
from transport.connection_home import ConnectionHome
from transport.engine import (
    Connected,
    ConnectionIdIssued,
    ConnectionIdRetired,
    EngineConnection,
    PingAnswered,
    Terminated,
)
from transport.errors import DatagramError, TransportError
from transport.hop import CarriedHop
from transport.in_flight import InFlightLimit
from transport.key_schedule import KeySchedule
from transport.liveness import Liveness
from transport.path import Address, PathPlan, StallWatch
from transport.peer_address import PeerAddress
from transport.peer_ledger import PeerLedger

# How often a connection looks after what is not urgent.
_LOOK_S: Final = 0.1


class HopConnection:
    """Carries one hop. Implements ``transport.hop.HopCarrier``."""

    hop: CarriedHop  # Set right after construction: each needs the other.
    _engine: EngineConnection  # Set by ``begin``: a name must be looked up first.
    _keys: KeySchedule

    def __init__(self, home: ConnectionHome, *, is_dialler: bool) -> None:
        self.is_dialler = is_dialler
        self.ids: set[bytes] = set()
        self.is_quiet = False
        """What came was read, and waits to be answered with what is said next."""
        self.local: bytes | None = None
        self._home = home
        self._plan: PathPlan | None = None
        self._peer: PeerAddress | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._key_phase: int | None = None
        self._early_bytes = 0
        self._handed_bytes = 0
        self._unanswered_bytes = 0  # Read since anything was sent.
        self._in_flight: InFlightLimit | None = None
        self._stall: StallWatch | None = None
        self._begun_s = now_s = home.now_s()
        self._ledger = PeerLedger(now_s)
        self._liveness = Liveness(
            keepalive_s=home.settings.keepalive_s,
            idle_timeout_s=home.settings.idle_timeout_s,
            now_s=now_s,
        )
        self._look_at_s = 0.0
        self._is_early = True  # Our owner has not let the peer in.
        self._is_over = False  # The peer has closed: there is nothing more to say.
        self._has_failed = False
        self._is_deaf = False  # What still comes is for nobody.
        self._is_ended = False
        self._is_gone = False
        self._is_connecting = False
        self._finish_by_s: float | None = None

    @property
    def is_half_open(self) -> bool:
        """Somebody opened it to us, and our owner has not accepted it."""
        return self._is_early and not self.is_dialler

    # --- the hop's carrier -------------------------------------------------------------------

    @property
    def engine_name(self) -> str:
        return self._home.engine_name

    @property
    def post_quantum(self) -> bool | None:
        return None if self._plan is None else self._engine.post_quantum

    @property
    def shown_bytes(self) -> int:
        return 0 if self._plan is None else self._plan.shown_bytes

    def now_s(self) -> float:
        return self._home.now_s()

    def flush_soon(self) -> None:
        if not self._is_gone:
            self._home.flush_later(self)

    def open_stream(self) -> int:
        return self._engine.open_stream()

    def send_stream(self, stream: int, data: bytes, end: bool) -> None:
        self._handed_bytes += len(data)
        self._ledger.handed_down(len(data))
        self._engine.send_stream(stream, data, end)

    def reset_stream(self, stream: int, code: int) -> None:
        self._engine.reset_stream(stream, code)

    def stream_queued_bytes(self, stream: int) -> int:
        return self._engine.stream_queued_bytes(stream)

    def send_room_bytes(self) -> int:
        window_bytes, in_flight_bytes, queued_bytes, round_trip_s = self._engine.flow()
        if self._in_flight is not None:
            arrived_bytes = self._handed_bytes - in_flight_bytes - queued_bytes
            limit_bytes = self._in_flight.update(
                arrived_bytes, round_trip_s, self.now_s(), self.hop.speaker_changes
            )
            window_bytes = min(window_bytes, limit_bytes)
        # No peer takes more at once than we do; what it does not take had better wait here.
        window_bytes = min(window_bytes, limits.CONNECTION_WINDOW_BYTES)
        return window_bytes - in_flight_bytes - queued_bytes

    def certificate_hash(self) -> bytes | None:
        if self.is_dialler:
            return self._engine.peer_certificate_hash()
        return self._home.own_certificate_hash

    def take_binding(self) -> bytes | None:
        return self._engine.take_binding()

    # --- what the endpoint calls -------------------------------------------------------------

    def begin(
        self,
        engine: EngineConnection,
        plan: PathPlan,
        address: Address,
        local: bytes | None = None,
    ) -> None:
        """Take the engine. Before that nothing can be sent, and nothing is received.

        ``local`` is the address of ours to speak from, where the system would take another.
        """
        self.local = local
        settings = self._home.settings
        self._engine, self._plan = engine, plan
        self._peer = PeerAddress(address, settings.keepalive_s)
        self._keys = KeySchedule(settings.key_update_packets, settings.key_update_s, self.now_s())
        if plan.shown_bytes:
            self._stall = StallWatch(plan.datagram_bytes, self.now_s())
        if plan.is_loopback:
            self._in_flight = InFlightLimit(plan.datagram_bytes, self.now_s())
        self._liveness.both_ask = plan.is_loopback

    def connect(self) -> None:
        self._is_connecting = True
        assert self._peer is not None
        address = self._peer.current
        self._guard(lambda: self._engine.connect(address, self.now_s()))
        self._home.add_id(self._engine.connection_id, self)
        self.flush_soon()

    def receive(self, data: bytes, segment_bytes: int, address: Address, now_s: float) -> None:
        """Feed the engine. Events wait until ``dispatch``, so that one read is one batch."""
        if self._is_deaf or self._is_over or self._is_gone:
            return
        peer = self._peer
        assert peer is not None
        if address != peer.current or peer.candidate is not None:
            if self.is_dialler:
                # RFC 9000, section 9. aioquic drops these too; qh3 would follow one that answers.
                self._home.counters.dropped_source += 1
                return
            address = peer.judge(address, now_s)
        if self._is_early and not self._may_say(len(data), segment_bytes or len(data)):
            return
        self._liveness.heard_s = now_s
        self._unanswered_bytes += len(data)
        if segment_bytes and (self._is_early or self._ledger.is_strained):
            for start in range(0, len(data), segment_bytes):
                self._feed(data[start : start + segment_bytes], 0, address, now_s)
        else:
            self._feed(data, segment_bytes, address, now_s)

    def receive_versions(self, data: bytes) -> None:
        """Take a Version Negotiation packet: it counts only while nothing else has answered."""
        try:
            versions = retry.decode_versions_untrusted(data)
        except DatagramError:
            return
        if self._is_connecting and limits.QUIC_VERSION not in versions:
            self.hop.lose(Code.HOP_VERSION_UNSUPPORTED, f"the peer speaks QUIC {versions}")

    def dispatch(self) -> None:
        """Hand to the hop what the engine has made of the datagrams."""
        self._guard(self._dispatch)

    def keep_quiet(self) -> bool:
        """Wait with telling that what came was read, if there is nothing to say and that may wait.

        An acknowledgement alone costs both ends as much as a small message.
        """
        self.is_quiet = (
            not self._is_early
            and self._unanswered_bytes <= limits.QUIET_READ_BYTES_MAX
            and self.hop.is_open
            and self._peer is not None
            and self._peer.candidate is None
            # What came may have made room for what waits.
            and not self.hop.has_more
            and not self._engine.flow().queued_bytes
        )
        return self.is_quiet

    def flush(self, now_s: float) -> None:
        """Send all that waits, arm the timer, and finish if the hop has ended."""
        hop = self.hop
        self._unanswered_bytes = 0
        self.is_quiet = False
        if hop.closing is not None and not self._is_ended:
            self._is_ended = True
            self._note_end(hop.closing[0])  # Before its owner hears of it, and dials again.
        self._guard(hop.deliver)
        if self._is_gone:
            return
        if self._plan is not None and not self._is_over and not self._has_failed:
            if now_s >= self._look_at_s or self._ledger.is_overdrawn:
                self._guard(lambda: self._look(now_s))
            self._guard(lambda: self._send(now_s))
        if self._is_early and (hop.is_permitted or hop.closing is not None):
            self._is_early = False
            if not self.is_dialler and hop.is_permitted:
                self._home.let_in(self)
        if hop.closing is not None and not self._has_last_words(now_s):
            self._finish(now_s)
        else:
            self._arm(now_s)

    def finish(self, now_s: float) -> None:
        """Be gone now, whatever is still unsent."""
        if not self._is_gone:
            self._finish(now_s)

    # --- inside ------------------------------------------------------------------------------

    def _may_say(self, size: int, datagram_bytes: int) -> bool:
        """Whether a peer that is not accepted yet may say so much more."""
        assert self._plan is not None
        if datagram_bytes > max(limits.PRE_AUTH_DATAGRAM_BYTES_MAX, self._plan.datagram_bytes):
            return False  # No handshake needs it.
        self._early_bytes += size
        if self._early_bytes > limits.PRE_AUTH_BYTES_MAX:
            self._is_deaf = True
            self.hop.end(Code.HOP_LIMIT_EXCEEDED, "too many bytes before it was accepted")
        return not self._is_deaf

    def _feed(self, data: bytes, segment_bytes: int, address: Address, now_s: float) -> None:
        if self._is_deaf:
            return
        clock = time.thread_time if self._ledger.is_watching else time.perf_counter
        begun_s = clock()
        try:
            self._engine.receive(data, segment_bytes, address, now_s)
        except BaseException as error:
            self._fail(error)
        datagrams = -(-len(data) // segment_bytes) if segment_bytes else 1
        self._ledger.received(datagrams, clock() - begun_s)

    def _look(self, now_s: float) -> None:
        """Now and then: what the peer costs, whether it hears us, and whether the path is whole."""
        self._look_at_s = now_s + _LOOK_S
        peer = self._peer
        if peer is not None and peer.candidate is not None:
            self._note_move(peer)
        if self.hop.closing is not None:
            return
        fault = self._ledger.find_fault(now_s)
        if fault is not None:
            self._cut(Code.HOP_LIMIT_EXCEEDED, fault)
        elif self.hop.is_open and self._ledger.is_ping_due(now_s):
            self._ledger.pinged(self._engine.ping(), now_s)
        elif self._stall is not None and self._stall.is_due(now_s):
            flow = self._engine.flow()
            has_waiting = flow.in_flight_bytes + flow.queued_bytes > 0 or self.hop.has_more
            if self._stall.look(flow.window_bytes, has_waiting=has_waiting, now_s=now_s):
                self.hop.end(Code.HOP_TIMEOUT, "whole datagrams no longer arrive")

    def _dispatch(self) -> None:
        events = self._engine.take_events()
        peer = self._peer
        if peer is not None and peer.candidate is not None:
            peer.note_turn(is_authentic=bool(events))
            self._look_at_s = 0.0  # The engine may have followed.
        if not events:
            return
        for event in events:
            if isinstance(event, ConnectionIdIssued):
                self._home.add_id(event.connection_id, self)
            elif isinstance(event, ConnectionIdRetired):
                self._home.drop_id(event.connection_id)
                self.ids.discard(event.connection_id)
            elif isinstance(event, PingAnswered):
                self._ledger.answered(event.number)
            elif isinstance(event, Connected):
                self._key_phase = self._engine.key_phase
            elif isinstance(event, Terminated):
                self._is_over = True
        self._is_connecting = False
        state = self.hop.state
        self.hop.receive(events)
        if self._is_early and self.hop.state is not state:
            self._home.note_progress(self)

    def _send(self, now_s: float) -> None:
        udp, handed_bytes = self._home.udp, self._handed_bytes
        while True:
            self.hop.write_out()
            datagrams = self._engine.take_datagrams(now_s)
            if datagrams:
                self._ledger.sent(len(datagrams), now_s)
                if self._keys.is_due(len(datagrams), now_s):
                    self._renew_keys(now_s)
                udp.send(datagrams, self.local)
            # A wide congestion window may take more than one helping of the lanes.
            if not datagrams or udp.is_blocked or not self.hop.has_more:
                break
        if self._handed_bytes != handed_bytes:
            self._liveness.said_s = now_s

    def _note_move(self, peer: PeerAddress) -> None:
        """The engine follows once the peer has answered its challenge, or (aioquic) before."""
        address = self._engine.peer_address
        if address is not None and address != peer.current:
            self._home.counters.migrations += 1
            peer.moved(address)

    def _note_end(self, code: Code) -> None:
        """A handshake with large datagrams that was answered and got no further is a stall."""
        is_stall = code is Code.HOP_TIMEOUT or (
            code is Code.HOP_UNREACHABLE and not self.hop.opened_in_s
        )
        if self._plan is None or self._peer is None or not self.is_dialler:
            return
        was_heard = self._liveness.heard_s > self._begun_s
        if is_stall and was_heard and self._plan.shown_bytes:
            self._home.note_stall(self._peer.current)

    def _renew_keys(self, now_s: float) -> None:
        if self._engine.key_phase != self._key_phase:
            self._keys.renewed(now_s)  # The peer came first.
        elif self._engine.renew_keys():
            self._keys.renewed(now_s)
            self._home.counters.key_updates += 1
        self._key_phase = self._engine.key_phase

    def _due_s(self) -> float:
        """When there is next something to do, if nothing comes and nothing is said."""
        hop = self.hop
        at_s = self._liveness.ping_at_s
        if hop.is_open:
            at_s = min(at_s, self._liveness.lost_at_s)
        elif hop.deadline_s is not None:
            at_s = min(at_s, hop.deadline_s)
        if self._plan is not None:
            engine_s = self._engine.deadline_s
            if engine_s is not None and engine_s < at_s:
                at_s = engine_s
        return at_s if self._finish_by_s is None else min(at_s, self._finish_by_s)

    def _arm(self, now_s: float) -> None:
        at_s = self._due_s()
        if self._timer is not None:
            # Deadlines mostly move away. Waking once too early is cheaper than a new timer for
            # each flight.
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._home.loop.call_at(max(at_s, now_s), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_s = self.now_s()
        if self.is_quiet:
            return  # It is flushed soon, and armed again.
        if now_s < self._due_s():
            self._arm(now_s)  # It has moved away since.
            return
        if self._plan is not None:
            self._guard(lambda: self._handle_deadline(now_s))
        self.hop.handle_deadline(now_s)
        self.flush_soon()

    def _handle_deadline(self, now_s: float) -> None:
        deadline_s = self._engine.deadline_s
        if deadline_s is not None and deadline_s <= now_s:
            self._engine.handle_deadline(now_s)
            self._dispatch()
        liveness, is_open = self._liveness, self.hop.is_open
        if is_open and now_s >= liveness.lost_at_s:
            # An engine counts from the first PING that was not answered.
            self.hop.lose(Code.HOP_PEER_LOST, "nothing was heard in time")
        elif now_s >= liveness.ping_at_s:
            liveness.pinged_s = now_s
            if is_open and not self._is_over:  # Until it is open the hop has deadlines of its own.
                self._engine.ping()

    def _has_last_words(self, now_s: float) -> bool:
        """Whether a hop that has ended still waits, briefly, for what it said before."""
        if self._is_over or self._has_failed or not self.hop.has_unsent:
            return False
        if self._finish_by_s is None:
            self._finish_by_s = now_s + limits.CLOSE_FLUSH_S
        return now_s < self._finish_by_s

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Whatever was raised costs this connection, and no other."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        if isinstance(error, TransportError):
            self._cut(error.code, error.detail)
            return
        # A panic of qh3's Rust core is a BaseException. The engine's state is unknown now.
        self._has_failed = self._is_deaf = True
        self._home.note_failure(error)
        self.hop.lose(Code.HOP_INTERNAL, type(error).__name__)
        self.flush_soon()

    def _cut(self, code: Code, detail: str) -> None:
        """The peer did it. It learns the code, and is not heard any more."""
        self._is_deaf = True
        self._home.counters.cut += 1
        self.hop.end(code, detail)

    def _finish(self, now_s: float) -> None:
        """Say CONNECTION_CLOSE and be gone. Whoever still asks gets the same answer for a while."""
        self._is_gone = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        last_words: list[tuple[bytes, Address]] = []
        assert self.hop.closing is not None
        code = self.hop.closing[0]

        def close_engine() -> None:
            self._engine.close(code)
            last_words.extend(self._engine.take_datagrams(now_s))

        if self._plan is not None:
            if not self._is_over:
                self._guard(close_engine)  # Tried once even if it failed: the peer need not wait.
            self._engine.wipe()
        self._home.udp.send(last_words, self.local)
        self._home.forget(self, last_words)
        self._guard(self.hop.deliver)
