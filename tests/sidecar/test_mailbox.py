"""Mailboxes: first in, first out, and bounded both ways."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.mailbox import Mailbox, Sender, SharedRoom, Waiting

SENDER = Sender("agent://acme/x", "sl1", {}, 1)


def message(number: int, size: int = 4) -> Waiting:
    return Waiting(SENDER, [number.to_bytes(4, "big") + bytes(max(0, size - 4))], "")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(4, 3_000)),
            st.tuples(st.just("take"), st.integers(1, 4_000)),
        ),
        max_size=60,
    )
)
def test_messages_leave_in_the_order_in_which_they_came(steps: list[tuple[str, int]]) -> None:
    mailbox = Mailbox(messages_max=10, bytes_max=12_000)
    model: list[Waiting] = []
    for number, (what, value) in enumerate(steps):
        if what == "add":
            waiting = message(number, value)
            held = sum(one.held_bytes for one in model)
            fits = len(model) < 10 and held + waiting.held_bytes <= 12_000
            assert mailbox.add(waiting) == fits
            if fits:
                model.append(waiting)
        else:
            taken = mailbox.take(value)
            assert taken == model[: len(taken)]
            assert bool(taken) == bool(model)
            model = model[len(taken) :]
        assert len(mailbox) == len(model)
        assert list(mailbox) == model
        assert mailbox.held_bytes == sum(one.held_bytes for one in model)


def test_small_messages_are_counted_in_number_unless_somebody_reads() -> None:
    mailbox = Mailbox(messages_max=1, bytes_max=10_000)
    assert mailbox.add(message(1))
    assert not mailbox.add(message(2))

    assert mailbox.add(message(3), counted=False)


def test_all_mailboxes_of_a_sidecar_share_one_room() -> None:
    one, other = message(1), message(2)
    room = SharedRoom(bytes_max=one.held_bytes)
    first, second = Mailbox(shared=room), Mailbox(shared=room)
    assert first.add(one)
    assert not second.add(other)
    first.take(1)

    assert second.add(other)
    assert room.held_bytes == other.held_bytes


def test_at_least_one_message_is_taken_however_large_it_is() -> None:
    mailbox = Mailbox()
    mailbox.add(message(1, 5_000))
    mailbox.add(message(2, 5_000))

    assert len(mailbox.take(1)) == 1


def test_what_a_sender_adds_to_each_message_counts_when_messages_are_handed_over() -> None:
    mailbox = Mailbox()
    wordy = Sender("agent://acme/x", "sl1", {"role": "x" * 50_000}, 50_008)
    for _ in range(4):
        mailbox.add(Waiting(wordy, [b""], ""))

    assert len(mailbox.take(100_000)) == 2
