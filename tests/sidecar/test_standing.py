"""Whether those who talk still may: renewals are shown on live channels, revocations end them."""

from typing import Any

from sidelink import wire

from identity import Code, IdentityError, SidelinkError, VerifiedIdentity
from sidecar.issuing import AGENT_CREDENTIAL_SECONDS
from sidecar.router import EXPIRY_SECONDS_MAX, RouterLimits
from sidecar.standing import SHOWN_AT_ONCE
from tests.simulation.mesh import Session, Sidecar, new_mesh
from tests.simulation.network import SimulatedNetwork


class Revoking:
    """Fits Judge: whoever is named here, or has an ancestor that is, may be here no longer."""

    def __init__(self) -> None:
        self.revoked: set[Any] = set()
        self.expired: set[Any] = set()
        self.lines: list[tuple[str, str]] = []

    def why_cut(self, identity: VerifiedIdentity) -> IdentityError | None:
        if identity.identifier in self.expired:
            return IdentityError(Code.CHANNEL_CREDENTIAL_EXPIRED, "yesterday")
        chain = (identity.identifier, *(one.identifier for one in identity.ancestors))
        if self.revoked.isdisjoint(chain):
            return None
        return IdentityError(Code.CHANNEL_REVOKED, "by list 7")

    def cut(self, identity: VerifiedIdentity, what: str, why: IdentityError) -> None:
        self.lines.append((what, str(identity.name)))


class Pair:
    """alice of alpha and bob of beta, with a channel between them."""

    def __init__(self, **options: Any) -> None:
        self.network, _, (self.alpha, self.beta) = new_mesh("alpha", "beta", **options)
        self.judge = Revoking()
        for sidecar in (self.alpha, self.beta):
            sidecar.judge = self.judge
            sidecar.crash()
            sidecar.start()
        self.network.run_for(1)
        self.alice = self.alpha.new_session("alice")
        self.bob = self.beta.new_session("bob")
        self.bob.listen()
        self.alice.tell(self.bob.uri, b"one")
        self.network.run_for(1)

    def revoke(self, who: Any, *sidecars: Sidecar) -> None:
        self.judge.revoked.add(who)
        for sidecar in sidecars:
            sidecar.do(sidecar.router.judge)
        self.network.run_for(1)


def channels(*sidecars: Sidecar) -> list[int]:
    return [len(sidecar.router.channels) for sidecar in sidecars]


def test_a_channel_ends_when_its_peer_is_revoked() -> None:
    pair = Pair()
    before = channels(pair.alpha, pair.beta)
    pair.revoke(pair.alice.agent.identity.identifier, pair.beta)

    assert before == [1, 1]
    assert channels(pair.alpha, pair.beta) == [0, 0]
    assert pair.beta.router.channels.closed[Code.CHANNEL_REVOKED] == 1
    assert pair.judge.lines == [("channel", "agent://acme/alpha/alice")]


def test_a_channel_ends_when_the_node_of_its_peer_is_revoked() -> None:
    pair = Pair()
    pair.revoke(pair.alpha.node.own.identifier, pair.beta)

    assert channels(pair.beta) == [0]
    assert pair.judge.lines == [("channel", "agent://acme/alpha/alice")]


def test_an_agent_of_ours_that_is_revoked_is_nobody_from_now_on() -> None:
    pair = Pair()
    gone: list[tuple[str, Code]] = []
    pair.alpha.router.standing.on_agent_gone.append(
        lambda agent, code: gone.append((str(agent.uri), code))
    )
    pair.revoke(pair.alice.agent.identity.identifier, pair.alpha)
    refused = None
    try:
        pair.alpha.router.open_agent("alpha/alice", {})
    except SidelinkError as exc:
        refused = exc.code

    assert channels(pair.alpha, pair.beta) == [0, 0]
    assert gone == [("agent://acme/alpha/alice", Code.LOCAL_AGENT_REVOKED)]
    assert refused is Code.LOCAL_AGENT_REVOKED


