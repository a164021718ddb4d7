"""What a member with keys of its own may do to a sidecar once it has a channel there."""

from typing import Any

import pytest

from channel import ChannelClosed
from identity import Code
from link import FrameKind
from tests.sidecar.router_helpers import Lonely, Puppet
from tests.simulation.mesh import Session
from tests.simulation.people import node


@pytest.fixture
def lonely() -> Lonely:
    return Lonely()


@pytest.fixture
def alice(lonely: Lonely) -> Session:
    session = lonely.sidecar.new_session("alice")
    session.listen()
    return session


def connected(lonely: Lonely, to: Session, name: str = "mallory", **options: Any) -> Puppet:
    puppet = Puppet(lonely, name, **options)
    puppet.connect(to.uri)
    assert puppet.is_open
    return puppet


def end_of(puppet: Puppet) -> ChannelClosed:
    [closed] = puppet.of(ChannelClosed)
    return closed


def test_a_yes_that_comes_when_the_peer_has_expired_fails_its_own_messages_only(
    lonely: Lonely, alice: Session
) -> None:
    """A node chooses how long its agents' credentials live, and when it answers."""
    alice.tell("agent://acme/brief/mallory", b"hello")
    puppet = Puppet(lonely, of=node("brief", lifetime_s=5))
    decide = puppet._permit

    def decide_late(peer: Any) -> Any:
        lonely.network.clock.advance(6)
        return decide(peer)

    puppet._permit = decide_late  # type: ignore[method-assign]
    puppet.respond()

    assert alice.failures() == [(1, "message.outcome_unknown")]
    assert end_of(puppet).code is Code.CHANNEL_CREDENTIAL_EXPIRED
    assert len(lonely.router.channels) == 0


def test_a_close_without_a_code_costs_the_hop_and_its_channels_go_on(
    lonely: Lonely, alice: Session
) -> None:
    puppet = connected(lonely, alice)

    lonely.receive((puppet.link, FrameKind.LINK_CLOSE, b""))

    assert lonely.hop.closed is Code.HOP_BAD_FRAME
    lonely.lose_hop()
    assert lonely.router.channels.paths.parked == 1
