"""One life of a mesh under chaos: agents talk, hops are cut, programs die; and what must hold."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Final

from sidelink import wire

from identity import Code
from policy import Action
from tests.simulation.mesh import Gateway, Session, Sidecar, new_mesh
from tests.simulation.network import SimulatedHop, Weather

# What a sender may be told of a message that was handed over all the same.
UNCERTAIN: Final = frozenset(
    code.text
    for code in (Code.MESSAGE_OUTCOME_UNKNOWN, Code.MESSAGE_TIMEOUT, Code.MESSAGE_REJECTED)
)
NAMES: Final = ("alpha", "beta", "gamma")
ROLES: Final = {"a": "", "b": "", "quiet": "quiet", "outcast": "outcast"}


@dataclass(frozen=True)
class Chaos:
    """How often, for each second of the story, something of the kind happens."""

    sends: float = 12.0
    bursts: float = 0.2
    cuts: float = 0.1
    sidecar_crashes: float = 0.04
    gateway_crashes: float = 0.02
    departures: float = 0.05
    slow_readers: float = 0.1
    seconds: float = 20.0
    delay_s_max: float = 0.05


class Actor:
    """An agent process that numbers what it says and remembers what became of it."""

    def __init__(self, story: "Story", sidecar: Sidecar, name: str, life: int) -> None:
        self.story = story
        self.life = f"{sidecar.name}/{name}#{life}"
        attributes = {"role": ROLES[name]} if ROLES[name] else {}
        self.session = sidecar.new_session(name, **attributes)
        self.session.handler = self.handle
        self.name = name
        self.sent: dict[int, tuple[int, str, bytes]] = {}
        self.lives: dict[bytes, tuple[int, ...]] = {}
        """What was told, and how often its sidecars had been started by then."""
        self.session.listen()

    def send(self, to: str, count: int) -> None:
        chance = self.story.random
        if self.session.is_paused or self.session.is_gone:
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
            self.sent[frame.request] = (number, to, body)
            if kind == wire.TELL:
                self.lives[body] = self.story.lives_of(self.session.uri, to)
            sends.append(frame)
        self.story.tell(f"{self.life} sends {count} to {to}")
        self.session.send_all(sends)

    def handle(self, frame: wire.Deliver) -> None:
        self.story.delivered(self, frame)
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
        weather = Weather(delay_s_max=self.chaos.delay_s_max)
        self.network, self.gateway, self.sidecars = new_mesh(*NAMES, seed=seed, weather=weather)
        self.random = self.network.random
        self.actors: list[Actor] = []
        self.everybody: list[Actor] = []
        self._number = 0
        self._lives: Counter[str] = Counter()
        self._seen: dict[tuple[str, str], int] = {}
        self._delivered: dict[bytes, str] = {}
        for sidecar in self.sidecars:
            self._populate(sidecar)

    def run(self) -> None:
        chaos, now_s = self.chaos, self.network.clock.now_s()
        for kind, rate in (
            (self._send, chaos.sends),
            (self._burst, chaos.bursts),
            (self._cut, chaos.cuts),
            (self._crash_sidecar, chaos.sidecar_crashes),
            (self._crash_gateway, chaos.gateway_crashes),
            (self._depart, chaos.departures),
            (self._read_slowly, chaos.slow_readers),
        ):
            for _ in range(int(rate * chaos.seconds) + (self.random.random() < rate % 1)):
                self.network.after(self.random.uniform(0, chaos.seconds), kind)
        self.network.run(now_s + chaos.seconds)
        self.network.run_for(60.0)
        self.check_all_ended()
        self._close()

    def tell(self, event: str) -> None:
        self.told.append(f"{self.network.clock.now_s():.6f} {event}")

    def next_number(self) -> int:
        self._number += 1
        return self._number

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

    def _cut(self) -> None:
        hops: list[SimulatedHop] = [hop for one in self.sidecars for hop in one.hops]
        if hops:
            hop = self.random.choice(hops)
            self.tell(f"hop {hop.id} is cut")
            hop.cut()

    def _crash_sidecar(self) -> None:
        sidecar = self.random.choice(self.sidecars)
        if not sidecar.is_up:
            return
        self.tell(f"{sidecar.name} crashes")
        self.actors = [a for a in self.actors if a.session.sidecar is not sidecar]
        sidecar.crash()
        self.network.after(self.random.uniform(0, 3), lambda: self._restart(sidecar))

    def _restart(self, sidecar: Sidecar) -> None:
        self.tell(f"{sidecar.name} starts")
        sidecar.start()
        self._populate(sidecar)

    def _crash_gateway(self) -> None:
        if self.gateway.is_up:
            self.tell("the gateway crashes")
            self.gateway.crash()
            self.network.after(self.random.uniform(0, 3), self.gateway.start)

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

    # What must hold.

    def delivered(self, actor: Actor, frame: wire.Deliver) -> None:
        life, number = frame.body.split(b"|")[:2]
        body = bytes(frame.body)
        sender = "agent://acme/" + life.decode().partition("#")[0]
        self.tell(f"{actor.life} has {number.decode()} of {life.decode()}")
        assert frame.sender == sender, "the sender is who the message says, and the channel proved"
        assert body not in self._delivered, "no message is delivered twice"
        self._delivered[body] = actor.life
        pair = (life.decode(), actor.life)
        assert int(number) > self._seen.get(pair, 0), f"{pair}: order is kept"
        self._seen[pair] = int(number)
        self._check_permitted(actor, frame, sender)

    def _check_permitted(self, actor: Actor, frame: wire.Deliver, sender: str) -> None:
        action = Action.MESSAGE_ASK if frame.kind == wire.ASK else Action.MESSAGE_TELL
        asked = actor.session.sidecar.decisions.permits(action)
        assert (sender, actor.session.uri) in asked, "nothing is delivered without a permit"
        assert "outcast" not in sender
        assert not (frame.kind == wire.ASK and actor.name == "quiet")

    def check_all_ended(self) -> None:
        for actor in self.everybody:
            if actor.session.is_gone:
                continue
            assert not actor.session.is_paused, f"{actor.life} is read again"
            ends: dict[int, list[Any]] = defaultdict(list)
            for frame in actor.session.frames:
                if not isinstance(frame, wire.Deliver):
                    ends[frame.request].append(frame)
            for request, (number, to, body) in actor.sent.items():
                assert len(ends[request]) == 1, f"{number} to {to} ends once: {ends[request]}"
                self._check_end(actor, ends[request][0], to, body)
            self._check_nothing_lost(actor, ends)

    def _check_end(self, actor: Actor, end: Any, to: str, body: bytes) -> None:
        self.tell(f"{actor.life} {end.request} ended as {getattr(end, 'code', 'done')}")
        if isinstance(end, wire.Reply):
            assert end.sender == to
            assert end.body == b"re:" + body[:100]
            assert body in self._delivered
        elif isinstance(end, wire.Failed) and end.code not in UNCERTAIN:
            assert body not in self._delivered, f"{end.code} says that it was not handed over"

    def _check_nothing_lost(self, actor: Actor, ends: dict[int, list[Any]]) -> None:
        """While both sidecars live, what was accepted arrives, or its sender is told otherwise."""
        waiting = {body for sidecar in self.sidecars for body in bodies_in_mailboxes(sidecar)}
        missing = [
            body
            for request, (_number, to, body) in actor.sent.items()
            if isinstance(ends[request][0], wire.Receipt)
            and actor.lives[body] == self.lives_of(actor.session.uri, to)
            and body not in self._delivered
            and body not in waiting
        ]
        told = ends[0]
        if not any(frame.code == Code.MESSAGE_OUTCOME_UNKNOWN.text for frame in told):
            assert len(missing) <= len(told), f"{actor.life} lost {missing[0][:40]!r} and others"

    def lives_of(self, *uris: str) -> tuple[int, ...]:
        """How often the sidecars of these agents have been started."""
        lives = {sidecar.name: sidecar.life for sidecar in self.sidecars}
        return tuple(lives.get(uri.split("/")[3], 0) for uri in uris)

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
        assert is_idle(self.gateway), "a gateway without hops holds nothing"
        for sidecar in self.sidecars:
            check_quiet(sidecar)


def bodies_in_mailboxes(sidecar: Sidecar) -> list[bytes]:
    """What waits for agents that nobody reads for."""
    if not sidecar.is_up:
        return []
    agents = sidecar.router.agents.awake_agents()
    return [body for agent in agents for waiting in agent.mailbox for body in waiting.bodies]


def is_idle(gateway: Gateway) -> bool:
    return gateway.is_empty() and not gateway.hops


def check_quiet(sidecar: Sidecar) -> None:
    """A router whose hops are gone and whose messages have ended holds no more than names."""
    router = sidecar.router
    channels, outbound = router.channels, router.outbound
    assert len(channels) == 0
    assert channels.admission.unverified == 0
    assert not channels.admission._unverified_of_node
    assert not channels.admission._of_node
    assert not channels.handshakes
    assert not channels._slots
    assert not channels.hops._entries
    assert not channels.paths._sessions
    assert not channels.paths._parked
    assert not channels.paths._wishes
    assert not outbound.conversations._of_slot
    assert not outbound._dirty
    assert not outbound._pauses._because
    for conversation in outbound.conversations.all():
        assert conversation.idle, conversation
        assert not conversation.unconfirmed
        assert not conversation.waiting_bytes
    assert len(router.timers) == 0
    for agent in router.agents.awake_agents():
        assert agent.users == sum(session.agent is agent for session in sidecar.sessions)
