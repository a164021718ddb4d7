"""Known answers: the bytes that the protocol document gives for one identity and one ticket."""

from identity import (
    ChangeHistory,
    GatewayAddress,
    Identifier,
    SignatureBudget,
    SigningKey,
    Ticket,
    create_history,
)

PAYLOAD = (
    "a4010002582003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    "041a713fb300051a77359400"
)
SIGNATURE = (
    "4d36125a103fd519e6a4050bf61770bfcaf20c8bee4c7964954028c715e7f8d4"
    "588eac150cd81f475696ddaccfe7ff5c6bbcc3c1336d1684acb29d3faabbaf09"
)
HISTORY = bytes.fromhex("81825832" + PAYLOAD + "5840" + SIGNATURE)
IDENTIFIER = "sl1k0rrt9vucw8e58fdutft0k3lsevhswtzjgmzch8z7r3csckf24cs2n8g5k"
TICKET = (
    "slt1pQFkYWNtZQJYIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBA4GDaTEyNy4wLjAuMRkdEFgg"
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIEUAAAAAAAAAAAAAAAAAAAAAAFGnE_swAdARnp"
)


def test_a_known_key_makes_the_known_history_and_identifier() -> None:
    key = SigningKey.from_private_bytes(bytes(range(32)))

    history = create_history(key, created_unix_s=1_900_000_000, expires_unix_s=2_000_000_000)

    assert history.encode() == HISTORY
    assert str(history.identifier) == IDENTIFIER


def test_the_known_history_verifies() -> None:
    history = ChangeHistory.decode_untrusted(HISTORY)

    history.verify_signatures(SignatureBudget())

    assert history.identifier == Identifier.parse(IDENTIFIER)


def test_the_known_ticket_reads_and_prints() -> None:
    gateway = GatewayAddress("127.0.0.1", 7440, Identifier(b"\x02" * 32))
    ticket = Ticket("acme", Identifier(b"\x01" * 32), (gateway,), bytes(16), 1_900_000_000)

    assert ticket.encode() == TICKET
    assert Ticket.parse_untrusted(TICKET) == ticket
