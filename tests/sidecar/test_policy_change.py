"""Another policy comes into force while agents talk: what it denies ends, all else goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sidelink import wire

from channel import StreamOpen, StreamSecret, encode_stream_open
from identity import AgentUri, Code
from link import FrameKind, StreamPreamble
from link.messages import encode_stream_preamble
from policy import Action, PolicyEngine
from sidecar import standing, sweep
from sidecar.mesh_stream import MeshStream, StreamError
from tests.runs import deliveries_of
from tests.sidecar.test_router import policy
from tests.sidecar.test_streams import ECHO, WAIT_S, StreamMesh, failure_of, until
from tests.simulation.mesh import Sidecar, new_mesh

EVERYTHING = "effect: allow, actions: [channel.open, message.tell, message.ask, stream.open]"
OPEN = policy(EVERYTHING)
NOT_FROM_ALICE = policy(
    EVERYTHING,
    "effect: deny, actions: [channel.open], from: {name: 'agent://acme/alpha/alice'}",
)
NO_TELLS = policy(EVERYTHING, "effect: deny, actions: [message.tell]")
NO_STREAMS = policy(EVERYTHING, "effect: deny, actions: [stream.open]")
NO_RULES_FOR_CHANNELS = policy("effect: allow, actions: [hop.admit]")


class Pair:
    """alice of alpha and bob of beta, with a channel that alice opened."""

    def __init__(self) -> None:
        self.network, _, (self.alpha, self.beta) = new_mesh("alpha", "beta", policy=OPEN)
        self.alice = self.alpha.new_session("alice")
        self.bob = self.beta.new_session("bob")
        self.bob.listen()
        self.alice.tell(self.bob.uri, b"one")
        self.network.run_for(1)

    def change(self, sidecar: Sidecar, engine: PolicyEngine) -> None:
        sidecar.decisions.policy = engine
        sidecar.do(sidecar.router.policy_changed)

    def channels(self) -> list[int]:
        return [len(sidecar.router.channels) for sidecar in (self.alpha, self.beta)]


@pytest.mark.parametrize("where", ["alpha", "beta"])
def test_a_channel_that_either_ends_policy_denies_is_cut_at_both(where: str) -> None:
    pair = Pair()
    before = pair.channels()
    sidecar = pair.alpha if where == "alpha" else pair.beta
    pair.change(sidecar, NOT_FROM_ALICE)
    pair.network.run_for(0.5)

    assert before == [1, 1]
    assert pair.channels() == [0, 0]
    assert sidecar.router.channels.closed[Code.POLICY_DENIED] == 1
    assert sidecar.decisions.cut == [("channel", "agent://acme/alpha/alice", Code.POLICY_DENIED)]


def test_a_channel_for_which_no_rule_is_left_is_cut() -> None:
    pair = Pair()
    pair.change(pair.beta, NO_RULES_FOR_CHANNELS)
    pair.network.run_for(0.5)

    assert pair.channels() == [0, 0]
    assert pair.beta.decisions.cut == [("channel", "agent://acme/alpha/alice", Code.POLICY_NO_RULE)]


def test_a_channel_is_asked_about_in_the_name_of_who_opened_it() -> None:
    pair = Pair()
    deny_bob = policy(
        EVERYTHING,
        "effect: deny, actions: [channel.open], from: {name: 'agent://acme/beta/bob'}",
    )
    for sidecar in (pair.alpha, pair.beta):
        pair.change(sidecar, deny_bob)
    pair.network.run_for(0.5)

    assert pair.channels() == [1, 1]


def test_a_policy_that_allows_the_same_ends_nothing() -> None:
    pair = Pair()
    slots = pair.beta.router.channels.slots()
    for sidecar in (pair.alpha, pair.beta):
        pair.change(sidecar, policy(EVERYTHING, "effect: allow, actions: [mcp.call]"))
    pair.network.run_for(0.5)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(0.5)

    assert pair.beta.router.channels.slots() == slots
    assert pair.bob.bodies() == [b"one", b"two"]


def test_the_next_message_on_a_live_channel_is_decided_by_the_new_policy() -> None:
    pair = Pair()
    pair.change(pair.beta, NO_TELLS)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(0.5)

    assert pair.channels() == [1, 1]
    assert pair.bob.bodies() == [b"one"]
    assert pair.alice.failures()[-1][1] == "policy.denied"


def test_who_was_denied_too_often_is_heard_at_once_under_a_policy_that_allows() -> None:
    pair = Pair()
    pair.change(pair.beta, NO_TELLS)
    [slot] = pair.beta.router.channels.slots()
    while slot.denials.take(pair.network.clock.now_s()):
        pass
    pair.alice.tell(pair.bob.uri, b"denied")
    pair.network.run_for(0.1)
    is_unread = slot.denied is not None and pair.network.clock.now_s() < slot.denied_until_s
    # Not the one of the beginning, by which a permit is held.
    pair.change(pair.beta, policy(EVERYTHING, "effect: allow, actions: [mcp.call]"))
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(0.1)

    assert is_unread
    assert pair.bob.bodies() == [b"one", b"two"]


def test_channels_are_asked_about_little_by_little_and_all_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standing, "ASKED_AT_ONCE", 4)
    pair = Pair()
    others = [pair.beta.new_session(f"one-{number}") for number in range(12)]
    for other in others:
        pair.alice.tell(other.uri, b"hello")
    pair.network.run_for(5)
    before = pair.channels()
    pair.change(pair.alpha, NOT_FROM_ALICE)
    at_once = len(pair.alpha.decisions.cut)
    pair.network.run_for(1)

    assert before == [len(others) + 1] * 2
    assert at_once == 4
    assert pair.channels() == [0, 0]


def test_a_policy_that_comes_behind_another_is_the_one_that_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standing, "ASKED_AT_ONCE", 4)
    pair = Pair()
    for number in range(8):
        pair.alice.tell(pair.beta.new_session(f"one-{number}").uri, b"hello")
    pair.network.run_for(5)
    pair.change(pair.alpha, OPEN)
    pair.change(pair.alpha, NOT_FROM_ALICE)
    pair.network.run_for(1)

    assert pair.channels() == [0, 0]


def not_asked_yet(pair: Pair, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """alice may open no channel any more, and the sweep has not come to hers."""
    monkeypatch.setattr(standing, "ASKED_AT_ONCE", 0)
    pair.change(sidecar, NOT_FROM_ALICE)
    assert len(sidecar.router.channels.unasked) == 1


def test_nothing_is_delivered_on_a_denied_channel_that_the_sweep_has_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    not_asked_yet(pair, pair.beta, monkeypatch)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(0.5)

    assert pair.bob.bodies() == [b"one"]
    assert pair.channels() == [0, 0]
    assert pair.beta.decisions.cut == [("channel", "agent://acme/alpha/alice", Code.POLICY_DENIED)]


def test_nothing_is_sent_on_a_denied_channel_that_the_sweep_has_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    not_asked_yet(pair, pair.alpha, monkeypatch)
    pair.alice.tell(pair.bob.uri, b"two")
    pair.network.run_for(0.5)

    assert pair.bob.bodies() == [b"one"]
    assert pair.alice.failures()[-1][1] == "policy.denied"
    assert pair.channels() == [0, 0]


def test_no_answer_goes_back_on_a_denied_channel_that_the_sweep_has_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    pair.alice.ask(pair.bob.uri, b"a question")
    pair.network.run_for(0.5)
    [question] = [one for one in deliveries_of(pair.bob.frames) if one.body == b"a question"]
    not_asked_yet(pair, pair.beta, monkeypatch)
    pair.bob.answer(question.delivery, b"an answer")
    pair.network.run_for(0.5)

    assert [frame for frame in pair.alice.frames if isinstance(frame, wire.Reply)] == []
    assert pair.alice.failures()[-1][1] == "message.outcome_unknown"


def test_what_waited_for_credit_does_not_follow_once_the_channel_is_denied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    pair.beta.router.unlisten(pair.bob.agent, pair.bob)
    [slot] = pair.alpha.router.channels.slots()
    hop: Any = slot.links.hop
    for _ in range(40):
        pair.alice.tell(pair.bob.uri, b"x" * 60_000)
    waiting = slot.links.waiting_bytes
    not_asked_yet(pair, pair.alpha, monkeypatch)
    sent = sum(frame.kind == FrameKind.RECORD for frame in hop.sent)
    pair.network.run_for(0.5)
    since = [frame for frame in hop.sent if frame.kind == FrameKind.RECORD][sent:]

    assert waiting > 0
    assert [len(frame.body) < 1_000 for frame in since] == [True], "the denial, and nothing else"


def test_a_channel_that_is_allowed_still_is_asked_about_once_by_each_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standing, "ASKED_AT_ONCE", 0)
    pair = Pair()
    pair.change(pair.beta, policy(EVERYTHING, "effect: allow, actions: [mcp.call]"))
    before = len(pair.beta.decisions.asked)
    for _ in range(5):
        pair.alice.tell(pair.bob.uri, b"two")
        pair.network.run_for(0.5)
    asked = [request.action for request, _ in pair.beta.decisions.asked[before:]]

    assert pair.bob.bodies() == [b"one"] + [b"two"] * 5
    assert asked.count(Action.CHANNEL_OPEN) == 1
    assert not pair.beta.router.channels.unasked


@pytest.fixture
async def mesh() -> AsyncIterator[StreamMesh]:
    async with asyncio.timeout(WAIT_S):
        mesh = StreamMesh()
        yield mesh
        await mesh.close()


def change(mesh: StreamMesh, name: str, engine: PolicyEngine) -> None:
    sidecar = mesh.alpha if name == "alpha" else mesh.beta
    sidecar.decisions.policy = engine
    mesh.streams[name].policy_changed()


@pytest.mark.parametrize("where", ["alpha", "beta"])
async def test_a_stream_that_either_ends_policy_denies_is_reset_at_both(
    mesh: StreamMesh, where: str
) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    await stream.read(100)
    change(mesh, where, NO_STREAMS)
    await until(lambda: mesh.count() == [0, 0, 0])
    sidecar = mesh.alpha if where == "alpha" else mesh.beta

    assert await failure_of(stream.read(1)) is Code.POLICY_DENIED
    assert await failure_of(mesh.served[0].read(1)) is Code.POLICY_DENIED
    assert sidecar.decisions.cut == [("stream", "agent://acme/alpha/alice", Code.POLICY_DENIED)]
    assert [len(one.router.channels) for one in (mesh.alpha, mesh.beta)] == [1, 1]


async def test_a_stream_that_may_go_on_does(mesh: StreamMesh) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    await stream.read(100)
    for name in ("alpha", "beta"):
        change(mesh, name, NO_TELLS)
    await stream.write(b"again")

    assert await stream.read(100) == b"again"


async def test_a_stream_that_was_announced_is_not_served_by_a_permit_of_before(
    mesh: StreamMesh,
) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    await stream.read(100)
    [slot] = mesh.beta.router.channels.slots()
    secret, secret_bytes = StreamSecret.generate()
    mesh.streams["beta"].stream_announced(
        slot, encode_stream_open(StreamOpen(99, ECHO, secret_bytes))
    )
    [expected] = mesh.streams["beta"]._expected.values()
    change(mesh, "beta", NO_STREAMS)

    assert expected.answer.policy_version == NO_STREAMS.version
    assert mesh.beta.decisions.cut[0][0] == "stream"
    assert secret is not None


async def test_a_stream_between_two_agents_of_one_sidecar_is_reset(mesh: StreamMesh) -> None:
    carol = mesh.beta.new_session("carol")
    stream: MeshStream = await mesh.streams["beta"].open(
        carol.agent, AgentUri.parse(mesh.bob.uri), ECHO
    )
    await stream.write(b"hello")
    await stream.read(100)
    change(mesh, "beta", NO_STREAMS)
    cut: list[Any] = mesh.beta.decisions.cut

    assert await failure_of(stream.read(1)) is Code.POLICY_DENIED
    assert cut == [("stream", "agent://acme/beta/carol", Code.POLICY_DENIED)]


@pytest.fixture
def unreached(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sweep comes to anything of its own accord."""
    monkeypatch.setattr(sweep, "ASKED_SECONDS_MAX", 0.0)
    monkeypatch.setattr(standing, "ASKED_AT_ONCE", 0)


