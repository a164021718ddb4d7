"""An authority waits for what gateways say they hold of its documents, and not for ever."""

from authority.hearing import BRING_SECONDS_MAX, Hearing
from node.clocks import ManualClock


class Gateways:
    """What they claim, and what we hold."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: int | None = None
        self.held = 5
        self.hearing = Hearing(self.clock, told=lambda: self.told, held=lambda: self.held)

    def after(self, seconds: float) -> bool:
        self.clock.advance(seconds)
        return self.hearing.is_over()


def test_nothing_is_signed_before_a_gateway_has_said_what_it_holds() -> None:
    gateways = Gateways()
    before = gateways.after(60.0)
    gateways.told = 0

    assert not before
    assert gateways.after(0.0)


def test_what_is_newer_is_waited_for_until_it_is_here() -> None:
    gateways = Gateways()
    gateways.told = 7
    before = gateways.after(1.0)
    gateways.held = 7

    assert not before
    assert gateways.after(1.0)


def test_a_gateway_that_claims_what_it_does_not_bring_holds_nothing_up_for_ever() -> None:
    gateways = Gateways()
    gateways.told = 1 << 62
    waited = [gateways.after(1.0) for _ in range(int(BRING_SECONDS_MAX))]

    assert not any(waited)
    assert gateways.after(1.0)


def test_each_newer_one_is_waited_for() -> None:
    gateways = Gateways()
    gateways.told = 7
    gateways.after(0.0)
    gateways.held = 7
    gateways.after(BRING_SECONDS_MAX)
    gateways.told = 8

    assert not gateways.after(1.0)


def test_a_gateway_that_hangs_up_and_claims_again_holds_nothing_up_for_ever() -> None:
    gateways = Gateways()
    for told in (9, None, 9, None):
        gateways.told = told
        gateways.after(BRING_SECONDS_MAX / 3)
    gateways.told = 9

    assert gateways.after(0.0)
