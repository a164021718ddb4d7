"""What neighbours show each other: newer proofs and newer lists, which reach everybody."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from identity import Identifier, PolicyFile
from link import Frame, FrameKind
from link.trust_messages import (
    PART_BYTES_MAX,
    Held,
    decode_held_untrusted,
    decode_part_untrusted,
    encode_held,
    encode_part,
    parts_of,
)
from node.clocks import ManualClock
from node.neighbours import RENEWALS_BURST
from node.spreading import DOCUMENTS_BURST, HELD_AGAIN_SECONDS, QUEUED_BYTES_MAX
from tests.node.members import DAY_S, Authority
from tests.node.streets import Side, Street

SOMEBODY = Identifier(b"s" * 32)
MANY = tuple(Identifier(number.to_bytes(32, "big")) for number in range(1, 4_000))
"""So many that a list of them takes several frames."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def street(tmp_path: Path, clock: ManualClock) -> Iterator[Street]:
    with contextlib.ExitStack() as stack:
        yield Street(tmp_path, clock, stack)


def test_a_newer_list_reaches_everybody_once(street: Street) -> None:
    sides = [street.add(name) for name in ("a", "b", "c", "d")]
    street.connect("a", "b", "c", "d")
    street.connect("d", "a")
    street.carry()
    sides[0].node.trust.offer_untrusted(street.acme.revocations(street.now, SOMEBODY))
    street.carry()

    assert [side.number(street.acme) for side in sides] == [street.now] * 4
    assert [side.told for side in sides] == [[1]] * 4
    assert max(street.lists_carried.values()) == 1, "no hop carries it twice one way"
    assert street.lists_carried.total() < 2 * 4, "nor back to where it came from"


def test_a_list_of_many_frames_arrives_whole(street: Street) -> None:
    sides = [street.add(name) for name in ("a", "b")]
    street.connect("a", "b")
    street.carry()
    sides[0].node.trust.offer_untrusted(street.acme.revocations(street.now, *MANY))
    street.carry()

    assert street.lists_carried.total() == 3
    newest = sides[1].node.trust.lists.newest(street.acme.identifier)
    assert newest is not None
    assert len(newest.revoked) == len(MANY)
    assert sides[1].assembling_bytes == 0


def test_who_comes_later_is_sent_what_it_has_missed(street: Street) -> None:
    first = street.add("a")
    first.node.trust.offer_untrusted(street.acme.revocations(street.now, SOMEBODY))
    late = street.add("b")
    street.connect("a", "b")
    street.carry()

    assert late.number(street.acme) == street.now


def test_a_list_is_sent_only_to_who_trusts_its_authority(street: Street) -> None:
    globex = Authority("globex")
    both, other = street.add("a"), street.add("b")
    both.node.trust.add(globex.anchor)
    street.connect("a", "b")
    street.carry()
    both.node.trust.offer_untrusted(globex.revocations(street.now))
    street.carry()
    before = street.lists_carried.total()
    other.node.trust.add(globex.anchor)
    street.carry()

    assert before == 0
    assert other.number(globex) == street.now, "it says at once that it trusts one more"


def test_a_burst_of_lists_costs_nobody_its_hop(street: Street) -> None:
    """Whatever the network does between: what left at intervals arrives together."""
    sides = [street.add(name) for name in ("a", "b")]
    street.connect("a", "b")
    street.carry()
    for number in range(4 * DOCUMENTS_BURST):
        sides[0].node.trust.offer_untrusted(
            street.acme.revocations(street.now, number=street.now + number)
        )
        street.tick(0.5)
    late = street.hops["a", "b"].bodies(FrameKind.LIST)
    street.carry()
    newest = sides[0].number(street.acme)
    while sides[1].number(street.acme) < newest:
        street.tick(1.0)
        street.carry()

    assert len(late) > DOCUMENTS_BURST
    assert sides[1].number(street.acme) == newest


def test_a_neighbour_that_takes_nothing_is_sent_no_more_lists(street: Street) -> None:
    side = street.add("a")
    street.add("b")
    street.connect("a", "b")
    side.node.trust.offer_untrusted(street.acme.revocations(street.now))
    hop = street.hops["a", "b"]
    asks = Frame(0, FrameKind.LISTS_HELD, encode_held((Held(street.acme.identifier, 0),)))
    hop.sent.clear()
    hop.queued_bytes = QUEUED_BYTES_MAX + 1
    street.hear("a", "b", asks)
    street.tick()
    while_full = len(hop.bodies(FrameKind.LIST))
    hop.queued_bytes = 0
    street.tick()

    assert while_full == 0
    assert len(hop.bodies(FrameKind.LIST)) == 1


def test_what_is_held_is_said_again_now_and_then(street: Street) -> None:
    street.add("a")
    street.add("b")
    street.connect("a", "b")
    street.carry()
    street.tick(HELD_AGAIN_SECONDS)

    [said] = street.hops["a", "b"].bodies(FrameKind.LISTS_HELD)
    assert [held.authority for held in decode_held_untrusted(said)] == [street.acme.identifier]


