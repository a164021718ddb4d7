"""Where the time goes, from py-spy's stacks."""

import pytest

from bench.messages.profile import top_places

LOOP = "run (node/program.py:38);run (uvloop/__init__.py:92)"

PLACES = {
    "a Python line of ours": (
        f"{LOOP};_flush (transport/endpoint.py:404)",
        "transport/endpoint.py",
    ),
    "a system call below Python": (
        f"{LOOP};send (transport/udp.py:142);sendmsg (libc.so.6)",
        "transport/udp.py > sendmsg",
    ),
    "a library below Python, wherever in it": (
        f"{LOOP};_call (qh3/quic/connection.py:881);0x7f (qh3/_hazmat.abi3.so);0x7e (libc.so.6)",
        "qh3/quic/connection.py > qh3/_hazmat.abi3.so",
    ),
    "something below Python without a name": (
        f"{LOOP};take (link/frames.py:90);0x7f34d3e4524a (libc.so.6)",
        "link/frames.py > libc.so.6",
    ),
    "nothing of Python at all": ("0x7f34d3e4524a (libc.so.6)", "no Python > libc.so.6"),
    "code without a file": (f"{LOOP};__init__ (<string>:2)", "<string>"),
}


@pytest.mark.parametrize("title", PLACES)
def test_a_sample_is_counted_where_it_was_taken(title: str) -> None:
    stack, place = PLACES[title]

    assert top_places([f"{stack} 3"]) == [(place, 1.0)]


def test_a_loop_that_waits_is_not_counted() -> None:
    waiting = f"{LOOP};uv_run (core.c:464);uv__io_poll (linux.c:1546);epoll_pwait (libc.so.6) 900"
    working = f"{LOOP};send (transport/udp.py:142) 100"

    assert top_places([waiting, working]) == [("transport/udp.py", 1.0)]


def test_samples_of_one_place_are_added_up_and_shares_are_of_all() -> None:
    stacks = [
        f"{LOOP};send (transport/udp.py:142) 1",
        f"{LOOP};send (transport/udp.py:150) 2",
        f"{LOOP};take (link/frames.py:90) 1",
    ]

    assert top_places(stacks) == [("transport/udp.py", 0.75), ("link/frames.py", 0.25)]
