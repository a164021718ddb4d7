"""Targets of identity/signed_policy.py: a mandatory policy, taken apart and verified."""

from functools import cache
from typing import Any, Final

from identity import Code, IdentityError, SignedPolicy, cbor, decode_signed_policy_untrusted
from identity.cose import SignedType
from tests.fuzz.decoders import decoder, tree_of
from tests.fuzz.target import Target
from tests.fuzz.world import signed
from tests.identity.test_signed_policy import Domain, parts_of, payload_of


@cache
def _domain() -> Domain:
    return Domain()


@cache
def _policies() -> tuple[bytes, ...]:
    """The authority's, its signer's, and an older one."""
    domain = _domain()
    first = domain.issue()
    under = domain.issue_under(decode_signed_policy_untrusted(first))
    return first, under, domain.issue(number=7, files=[])


def _encode(read: SignedPolicy) -> bytes:
    parts = [read.mandate_message.encode(), read.authority_history.encode()]
    parts.append(read.bundle_message.encode())
    if not read.is_by_authority:
        parts.append(read.signer_history.encode())
    return cbor.encode(parts)


def _with_bundle(tree: Any) -> bytes:
    """A bundle of the tree's own, signed by nobody, under the authority's mandate."""
    mandate, history, _ = parts_of(_policies()[0])
    return cbor.encode([mandate, history, signed(SignedType.POLICY_BUNDLE)(tree)])


def _bundle_trees() -> list[Any]:
    return [
        cbor.decode_untrusted(payload_of(parts_of(encoded)[2]), bytes_max=4_096)
        for encoded in _policies()
    ]


def run_take(data: bytes) -> None:
    """What one policy makes of what is held. The first byte says how many bytes of the signer's are
    taken before the rest of the input."""
    domain = Domain(_domain().authority, _domain().signer)
    first, under, older = _policies()
    held = domain.hold(first)
    keep = data[0] if data else 0
    try:
        taken = domain.take(under[:keep] + data[1:])
    except IdentityError:
        assert domain.held == held
        raise
    assert taken is None or taken.number > held.number
    for encoded in (first, older):
        now = domain.held
        assert now is not None
        try:
            domain.take(encoded)
        except IdentityError as error:
            assert error.code is Code.POLICY_BUNDLE_OUTDATED  # noqa: PT017
        assert domain.held == now, "a policy made way for an older one"


_POLICY: Final = decoder(
    "identity.signed_policy",
    "a mandatory policy, taken apart",
    decode_signed_policy_untrusted,
    lambda: list(_policies()),
    error=IdentityError,
    encode=_encode,
)

TARGETS: Final[list[Target]] = [
    _POLICY,
    tree_of(_POLICY, trees=_bundle_trees, wrap=_with_bundle),
    Target(
        "identity.take_policy",
        "a mandatory policy, verified and held",
        run_take,
        lambda: [b"\0" + encoded for encoded in _policies()[:2]],
        IdentityError,
    ),
]
