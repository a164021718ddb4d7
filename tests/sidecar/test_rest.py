"""Channels that nothing is said on are put away by agreement, and come back with a message."""

from typing import Any

from sidelink import wire

from identity import Code
from sidecar.rest import IDLE_SECONDS, SWEEP_SECONDS, SWEEP_SECONDS_MIN
from sidecar.router import RouterLimits
from tests.simulation.mesh import Session, Sidecar, new_mesh
from tests.simulation.network import SimulatedNetwork

LONG_ENOUGH_S = 1.5 * IDLE_SECONDS + 2 * SWEEP_SECONDS


class Stage:
    """Alice beside alpha, Bob beside beta, and a channel between them."""

    def __init__(self, **options: Any) -> None:
        self.network, self.gateway, (self.alpha, self.beta) = new_mesh("alpha", "beta", **options)
        self.alice, self.bob = self.alpha.new_session("alice"), self.beta.new_session("bob")
        self.alice.listen()
        self.bob.listen()
        self.alice.tell(self.bob.uri, b"first")
        self.network.run_for(1)

    @property
    def channels(self) -> tuple[int, int]:
        return len(self.alpha.router.channels), len(self.beta.router.channels)


def test_an_idle_channel_is_put_away_and_the_next_message_opens_another() -> None:
    stage = Stage()
    assert stage.channels == (1, 1)
    stage.network.run_for(LONG_ENOUGH_S)
    rested = stage.channels, stage.gateway.relay.links
    stage.alice.tell(stage.bob.uri, b"second")
    stage.network.run_for(1)

    assert rested == ((0, 0), 0)
    assert stage.bob.bodies() == [b"first", b"second"]
    assert stage.alice.failures() == []


def test_a_short_idle_time_is_kept_to_the_second() -> None:
    idle_s = 2.0
    stage = Stage(limits=RouterLimits(channel_idle_s=idle_s))
    before = stage.channels

    stage.network.run_for(idle_s + SWEEP_SECONDS_MIN)

    assert before == (1, 1)
    assert stage.channels == (0, 0)


def test_a_channel_that_was_put_away_leaves_nothing_at_either_end() -> None:
    stage = Stage()
    routers = (stage.alpha.router, stage.beta.router)
    talking = [len(router.outbound.conversations) for router in routers]
    stage.network.run_for(LONG_ENOUGH_S)
    resting = [len(router.outbound.conversations) for router in routers]

    assert talking == [1, 1]
    assert resting == [0, 0]


def test_agents_that_nobody_holds_sleep_once_their_channels_were_put_away() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta", awake_max=2)
    alice = alpha.new_session("alice")
    bobs = [beta.new_session(f"bob{number}") for number in range(10)]
    for bob in bobs:
        alice.tell(bob.uri)
        bob.listen()
    network.run_for(1)
    for bob in bobs:
        bob.leave()
    held = beta.router.agents.awake
    network.run_for(LONG_ENOUGH_S)

    assert held == 10
    assert beta.router.agents.awake == 2


def test_a_channel_in_use_stays() -> None:
    stage = Stage()
    for _ in range(12):
        stage.network.run_for(IDLE_SECONDS / 4)
        stage.bob.tell(stage.alice.uri)

    assert stage.channels == (1, 1)
    assert stage.alpha.router.channels_opened == 1


def test_an_ask_that_waits_for_its_answer_keeps_its_channel() -> None:
    stage = Stage()
    stage.alice.ask(stage.bob.uri, b"think", timeout_s=4 * IDLE_SECONDS)
    stage.network.run_for(3 * IDLE_SECONDS)
    [ask] = [one for one in stage.bob.of(wire.Deliver) if one.kind == wire.ASK]
    stage.bob.answer(ask.delivery, b"thought")
    stage.network.run_for(1)

    assert [reply.body for reply in stage.alice.of(wire.Reply)] == [b"thought"]
    assert stage.alpha.router.channels_opened == 1


def test_a_message_that_crosses_the_offer_keeps_the_channel_and_arrives() -> None:
    stage = Stage()
    rest = stage.alpha.router.rest
    stage.alpha.do(lambda: rest._offer(stage.alpha.router.channels.slots()[0], 0.0))
    stage.bob.tell(stage.alice.uri, b"crosses it")
    stage.alice.tell(stage.bob.uri, b"waits for it")
    stage.network.run_for(1)

    assert stage.alice.bodies() == [b"crosses it"]
    assert stage.bob.bodies() == [b"first", b"waits for it"]
    assert stage.alice.failures() == stage.bob.failures() == []