def test_an_agent_of_ours_that_nobody_called_for_a_day_is_not_taken_for_a_revoked_one() -> None:
    """Its credential is renewed when somebody calls; a list that comes before that ends nothing."""
    pair = Pair()
    gone: list[Any] = []
    pair.beta.router.standing.on_agent_gone.append(lambda *told: gone.append(told))
    pair.judge.expired.add(pair.bob.agent.identity.identifier)
    pair.beta.do(pair.beta.router.judge)
    pair.judge.expired.clear()
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(1)

    assert gone == []
    assert pair.judge.lines == []
    assert pair.bob.bodies() == [b"one", b"two"]


def test_a_revoked_agent_of_ours_answers_nobody() -> None:
    pair = Pair()
    pair.revoke(pair.bob.agent.identity.identifier, pair.beta)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(30)

    assert pair.bob.bodies() == [b"one"]
    assert pair.alice.failures()[-1][1] == "route.unknown"


def test_who_is_not_revoked_talks_on() -> None:
    pair = Pair()
    pair.revoke(object(), pair.alpha, pair.beta)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(1)

    assert pair.bob.bodies() == [b"one", b"two"]
    assert channels(pair.alpha, pair.beta) == [1, 1]


def _rotate(sidecar: Sidecar, session: Session, network: SimulatedNetwork) -> None:
    path = "/".join(session.agent.uri.path)
    unix_s = network.clock.unix_s()
    sidecar.router.agents.rotate(path, unix_s, overlap_s=3_600)
    sidecar.do(sidecar.router.own_agents_changed)
    network.run_for(1)
    sidecar.router.agents.complete_rotation(path, network.clock.unix_s())
    sidecar.do(sidecar.router.own_agents_changed)
    network.run_for(1)


def test_a_rotated_agent_shows_its_new_key_on_the_channel_that_it_has() -> None:
    pair = Pair()
    [slot] = pair.beta.router.channels.slots()
    before = slot.peer
    _rotate(pair.alpha, pair.alice, pair.network)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(1)

    assert pair.alpha.router.standing.shown == 2
    assert pair.beta.router.channels.slots() == [slot]
    assert slot.peer.identifier == before.identifier
    assert slot.peer is not before
    assert pair.bob.bodies() == [b"one", b"two"]


def test_both_ends_may_rotate_at_once() -> None:
    pair = Pair()
    _rotate(pair.alpha, pair.alice, pair.network)
    _rotate(pair.beta, pair.bob, pair.network)
    pair.alice.ask(pair.bob.uri, b"well?")
    pair.network.run_for(1)
    [asked] = [frame for frame in pair.bob.of(wire.Deliver) if frame.body == b"well?"]
    pair.bob.answer(asked.delivery, b"well")
    pair.network.run_for(1)

    assert [reply.body for reply in pair.alice.of(wire.Reply)] == [b"well"]
    assert channels(pair.alpha, pair.beta) == [1, 1]


def test_an_agent_that_was_rotated_between_two_channels_is_known_by_its_newest_key() -> None:
    pair = Pair()
    _rotate(pair.alpha, pair.alice, pair.network)
    carol = pair.beta.new_session("carol")
    carol.listen()
    pair.alice.tell(carol.uri, b"hello")
    pair.network.run_for(1)

    assert carol.bodies() == [b"hello"]


def test_a_channel_outlives_the_credentials_of_both_its_agents() -> None:
    """A byte stream or a long answer may be on it, and nobody opens anything anew."""
    day_s = AGENT_CREDENTIAL_SECONDS
    pair = Pair(limits=RouterLimits(channel_idle_s=10.0 * day_s))
    [slot] = pair.beta.router.channels.slots()
    before = slot.peer.identity.expires_unix_s
    pair.network.run_for(1.02 * day_s)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(1)

    assert pair.beta.router.channels.slots() == [slot]
    assert slot.peer.identity.expires_unix_s > before
    assert pair.bob.bodies() == [b"one", b"two"]


def test_a_peer_whom_nobody_vouches_for_any_more_is_noticed_though_no_list_comes() -> None:
    """The key of its authority may have ended with its overlap, an hour after the last list."""
    pair = Pair(limits=RouterLimits(channel_idle_s=86_400.0))
    pair.judge.revoked.add(pair.alice.agent.identity.identifier)
    pair.network.run_for(EXPIRY_SECONDS_MAX + 1)

    assert channels(pair.alpha, pair.beta) == [0, 0]
    assert pair.judge.lines == [("channel", "agent://acme/alpha/alice")]


