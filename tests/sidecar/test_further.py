"""What other issuers say of our agents: taken when all of it holds, shown while it is good."""

import pytest

from identity import (
    AgentUri,
    ChainLink,
    Code,
    IdentityError,
    OwnIdentity,
    Purpose,
    SidelinkError,
    issue_credential,
    new_identity,
)
from identity.proof import FURTHER_MAX
from sidecar.further import shown_further, with_voucher, without_issuer

NOW = 1_900_000_000
DAY_S = 86_400
OWN = new_identity("finance/planner", unix_s=NOW, purposes=(Purpose.CHANNEL,))
GLOBEX = new_identity(".node", unix_s=NOW, purposes=(Purpose.CHANNEL,))


def voucher(
    issuer: OwnIdentity = GLOBEX,
    subject: OwnIdentity = OWN,
    *,
    role: str = "auditor",
    begins_unix_s: int = NOW,
    life_s: int = DAY_S,
) -> ChainLink:
    signed = issue_credential(
        issuer.signing_key,
        issuer.history,
        subject.history,
        name=AgentUri.parse("agent://globex/guests/planner"),
        trust_domain="globex",
        kind="agent",
        role_of_node=None,
        attributes={"role": role},
        delegable=None,
        not_before_unix_s=begins_unix_s,
        expires_unix_s=begins_unix_s + life_s,
    )
    return ChainLink(signed.encoded, issuer.history.encode())


def test_a_voucher_is_shown_by_its_issuer() -> None:
    own = with_voucher(OWN, voucher(), NOW)
    shown = shown_further(own, NOW)

    assert shown.chains == own.further
    assert {issuer: dict(said) for issuer, said in shown.said.items()} == {
        GLOBEX.identifier: {"role": "auditor"}
    }


def test_a_newer_word_of_an_issuer_takes_the_place_of_the_older() -> None:
    own = with_voucher(with_voucher(OWN, voucher(), NOW), voucher(role="clerk"), NOW)

    assert dict(shown_further(own, NOW).said[GLOBEX.identifier]) == {"role": "clerk"}


def test_a_voucher_is_left_out_before_it_ends_so_that_no_channel_ends_with_it() -> None:
    own = with_voucher(OWN, voucher(life_s=1_000), NOW)
    shown = shown_further(own, NOW)

    assert shown.until_unix_s == NOW + 900
    assert shown_further(own, NOW + 899).chains
    assert not shown_further(own, NOW + 900).chains


def test_an_issuer_can_be_forgotten_once() -> None:
    own = without_issuer(with_voucher(OWN, voucher(), NOW), GLOBEX.identifier)
    with pytest.raises(SidelinkError) as again:
        without_issuer(own, GLOBEX.identifier)

    assert own.further == ()
    assert again.value.code is Code.LOCAL_BAD_REQUEST


def test_so_many_issuers_vouch_for_one_agent_and_no_more() -> None:
    own = OWN
    issuers = [
        new_identity(".node", unix_s=NOW, purposes=(Purpose.CHANNEL,))
        for _ in range(FURTHER_MAX + 1)
    ]
    for issuer in issuers[:FURTHER_MAX]:
        own = with_voucher(own, voucher(issuer), NOW)
    with pytest.raises(SidelinkError) as beyond:
        with_voucher(own, voucher(issuers[-1]), NOW)

    assert len(own.further) == FURTHER_MAX
    assert beyond.value.code is Code.LOCAL_LIMIT


def _forged() -> ChainLink:
    link = voucher()
    return ChainLink(
        link.credential[:-2] + bytes([link.credential[-2] ^ 1, 0]), link.issuer_history
    )


BAD = {
    "about somebody else": (
        lambda: voucher(subject=new_identity("x", unix_s=NOW, purposes=(Purpose.CHANNEL,))),
        Code.LOCAL_BAD_REQUEST,
    ),
    "that has expired": (
        lambda: voucher(begins_unix_s=NOW - DAY_S, life_s=DAY_S),
        Code.CHANNEL_CREDENTIAL_EXPIRED,
    ),
    "of the future": (lambda: voucher(begins_unix_s=NOW + 100), Code.CHANNEL_NOT_YET_VALID),
    "with a wrong signature": (_forged, Code.CHANNEL_CREDENTIAL_INVALID),
    "beside the history of another": (
        lambda: ChainLink(
            voucher().credential,
            new_identity("x", unix_s=NOW, purposes=(Purpose.CHANNEL,)).history.encode(),
        ),
        Code.CHANNEL_PROOF_INVALID,
    ),
    "that is none": (lambda: ChainLink(b"\x00", b"\x00"), Code.CHANNEL_CREDENTIAL_INVALID),
}


@pytest.mark.parametrize("case", BAD)
def test_a_voucher_is_refused(case: str) -> None:
    make, code = BAD[case]
    link = make()
    with pytest.raises((IdentityError, SidelinkError)) as refused:
        with_voucher(OWN, link, NOW)

    assert refused.value.code is code