@pytest.mark.usefixtures("unreached")
async def test_no_byte_arrives_on_a_denied_stream_that_the_sweep_has_not_reached(
    mesh: StreamMesh,
) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    await stream.read(100)
    change(mesh, "beta", NO_STREAMS)
    await stream.write(b"more")
    [served] = mesh.served

    assert await failure_of(served.read(100)) is Code.POLICY_DENIED
    assert await failure_of(stream.read(100)) is Code.POLICY_DENIED


@pytest.mark.usefixtures("unreached")
async def test_no_byte_leaves_on_a_denied_stream_that_the_sweep_has_not_reached(
    mesh: StreamMesh,
) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    await stream.read(100)
    change(mesh, "alpha", NO_STREAMS)

    assert await failure_of(stream.write(b"more")) is Code.POLICY_DENIED


@pytest.mark.usefixtures("unreached")
@pytest.mark.parametrize("where", ["alpha", "beta"])
async def test_no_byte_passes_on_a_stream_whose_channel_is_denied_and_was_not_reached(
    mesh: StreamMesh, where: str
) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    await stream.read(100)
    sidecar = mesh.alpha if where == "alpha" else mesh.beta
    change(mesh, where, NOT_FROM_ALICE)
    sidecar.do(sidecar.router.policy_changed)
    with contextlib.suppress(StreamError):
        await stream.write(b"more")
    [served] = mesh.served

    assert await failure_of(served.read(100)) is Code.POLICY_DENIED
    assert sidecar.decisions.cut == [("channel", "agent://acme/alpha/alice", Code.POLICY_DENIED)]


@pytest.mark.usefixtures("unreached")
async def test_a_stream_that_was_announced_begins_by_the_policy_in_force(
    mesh: StreamMesh,
) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    await stream.read(100)
    [slot] = mesh.beta.router.channels.slots()
    _, secret_bytes = StreamSecret.generate()
    opening = encode_stream_open(StreamOpen(99, ECHO, secret_bytes))
    streams = mesh.streams["beta"]
    streams.stream_announced(slot, opening)
    [expected] = streams._expected.values()
    change(mesh, "beta", NO_STREAMS)
    before = expected.answer.policy_version
    preamble = encode_stream_preamble(StreamPreamble(slot.links.link, 99))
    streams.stream_received(slot.links.hop, 999, preamble, ended=False)

    assert before != NO_STREAMS.version
    assert expected.answer.policy_version == NO_STREAMS.version
    assert len(mesh.served) == 1