def test_a_row_that_cannot_be_read_keeps_no_other_proof_from_being_shown() -> None:
    pair = Pair()
    others = [pair.alpha.new_session(f"one-{number}") for number in range(3)]
    for other in others:
        other.tell(pair.bob.uri, b"hello")
    pair.network.run_for(5)
    agents = pair.alpha.router.agents
    damaged, honest = others[0].agent, agents.proof_for

    def proof_for(agent: Any, noise_key: bytes, unix_s: float) -> bytes:
        if agent is damaged:
            raise IdentityError(Code.CONFIG_KEYSTORE_DAMAGED, "the row of one-0")
        return honest(agent, noise_key, unix_s)

    agents.proof_for = proof_for
    for session in (pair.alice, *others):
        agents.rotate("/".join(session.agent.uri.path), pair.network.clock.unix_s(), 3_600)
    pair.alpha.do(pair.alpha.router.own_agents_changed)
    pair.network.run_for(5)

    assert pair.alpha.router.standing.shown == 3
    assert len(pair.beta.router.channels.slots()) == 4


def test_a_full_disk_keeps_no_later_change_of_the_node_from_its_agents() -> None:
    pair = Pair()
    agents, tries = pair.alpha.router.agents, [False, True]
    honest, refreshed = agents.reissue, []

    def reissue(some: Any, unix_s: float) -> Any:
        if not tries.pop(0):
            raise IdentityError(Code.CONFIG_KEYSTORE_DAMAGED, "database or disk is full")
        refreshed.append(list(some))
        return honest(some, unix_s)

    agents.reissue = reissue
    for _ in range(2):
        pair.alpha.do(pair.alpha.router.node_changed)
        pair.network.run_for(1)

    assert refreshed == [[pair.alice.agent]]


def test_proofs_are_shown_little_by_little() -> None:
    pair = Pair()
    others = [pair.beta.new_session(f"one-{number}") for number in range(3 * SHOWN_AT_ONCE)]
    for other in others:
        pair.alice.tell(other.uri, b"hello")
    pair.network.run_for(5)
    path = "/".join(pair.alice.agent.uri.path)
    pair.alpha.router.agents.rotate(path, pair.network.clock.unix_s(), overlap_s=3_600)
    pair.alpha.do(pair.alpha.router.own_agents_changed)
    at_once = pair.alpha.router.standing.shown
    pair.network.run_for(5)

    assert at_once == SHOWN_AT_ONCE
    assert pair.alpha.router.standing.shown == len(others) + 1


def test_a_peer_that_renews_without_end_loses_its_channel() -> None:
    pair = Pair()
    [slot] = pair.alpha.router.channels.slots()
    for _ in range(20):
        pair.alpha.do(lambda: pair.alpha.router.standing.show(slot))
    pair.network.run_for(1)

    assert pair.beta.router.channels.closed[Code.CHANNEL_LIMIT_EXCEEDED] == 1


def test_attributes_that_policy_denies_end_the_channel_on_which_they_are_shown() -> None:
    pair = Pair()
    path = "/".join(pair.alice.agent.uri.path)
    agents = pair.alpha.router.agents
    # Not through the router, which would end the channel itself.
    agents.open(path, {"role": "outcast"}, pair.network.clock.unix_s())
    pair.alpha.do(pair.alpha.router.own_agents_changed)
    pair.network.run_for(1)

    assert channels(pair.beta) == [0]
    assert pair.beta.router.channels.closed[Code.POLICY_DENIED] == 1


def test_another_channel_opens_behind_one_that_was_denied_midway() -> None:
    pair = Pair()
    agents = pair.alpha.router.agents
    agents.open("alpha/alice", {"role": "outcast"}, pair.network.clock.unix_s())
    pair.alpha.do(pair.alpha.router.own_agents_changed)
    pair.network.run_for(1)
    agents.open("alpha/alice", {}, pair.network.clock.unix_s())
    pair.alice.tell(pair.bob.uri, b"forgiven")
    pair.network.run_for(1)

    assert pair.bob.bodies() == [b"one", b"forgiven"]
    assert channels(pair.alpha, pair.beta) == [1, 1]
