"""A node that runs for months shows keys that its peers still accept."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from identity import Identifier, Keystore, MasterKey, Purpose
from node.clocks import ManualClock
from node.own_node import PURPOSE_KEY_SECONDS, OwnNode
from node.store import Store

SOMEBODY_ELSE = Identifier(bytes(32))
MONTH_S = 31 * 86_400


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def node(tmp_path: Path, clock: ManualClock) -> Iterator[OwnNode]:
    keystore = Keystore.open(tmp_path / "state.db", MasterKey(os.urandom(32)))
    with Store.open(tmp_path / "state.db") as store:
        yield OwnNode(keystore, store, clock, authority_of="acme")
    keystore.close()


def test_a_month_without_a_new_hop_does_not_end_what_channels_show(
    node: OwnNode, clock: ManualClock
) -> None:
    clock.advance(MONTH_S)

    # As the desk of an authority does for each enrolment, its hops being as old as itself.
    key, proof = node.channel_key, node.channel_proof

    peer = node.verifier_for(SOMEBODY_ELSE).verify(
        proof, purpose=Purpose.CHANNEL, noise_key=key.public.raw, unix_s=clock.unix_s()
    )
    assert peer.identity.kind == "authority"


def test_a_young_key_is_kept(node: OwnNode, clock: ManualClock) -> None:
    before = node.channel_key.public
    clock.advance(PURPOSE_KEY_SECONDS - 1)
    assert node.channel_key.public == before


def test_keys_that_were_made_while_the_clock_was_ahead_are_replaced_when_it_is_put_right(
    node: OwnNode, clock: ManualClock
) -> None:
    clock.advance(365 * 86_400)
    ahead = node.channel_key.public
    clock.unix -= 365 * 86_400
    key, proof = node.channel_key, node.channel_proof

    assert key.public != ahead
    peer = node.verifier_for(SOMEBODY_ELSE).verify(
        proof, purpose=Purpose.CHANNEL, noise_key=key.public.raw, unix_s=clock.unix_s()
    )
    assert peer.identity.kind == "authority"
