"""Keys: strict verification, and secrets that do not show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import IdentityError, MasterKey, NoiseKey, NoisePublicKey, SigningKey, VerifyKey
from identity.keys import _SMALL_ORDER_Y
from tests.identity.helpers import flip_bit

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19


@given(st.integers(0, 511))
def test_a_signature_with_one_bit_flipped_is_refused(bit: int) -> None:
    key = SigningKey.from_private_bytes(bytes(range(32)))
    signature = key.sign(b"what was said")

    key.verify_key.verify(signature, b"what was said")
    with pytest.raises(IdentityError):
        key.verify_key.verify(flip_bit(signature, bit), b"what was said")


def test_a_signature_moved_by_the_group_order_is_refused() -> None:
    key = SigningKey.generate()
    signature = key.sign(b"what was said")
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER

    with pytest.raises(IdentityError):
        key.verify_key.verify(signature[:32] + scalar.to_bytes(32, "little"), b"what was said")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_what_is_not_a_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(IdentityError):
        SigningKey.generate().verify_key.verify(signature, b"x")


def point_order(y: int) -> int:
    """The order of a point of edwards25519, up to 8; 0 when it is more, or no point."""
    d = -121665 * pow(121666, -1, FIELD) % FIELD
    x_squared = (y * y - 1) * pow(d * y * y + 1, -1, FIELD) % FIELD
    root = pow(x_squared, (FIELD + 3) // 8, FIELD)
    if root * root % FIELD != x_squared:
        root = root * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    if root * root % FIELD != x_squared:
        return 0
    point, order = (root, y), 1
    while point != (0, 1) and order <= 8:
        (x1, y1), (x2, y2) = point, (root, y)
        product = d * x1 * x2 * y1 * y2 % FIELD
        point = (
            (x1 * y2 + x2 * y1) * pow(1 + product, -1, FIELD) % FIELD,
            (y1 * y2 + x1 * x2) * pow(1 - product, -1, FIELD) % FIELD,
        )
        order += 1
    return order if order <= 8 else 0


def test_the_list_of_small_points_holds_all_of_them() -> None:
    # Orders 1, 2, 4 (two points, one y) and 8 (four points, two y): eight points in all.
    assert sorted(point_order(y) for y in _SMALL_ORDER_Y) == [1, 2, 4, 8, 8]


@pytest.mark.parametrize("y", sorted(_SMALL_ORDER_Y))
@pytest.mark.parametrize("sign", [0, 1])
def test_a_key_for_which_anybody_can_sign_is_refused(y: int, sign: int) -> None:
    with pytest.raises(IdentityError):
        VerifyKey((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("y", [FIELD, FIELD + 3, 2**255 - 1])
def test_a_second_spelling_of_a_key_is_refused(y: int) -> None:
    with pytest.raises(IdentityError):
        VerifyKey(y.to_bytes(32, "little"))


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33), bytearray(b"\x09" * 32), None])
def test_a_key_of_another_length_or_type_is_refused(raw: bytes) -> None:
    with pytest.raises(IdentityError):
        VerifyKey(raw)
    with pytest.raises(IdentityError):
        NoisePublicKey(raw)


@pytest.mark.parametrize("kind", [SigningKey, NoiseKey])
def test_a_private_key_does_not_show_in_its_repr(kind: type[SigningKey] | type[NoiseKey]) -> None:
    key = kind.generate()
    secret = key.private_bytes()

    assert secret.hex()[:8] not in repr(key)
    assert repr(secret) not in repr(key)
    assert kind.from_private_bytes(secret).private_bytes() == secret


def test_a_master_key_does_not_show_in_its_repr() -> None:
    assert repr(MasterKey(b"\x61" * 32)) == "MasterKey()"
