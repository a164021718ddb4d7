"""Fixtures of the transport's tests."""

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """A socket that says what an endpoint does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock
