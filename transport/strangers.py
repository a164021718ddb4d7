"""Datagrams that belong to no connection: answered without keeping anything, or dropped.

What a stranger sends costs no state until its address has proved itself by a Retry token of ours.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from transport import limits, retry
from transport.counters import EndpointCounters
from transport.errors import DatagramError
from transport.path import Address
from transport.settings import TransportSettings

Send = Callable[[list[tuple[bytes, Address]], bytes | None], None]


@dataclass(frozen=True, slots=True)
class Opening:
    """A first datagram whose sender has proved its address."""

    retry_id: bytes
    original_id: bytes


class Strangers:
    """Retry and Version Negotiation, in the order of the table in docs/protocol.md."""

    def __init__(self, settings: TransportSettings, counters: EndpointCounters, send: Send) -> None:
        self._tokens = retry.RetryTokens(lifetime_s=settings.retry_lifetime_s)
        self._counters = counters
        self._send = send

    def answer(
        self,
        header: retry.LongHeader,
        size: int,
        source: Address,
        local: bytes | None,
        now_s: float,
    ) -> Opening | None:
        """Return what may become a connection; None if the datagram was answered or dropped."""
        counters = self._counters
        if header.version == 0:
            counters.dropped_unknown += 1
        elif size < limits.INITIAL_DATAGRAM_BYTES_MIN:
            counters.dropped_malformed += 1
        elif header.version != limits.QUIC_VERSION:
            counters.versions_sent += 1
            self._send([(retry.encode_version_negotiation(header), source)], local)
        elif not header.is_initial:
            counters.dropped_unknown += 1
        elif len(header.destination_id) < retry.ORIGINAL_ID_BYTES_MIN:
            counters.dropped_malformed += 1
        elif not header.token:
            self._send([(self._make_retry(header, source, now_s), source)], local)
        else:
            return self._check(header, source, now_s)
        return None

    def _make_retry(self, header: retry.LongHeader, source: Address, now_s: float) -> bytes:
        retry_id = os.urandom(limits.CONNECTION_ID_BYTES)
        token = self._tokens.encode(
            source, original_id=header.destination_id, retry_id=retry_id, now_s=now_s
        )
        self._counters.retries_sent += 1
        return retry.encode_retry(header, retry_id, token)

    def _check(self, header: retry.LongHeader, source: Address, now_s: float) -> Opening | None:
        retry_id = header.destination_id
        try:
            original_id = self._tokens.decode_untrusted(
                header.token, source, retry_id=retry_id, now_s=now_s
            )
        except DatagramError:
            self._counters.dropped_token += 1
            return None
        return Opening(retry_id, original_id)
