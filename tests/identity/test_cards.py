"""Cards and vouchers: what two operators hand each other, as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import (
    ChainLink,
    Code,
    IdentityError,
    encode_card,
    encode_voucher,
    parse_card_untrusted,
    parse_voucher_untrusted,
)
from identity.cards import CARD_CHARS_MAX
from identity.texts import to_text
from tests.identity.helpers import Person, refused


def test_a_card_comes_back_as_it_went() -> None:
    history = Person().rotated().history

    assert parse_card_untrusted(f"\n {encode_card(history)} \n") == history


def test_a_voucher_comes_back_as_it_went() -> None:
    link = ChainLink(b"credential", b"history")

    assert parse_voucher_untrusted(encode_voucher(link)) == link


def with_last_bit_flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


HISTORY = Person().history.encode()
GOOD = encode_card(Person().history)
BAD_CARDS = {
    "nothing": "",
    "a ticket's prefix": GOOD.replace("slh1", "slt1"),
    "a missing end": GOOD[:-3],
    "a typing error": GOOD[:20] + ("a" if GOOD[20] != "a" else "b") + GOOD[21:],
    "a character of no base64": GOOD[:-1] + "!",
    "padding": GOOD + "=",
    "much too long": "slh1" + "A" * CARD_CHARS_MAX,
    "what is no history": to_text("slh1", b"\x00"),
    "a history with a wrong signature": to_text("slh1", with_last_bit_flipped(HISTORY)),
}


@pytest.mark.parametrize("case", BAD_CARDS)
def test_what_is_no_card_is_refused(case: str) -> None:
    code = refused(lambda: parse_card_untrusted(BAD_CARDS[case]))

    assert code is Code.CHANNEL_HISTORY_INVALID


@given(st.text(max_size=60))
def test_arbitrary_text_is_refused_as_a_voucher_with_its_code(text: str) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_voucher_untrusted("slc1" + text)

    assert caught.value.code is Code.CHANNEL_CREDENTIAL_INVALID
