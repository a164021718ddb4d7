"""One life of a mesh under chaos: agents talk, hops are cut, programs stop and die."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from sidelink import wire

from identity import Code
from sidecar.router import RouterLimits
from tests.simulation.mesh import Gateway, Session, Sidecar
from tests.simulation.network import SimulatedHop, SimulatedNetwork, Weather
from tests.simulation.promises import Promises, Sent, check_quiet, is_idle

NAMES: Final = ("alpha", "beta", "gamma")
ROLES: Final = {"a": "", "b": "", "quiet": "quiet", "outcast": "outcast"}


@dataclass(frozen=True)
class Chaos:
    """How often, for each second of the story, something of the kind happens."""

    sends: float = 12.0
    bursts: float = 0.3
    cuts: float = 0.2
    late_cuts: float = 0.1
    meetings: float = 0.1
    partings: float = 0.05
    sidecar_crashes: float = 0.06
    sidecar_stops: float = 0.06
    gateway_crashes: float = 0.05
    gateway_stops: float = 0.05
    departures: float = 0.1
    slow_readers: float = 0.2
    seconds: float = 6.0
    delay_s_max: float = 0.05
    skew_s_max: float = 20.0
    gateways: int = 1
    limits: RouterLimits | None = None

    @property
    def is_kind(self) -> bool:
        """Whether nothing is lost and nobody ends before the story does."""
        return not (
            self.cuts
            or self.late_cuts
            or self.sidecar_crashes
            or self.sidecar_stops
            or self.gateway_crashes
            or self.gateway_stops
            or self.departures
        )


class Actor:
    """An agent process that numbers what it says and remembers what became of it."""

    def __init__(self, story: "Story", sidecar: Sidecar, name: str, life: int) -> None:
        self.story = story
        self.life = f"{sidecar.name}/{name}#{life}"
        attributes = {"role": ROLES[name]} if ROLES[name] else {}
        self.session = sidecar.new_session(name, **attributes)
        self.session.handler = self.handle
        self.name = name
        self.sent: dict[int, Sent] = {}
        self.is_leaving = False
        """Its sidecar has said that it stops: it says nothing new, and answers what it is asked."""
        self.has_finished = False
        """It has left in good order: all that it had said was brought to an end."""
        self.session.listen()

    @property
    def knows(self) -> bool:
        """Whether it has heard everything that it will ever hear of its messages, or still can."""
        return self.has_finished or not self.session.is_gone

    def send(self, to: str, count: int) -> None:
        chance = self.story.random
        if self.session.is_paused or self.session.is_gone or self.is_leaving:
            return
        sends = []
        for _ in range(count):
            kind = wire.ASK if chance.random() < 0.5 else wire.TELL
            size = chance.choice((0, 10, 1_000, 1_000, 20_000, 70_000))
            if chance.random() < 0.01:
                size = 1_000_000
            number = self.story.next_number()
            body = f"{self.life}|{number}|".encode() + bytes(size)
            frame = self.session.new_send(kind, to, body, timeout_s=chance.uniform(1, 15))
            losses = self.story.losses_of(self.session.uri, to)
            self.sent[frame.request] = Sent(number, to, body, losses)
            sends.append(frame)
        self.story.tell(f"{self.life} sends {count} to {to}")
        self.session.send_all(sends)

    def handle(self, frame: wire.Deliver) -> None:
        self.story.tell(f"{self.life} has {frame.body.partition(bytes(1))[0][:40]!r}")
        self.story.promises.delivered(self, frame)
        if frame.kind != wire.ASK:
            return
        chance = self.story.random
        lot = chance.random()
        if lot < 0.9:
            delay_s = chance.uniform(0, 2) if lot < 0.5 else 0.0
            answer = b"re:" + frame.body[:100]
            self.story.network.after(delay_s, lambda: self._answer(frame.delivery, answer))
        elif lot < 0.95:
            self.session.refuse(frame.delivery, "not now")

    def _answer(self, delivery: int, body: bytes) -> None:
        if not self.session.is_gone:
            self.session.answer(delivery, body)


class Story:
    """Runs once, for one seed. ``told`` is the same for the same seed, whatever keys are drawn."""

    def __init__(self, seed: int, chaos: Chaos | None = None) -> None:
        self.chaos = chaos or Chaos()
        self.told: list[str] = []
        self.network = SimulatedNetwork(seed, Weather(delay_s_max=self.chaos.delay_s_max))
        self.random = self.network.random
        self.gateways = [
            Gateway(self.network, f"gw{number}") for number in range(self.chaos.gateways)
        ]
        skew_s = self.chaos.skew_s_max
        self.sidecars = [
            Sidecar(
                self.network,
                name,
                self.gateways,
                skew_s=self.random.uniform(-skew_s, skew_s),
                limits=self.chaos.limits,
            )
            for name in NAMES
        ]
        self.network.run_for(1.0)
        self.actors: list[Actor] = []
        self.everybody: list[Actor] = []
        self.promises = Promises(self.sidecars, is_kind=self.chaos.is_kind)
        self._number = 0
        self._lives: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._stopping: set[Sidecar] = set()
        for sidecar in self.sidecars:
            self._populate(sidecar)

    def run(self) -> None:
        chaos, now_s = self.chaos, self.network.clock.now_s()
        for kind, rate in (
            (self._send, chaos.sends),
            (self._burst, chaos.bursts),
            (self._cut, chaos.cuts),
            (self._cut_late, chaos.late_cuts),
            (self._meet, chaos.meetings),
            (self._part, chaos.partings),
            (self._crash_sidecar, chaos.sidecar_crashes),
            (self._stop_sidecar, chaos.sidecar_stops),
            (self._crash_gateway, chaos.gateway_crashes),
            (self._stop_gateway, chaos.gateway_stops),
            (self._depart, chaos.departures),
            (self._read_slowly, chaos.slow_readers),
        ):
            often = rate * chaos.seconds
            for _ in range(int(often) + (self.random.random() < often % 1)):
                self.network.after(self.random.uniform(0, chaos.seconds), kind)
        self.network.run(now_s + chaos.seconds)
        self.network.run_for(60.0)
        for actor in self.everybody:
            self.promises.check_ended(actor)
        self._close()

    def tell(self, event: str) -> None:
        self.told.append(f"{self.network.clock.now_s():.6f} {event}")

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def losses_of(self, *uris: str) -> tuple[int, ...]:
        """How often the sidecars of these agents have ended without finishing what they had."""
        return tuple(self._losses[uri.split("/")[3]] for uri in uris)

    # What happens.

    def _populate(self, sidecar: Sidecar) -> None:
        for name in ("a", "b", {"alpha": "quiet", "beta": "outcast"}.get(sidecar.name, "a")):
            if not any(
                actor.session.sidecar is sidecar and actor.name == name for actor in self.actors
            ):
                self._enter(sidecar, name)

    def _enter(self, sidecar: Sidecar, name: str) -> None:
        self._lives[f"{sidecar.name}/{name}"] += 1
        actor = Actor(self, sidecar, name, self._lives[f"{sidecar.name}/{name}"])
        self.actors.append(actor)
        self.everybody.append(actor)

    def _send(self, count: int = 1) -> None:
        if len(self.actors) < 2:
            return
        sender, receiver = self.random.sample(self.actors, 2)
        to = receiver.session.uri
        if self.random.random() < 0.03:
            to = self.random.choice(("agent://acme/nowhere/x", "agent://acme/alpha/nobody"))
        sender.send(to, count)

    def _burst(self) -> None:
        self._send(self.random.randint(20, 200))

    def _cut(self, *, late: bool = False) -> None:
        hops: list[SimulatedHop] = [hop for one in self.sidecars for hop in one.hops]
        if hops:
            hop = self.random.choice(hops)
            self.tell(f"hop {hop.id} is cut, late {late}")
            hop.cut(late=late)

    def _cut_late(self) -> None:
        self._cut(late=True)

    def _meet(self) -> None:
        """Two sidecars find each other."""
        one, other = self.random.sample(self.sidecars, 2)
        met = any(hop.direct and hop.peer == other.node.peer for hop in one.hops)
        if one.is_up and other.is_up and not met:
            self.tell(f"{one.name} and {other.name} meet")
            one.meet(other)

    def _part(self) -> None:
        hops = [hop for one in self.sidecars for hop in one.hops if hop.direct]
        if hops:
            hop = self.random.choice(hops)
            self.tell(f"hop {hop.id} is closed")
            hop.close(Code.HOP_CLOSED)

    def _crash_sidecar(self) -> None:
        sidecar = self.random.choice(self.sidecars)
        if not sidecar.is_up or sidecar in self._stopping:
            return
        self.tell(f"{sidecar.name} crashes")
        self._losses[sidecar.name] += 1
        self.actors = [a for a in self.actors if a.session.sidecar is not sidecar]
        sidecar.crash()
        self.network.after(self.random.uniform(0, 3), lambda: self._restart(sidecar))

    def _stop_sidecar(self) -> None:
        """As on SIGTERM: it finishes what was accepted, or gives up after a while."""
        sidecar = self.random.choice(self.sidecars)
        if not sidecar.is_up or sidecar in self._stopping:
            return
        self.tell(f"{sidecar.name} stops")
        self._stopping.add(sidecar)
        for actor in self.actors:
            actor.is_leaving = actor.is_leaving or actor.session.sidecar is sidecar
        sidecar.drain()
        until_s = self.network.clock.now_s() + self.random.uniform(1, 8)
        self._look_drained(sidecar, until_s)

    def _look_drained(self, sidecar: Sidecar, until_s: float) -> None:
        drained = sidecar.router.drained
        if not drained and self.network.clock.now_s() < until_s:
            self.network.after(0.05, lambda: self._look_drained(sidecar, until_s))
            return
        self.tell(f"{sidecar.name} has stopped, drained {drained}")
        self._losses[sidecar.name] += not drained
        self.promises.dropped(sidecar)
        here = [actor for actor in self.actors if actor.session.sidecar is sidecar]
        self.actors = [actor for actor in self.actors if actor not in here]
        for actor in here:
            actor.has_finished = drained
        sidecar.end()
        self._stopping.remove(sidecar)
        self.network.after(self.random.uniform(0, 3), lambda: self._restart(sidecar))

    def _restart(self, sidecar: Sidecar) -> None:
        self.tell(f"{sidecar.name} starts")
        sidecar.start()
        self._populate(sidecar)

    def _crash_gateway(self) -> None:
        gateway = self.random.choice(self.gateways)
        if gateway.is_up and not gateway.is_stopping:
            self.tell(f"{gateway.node.identity.name} crashes")
            gateway.crash()
            self.network.after(self.random.uniform(0, 3), gateway.start)

    def _stop_gateway(self) -> None:
        gateway = self.random.choice(self.gateways)
        if gateway.is_up and not gateway.is_stopping:
            self.tell(f"{gateway.node.identity.name} stops")
            gateway.stop()
            self.network.after(self.random.uniform(1, 4), gateway.start)

    def _depart(self) -> None:
        if self.actors:
            actor = self.random.choice(self.actors)
            self.tell(f"{actor.life} leaves")
            self.actors.remove(actor)
            sidecar = actor.session.sidecar
            actor.session.leave()
            self.network.after(
                self.random.uniform(0, 2),
                lambda: self._populate(sidecar) if sidecar.is_up else None,
            )

    def _read_slowly(self) -> None:
        if self.actors:
            session = self.random.choice(self.actors).session
            session.writable = False
            self.network.after(self.random.uniform(0, 3), lambda: self._read_again(session))

    def _read_again(self, session: Session) -> None:
        if not session.is_gone:
            session.writable = True
            router = session.sidecar.router
            session.sidecar.do(lambda: router.session_writable(session))

    def _close(self) -> None:
        """Every program says goodbye: then nobody may hold anything."""
        for sidecar in self.sidecars:
            router = sidecar.router
            sidecar.do(lambda router=router: router.close(Code.CHANNEL_CLOSED))
        self.network.run_for(10.0)
        for sidecar in self.sidecars:
            sidecar.is_up = False
            for hop in list(sidecar.hops):
                hop.close(Code.LOCAL_DRAINING)
        self.network.run_for(10.0)
        assert all(map(is_idle, self.gateways)), "a gateway without hops holds nothing"
        for sidecar in self.sidecars:
            check_quiet(sidecar)
