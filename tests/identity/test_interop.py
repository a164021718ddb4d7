"""did:key and SPIFFE IDs: how others write a key and a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import (
    AgentUri,
    IdentityError,
    SigningKey,
    VerifyKey,
    did_key,
    parse_did_key,
    spiffe_id,
)

# From the did:key method's own test vectors.
KNOWN = {
    "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp": (
        "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
    ),
    "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG": (
        "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29"
    ),
}


@pytest.mark.parametrize("text", KNOWN)
def test_the_known_keys_are_written_as_others_write_them(text: str) -> None:
    key = VerifyKey(bytes.fromhex(KNOWN[text]))

    assert did_key(key) == text
    assert parse_did_key(text) == key


def test_a_key_comes_back_as_it_went() -> None:
    for _ in range(50):
        key = SigningKey.generate().verify_key
        assert parse_did_key(did_key(key)) == key


GOOD = next(iter(KNOWN))
BAD = {
    "nothing": "",
    "another method": GOOD.replace("key", "web"),
    "another base": GOOD.replace(":z", ":m"),
    "with a fragment": f"{GOOD}#{GOOD[8:]}",
    "a character of no base58": GOOD[:-1] + "0",
    "one character short": GOOD[:-1],
    "one character long": GOOD + "1",
    "a leading zero": GOOD.replace(":z", ":z1"),
    "an X25519 key": "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",
    "a P-256 key": "did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169",
    "much too long": GOOD + "1" * 10_000,
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_did_key_of_ours_is_refused(case: str) -> None:
    with pytest.raises(IdentityError):
        parse_did_key(BAD[case])


@given(st.text(max_size=80))
def test_arbitrary_text_is_refused_or_the_one_spelling(text: str) -> None:
    try:
        key = parse_did_key(text)
    except IdentityError:
        return
    assert did_key(key) == text


def test_a_name_is_exported_as_a_spiffe_id() -> None:
    name = AgentUri.parse("agent://acme/finance/planner")

    assert spiffe_id(name) == "spiffe://acme/finance/planner"