def test_a_renewed_node_is_known_by_its_new_proof(street: Street) -> None:
    renewing, other = street.add("a"), street.add("b")
    street.connect("a", "b")
    street.carry()
    before = street.hops["b", "a"].peer
    renewing.node.announce_key(overlap_s=DAY_S)
    renewing.node.use_announced_key()
    street.acme.renew(renewing.node, street.now + 10, name="node/a", ttl_s=2 * DAY_S)
    street.carry()
    after = street.hops["b", "a"].peer

    assert after.identifier == before.identifier
    assert after.identity.expires_unix_s > before.identity.expires_unix_s
    assert other.renewed == [street.hops["b", "a"]] * 3


def test_who_changes_often_shows_only_what_it_is_in_the_end(street: Street) -> None:
    changing, other = street.add("a"), street.add("b")
    street.connect("a", "b")
    street.carry()
    for number in range(4 * RENEWALS_BURST):
        street.acme.renew(changing.node, street.now, name="node/a", ttl_s=DAY_S + number)
    street.carry()
    street.tick(10.0)
    street.carry()

    seen = street.hops["b", "a"].peer.identity
    assert seen.expires_unix_s == changing.node.identity.expires_unix_s
    assert len(other.renewed) == RENEWALS_BURST + 1


def test_a_key_that_was_replaced_since_the_handshake_is_still_vouched_for(street: Street) -> None:
    old, other = street.add("a"), street.add("b")
    street.acme.renew(old.node, street.now, name="node/a", ttl_s=30 * DAY_S)
    street.acme.renew(other.node, street.now, name="node/b", ttl_s=30 * DAY_S)
    street.connect("a", "b")
    street.carry()
    shown = street.hops["a", "b"].own_key
    street.clock.advance(8 * DAY_S)
    replaced = old.node.hop_identity().key.public.raw
    street.acme.renew(old.node, street.now, name="node/a", ttl_s=30 * DAY_S)
    street.carry()

    assert replaced != shown
    assert len(other.renewed) == 1


def test_a_part_says_where_it_belongs(street: Street) -> None:
    encoded = street.acme.revocations(street.now, *MANY)
    parts = parts_of(street.acme.identifier, street.now, encoded)
    read = [decode_part_untrusted(encode_part(part), 1 << 20) for part in parts]

    assert read == parts
    assert [part.offset for part in parts] == [0, PART_BYTES_MAX, 2 * PART_BYTES_MAX]


def _number(side: Side) -> int | None:
    held = side.mandatory.held
    return None if held is None else held.number


def test_a_mandatory_policy_reaches_every_member_once(street: Street) -> None:
    sides = [street.add(name) for name in ("a", "b", "c")]
    street.connect("a", "b", "c")
    street.connect("c", "a")
    street.carry()
    policy = street.policy("x" * (2 * PART_BYTES_MAX))
    sides[0].mandatory.offer_untrusted(policy)
    street.carry()

    assert [_number(side) for side in sides] == [street.now] * 3
    assert max(street.policies_carried.values()) == 3, "one of three parts, and once one way"


def test_who_comes_later_is_sent_the_policy_too(street: Street) -> None:
    a = street.add("a")
    a.mandatory.offer_untrusted(street.policy())
    late = street.add("late")
    street.connect("a", "late")
    street.carry()

    assert _number(late) == street.now


def test_what_a_signer_published_before_it_heard_of_a_newer_mandate_divides_nobody(
    street: Street,
) -> None:
    a, b = street.add("a"), street.add("b")
    signer = b.node.identifier
    for side in (a, b):
        side.mandatory.offer_untrusted(street.policy(signers=[signer]))
    street.clock.advance(10.0)
    newer = street.policy("# newer\n")
    a.mandatory.offer_untrusted(newer)
    street.clock.advance(10.0)
    b.mandatory.publish([PolicyFile("base.yaml", "# by a signer\n")])
    street.connect("a", "b")
    street.carry()

    for side in (a, b):
        assert side.mandatory.held is not None
        assert side.mandatory.held.encoded == newer
        assert not side.neighbours.refused


def test_a_policy_is_shown_to_nobody_outside_its_domain(street: Street) -> None:
    ours = street.add("a")
    globex = Authority("globex")
    theirs = street.add("theirs", globex)
    ours.node.trust.add(globex.anchor)
    theirs.node.trust.add(street.acme.anchor)
    street.connect("a", "theirs")
    street.carry()
    ours.mandatory.offer_untrusted(street.policy())
    asks = Frame(0, FrameKind.POLICY_HELD, encode_held((Held(street.acme.identifier, 0),)))
    street.hear("a", "theirs", asks)
    sent = [frame.kind for frame in street.hops["a", "theirs"].sent]

    assert FrameKind.POLICY_HELD not in sent
    assert FrameKind.POLICY not in sent


def test_nobody_outside_the_domain_brings_its_policy(street: Street) -> None:
    ours = street.add("a")
    globex = Authority("globex")
    theirs = street.add("theirs", globex)
    ours.node.trust.add(globex.anchor)
    theirs.node.trust.add(street.acme.anchor)
    street.connect("a", "theirs")
    street.carry()
    for part in parts_of(street.acme.identifier, street.now, street.policy()):
        street.hear("a", "theirs", Frame(0, FrameKind.POLICY, encode_part(part)))

    assert ours.mandatory.held is None
    assert ours.neighbours.policies.assembling_bytes == 0