def test_beyond_the_most_channels_those_used_longest_ago_are_put_away() -> None:
    stage = Stage(limits=RouterLimits(channels_max=2))
    others = [stage.beta.new_session(name) for name in ("second", "third", "fourth")]
    for other in others:
        stage.network.run_for(0.1)
        stage.alice.tell(other.uri)
    stage.network.run_for(2 * SWEEP_SECONDS)
    left = [str(slot.remote) for slot in stage.alpha.router.channels.slots()]

    assert left == [other.uri for other in others[1:]]


class TestDrain:
    """A sidecar that stops."""

    def test_a_peer_that_never_falls_silent_keeps_what_is_new_for_the_next_start(self) -> None:
        stage = Stage()
        said: list[bytes] = []

        def chatter() -> None:
            said.append(b"%d" % len(said))
            stage.alice.tell(stage.bob.uri, said[-1])
            if len(said) < 400:
                stage.network.after(0.01, chatter)

        chatter()
        stage.network.run_for(1)
        _drain(stage.beta)
        stage.network.run_for(1)
        drained, heard = stage.beta.router.drained, stage.bob.bodies()
        bob = _restart(stage.network, stage.beta)
        stage.network.run_for(8)

        assert drained
        assert [*heard, *bob.bodies()] == [b"first", *said]
        assert stage.alice.failures() == []

    def test_quiet_channels_are_put_away_at_once(self) -> None:
        stage = Stage()
        _drain(stage.beta)
        stage.network.run_for(1)

        assert stage.channels == (0, 0)
        assert stage.beta.router.drained

    def test_an_ask_that_was_delivered_is_waited_for(self) -> None:
        stage = Stage()
        stage.alice.ask(stage.bob.uri, b"think")
        stage.network.run_for(1)
        _drain(stage.beta)
        stage.network.run_for(3)
        before = stage.beta.router.drained
        stage.bob.answer(stage.bob.of(wire.Deliver)[-1].delivery, b"thought")
        stage.network.run_for(1)

        assert (before, stage.beta.router.drained) == (False, True)
        assert [reply.body for reply in stage.alice.of(wire.Reply)] == [b"thought"]

    def test_an_ask_of_ours_is_waited_for(self) -> None:
        stage = Stage()
        stage.bob.ask(stage.alice.uri, b"think")
        stage.network.run_for(1)
        _drain(stage.beta)
        stage.network.run_for(3)
        before = stage.beta.router.drained
        stage.alice.answer(stage.alice.of(wire.Deliver)[-1].delivery, b"thought")
        stage.network.run_for(1)

        assert (before, stage.beta.router.drained) == (False, True)
        assert [reply.body for reply in stage.bob.of(wire.Reply)] == [b"thought"]

    def test_what_agents_say_until_they_have_heard_of_it_still_goes(self) -> None:
        stage = Stage()
        _drain(stage.beta)
        stage.network.run_for(1)
        stage.bob.tell(stage.alice.uri, b"last words")
        stage.network.run_for(2)

        assert stage.alice.bodies() == [b"last words"]
        assert stage.beta.router.drained

    def test_no_new_channel_is_taken_and_what_wants_one_waits_for_the_next_start(self) -> None:
        stage = Stage()
        _drain(stage.beta)
        stage.network.run_for(1)
        stage.alice.tell(stage.bob.uri, b"second")
        stage.network.run_for(2)
        waiting = stage.alice.failures(), stage.beta.router.drained
        bob = _restart(stage.network, stage.beta)
        stage.network.run_for(5)

        assert waiting == ([], True)
        assert bob.bodies() == [b"second"]
        assert stage.alice.failures() == []

    def test_a_channel_that_has_lost_its_link_does_not_hold_it_up(self) -> None:
        stage = Stage()
        stage.gateway.crash()
        stage.network.run_for(6)
        _drain(stage.beta)
        stage.network.run_for(1)

        assert stage.beta.router.drained

    def test_what_never_found_a_channel_is_given_back_to_its_agent(self) -> None:
        stage = Stage()
        stage.gateway.crash()
        stage.network.run_for(6)
        request = stage.bob.tell("agent://acme/alpha/carol", b"for later")
        _drain(stage.beta)
        stage.network.run_for(1)
        assert not stage.beta.router.drained
        _close(stage.beta)

        assert stage.bob.failures() == [(request, "local.draining")]


def _drain(sidecar: Sidecar) -> None:
    sidecar.do(sidecar.router.drain)


def _close(sidecar: Sidecar) -> None:
    sidecar.do(lambda: sidecar.router.close(Code.CHANNEL_RESTARTING))


def _restart(network: SimulatedNetwork, sidecar: Sidecar) -> Session:
    _close(sidecar)
    network.run_for(0.1)
    sidecar.crash()
    sidecar.start()
    bob = sidecar.new_session("bob")
    bob.listen()
    return bob
