"""aioquic behind ``transport.engine``. The only importer of aioquic. The reference engine."""

import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic import events
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch
from cryptography.hazmat.primitives.serialization import Encoding

from identity import Code
from transport import limits
from transport.certificate import ThrowAwayCertificate
from transport.engine import (
    Connected,
    ConnectionIdIssued,
    ConnectionIdRetired,
    EngineConnection,
    EngineEvent,
    Flow,
    PingAnswered,
    StreamReset,
    Terminated,
)
from transport.engine_events import gather_events
from transport.errors import TransportError
from transport.path import Address, PathPlan
from transport.settings import TransportSettings
from transport.traffic_secrets import TrafficSecrets

_TRANSPORT_PARAMETERS_BYTES_MAX: Final = 1_024


class _SizedConnection(QuicConnection):
    """Heeds and tells the size of datagrams, as aioquic does not.

    The handshake of TLS uses the smallest, which every path carries: aioquic pads each Initial to
    the largest, and where that gets lost nobody would learn that anybody is there.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        original_id: bytes | None = None,
        retry_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        self._full_datagram_bytes = configuration.max_datagram_size
        self._max_datagram_size = SMALLEST_MAX_DATAGRAM_SIZE

    def grow(self) -> None:
        """Use what both sides take, from now on."""
        size = self._full_datagram_bytes
        self._max_datagram_size = size
        self._loss._pacer._max_datagram_size = size
        self._loss._cc._max_datagram_size = size  # type: ignore[attr-defined]

    def check_gaps(self) -> None:
        """Raise TransportError when the peer leaves too many holes in what it says.

        aioquic walks through all of them for each frame, of streams and of TLS.
        """
        gaps = 0
        for stream in (*self._streams.values(), *self._crypto_streams.values()):
            gaps += len(stream.receiver._ranges)
        if gaps > limits.GAPS_MAX:
            raise TransportError(Code.HOP_LIMIT_EXCEEDED, "too many gaps in what it says")

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        # aioquic doubles its windows as bytes arrive, in order or not: after a gigabyte a peer may
        # make it hold another one. Ours follow what was delivered, and keep their size.
        limit = self._local_max_data
        window_bytes = self._configuration.max_data
        if limit.value - limit.used < window_bytes // 2:
            held_bytes = sum(_held_bytes(stream) for stream in self._streams.values())
            wanted = limit.used - held_bytes + window_bytes
            if wanted - limit.value >= window_bytes // 4:
                limit.value = wanted
        used, limit.used = limit.used, 0  # What aioquic sees does not make it double anything.
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        receiver = stream.receiver
        window_bytes = self._configuration.max_stream_data
        wanted = receiver.starting_offset() + window_bytes
        if stream.max_stream_data_local and (
            wanted - stream.max_stream_data_local >= window_bytes // 2
        ):
            stream.max_stream_data_local = wanted
        highest, receiver.highest_offset = receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            receiver.highest_offset = highest

    def _serialize_transport_parameters(self) -> bytes:
        parameters = pull_quic_transport_parameters(
            Buffer(data=super()._serialize_transport_parameters())
        )
        parameters.max_udp_payload_size = self._configuration.max_datagram_size
        buffer = Buffer(capacity=_TRANSPORT_PARAMETERS_BYTES_MAX)
        push_quic_transport_parameters(buffer, parameters)
        return bytes(buffer.data)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        taken_bytes = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if taken_bytes is not None:  # Checked: no smaller than the smallest.
            self._full_datagram_bytes = min(self._full_datagram_bytes, taken_bytes)


def _held_bytes(stream: QuicStream) -> int:
    """What lies between what was delivered and the farthest that came."""
    receiver = stream.receiver
    return 0 if receiver.is_finished else receiver.highest_offset - receiver.starting_offset()


class AioquicConnection:
    """One connection of aioquic."""

    def __init__(self, connection: _SizedConnection, secrets: TrafficSecrets) -> None:
        self._connection = connection
        self._secrets = secrets
        self._ping = 0
        self._key_ping: int | None = None  # Its acknowledgement confirms the last key update.
        self._blocked_resets: dict[int, int] = {}

    @property
    def connection_id(self) -> bytes:
        return self._connection.host_cid

    @property
    def post_quantum(self) -> bool | None:
        return False  # aioquic offers no hybrid key exchange.

    def connect(self, address: Address, now_s: float) -> None:
        self._connection.connect(address, now=now_s)

    @property
    def peer_address(self) -> Address | None:
        address: Address | None = self._connection.get_peer_address()
        return address

    def receive(self, data: bytes, segment_bytes: int, address: Address, now_s: float) -> None:
        if not segment_bytes:
            segment_bytes = len(data)
        for start in range(0, len(data), segment_bytes):
            self._connection.receive_datagram(data[start : start + segment_bytes], address, now_s)
            self._connection.check_gaps()

    def take_events(self) -> Sequence[EngineEvent]:
        return gather_events(
            self._connection.next_event, events.StreamDataReceived, self._translate
        )

    def take_datagrams(self, now_s: float) -> Sequence[tuple[bytes, Address]]:
        if self.peer_address is None:
            return ()  # A server that has read no Initial yet; aioquic would raise.
        for stream in list(self._blocked_resets):
            self.reset_stream(stream, self._blocked_resets.pop(stream))
        return self._connection.datagrams_to_send(now_s)

    @property
    def deadline_s(self) -> float | None:
        return self._connection.get_timer()

    def handle_deadline(self, now_s: float) -> None:
        self._connection.handle_timer(now_s)

    def open_stream(self) -> int:
        stream = self._connection.get_next_available_stream_id()
        # Writing nothing makes the stream without a word to the peer: aioquic refuses to make
        # streams in another order than that of their numbers.
        self._connection.send_stream_data(stream, b"")
        return stream

    def send_stream(self, stream: int, data: bytes, end: bool) -> None:
        self._connection.send_stream_data(stream, data, end)

    def reset_stream(self, stream: int, code: int) -> None:
        found = self._connection._streams.get(stream)
        if found is not None and found.is_blocked:
            # aioquic would say RESET_STREAM beyond the peer's limit, and lose the connection.
            self._blocked_resets[stream] = code
            return
        # Stopping goes first: a reset may finish the stream, and then it is unknown.
        if stream in self._connection._streams:
            self._connection.stop_stream(stream, code)
        self._connection.reset_stream(stream, code)

    def stream_queued_bytes(self, stream: int) -> int:
        found = self._connection._streams.get(stream)
        # There is no public measure; the buffer holds what is not acknowledged yet.
        return 0 if found is None else len(found.sender._buffer)

    def flow(self) -> Flow:
        queued_bytes = 0
        for stream in self._connection._streams.values():
            sender = stream.sender
            queued_bytes += sender._buffer_stop - sender.highest_offset
        recovery = self._connection._loss
        return Flow(
            recovery.congestion_window,
            recovery.bytes_in_flight,
            queued_bytes,
            recovery._rtt_latest,
        )

    def ping(self) -> int:
        self._ping += 1
        self._connection.send_ping(self._ping)
        return self._ping

    @property
    def key_phase(self) -> int | None:
        keys = self._connection._cryptos.get(Epoch.ONE_RTT)
        return None if keys is None or not keys.send.is_valid() else keys.key_phase

    def renew_keys(self) -> bool:
        # aioquic itself would change keys again before the peer has followed (RFC 9001, 6.1).
        if not self._connection._handshake_confirmed or self._key_ping is not None:
            return False
        self._connection.request_key_update()
        self._key_ping = self.ping()  # Leaves under the new keys.
        return True

    def close(self, code: int) -> None:
        self._connection.close(error_code=code)

    def peer_certificate_hash(self) -> bytes | None:
        certificate = self._connection.tls._peer_certificate
        if certificate is None:
            return None
        return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()

    def take_binding(self) -> bytes | None:
        return self._secrets.take_binding()

    def wipe(self) -> None:
        self._secrets.wipe()

    def _translate(self, event: events.QuicEvent) -> EngineEvent | None:
        match event:
            case events.HandshakeCompleted():
                self._connection.grow()
                return Connected(event.alpn_protocol)
            case events.StreamReset() | events.StopSendingReceived():
                return StreamReset(event.stream_id, event.error_code)
            case events.ConnectionIdIssued():
                return ConnectionIdIssued(event.connection_id)
            case events.ConnectionIdRetired():
                return ConnectionIdRetired(event.connection_id)
            case events.PingAcknowledged():
                if event.uid == self._key_ping:
                    self._key_ping = None
                return PingAnswered(event.uid)
            case events.ConnectionTerminated():
                return Terminated(event.error_code, event.frame_type is None, event.reason_phrase)
        return None


class AioquicEngine:
    """Makes connections that share one certificate. No tickets, so no resumption and no 0-RTT."""

    name = "aioquic"

    def __init__(self, certificate: ThrowAwayCertificate, settings: TransportSettings) -> None:
        self._client = QuicConfiguration(
            is_client=True,
            alpn_protocols=[limits.ALPN],
            connection_id_length=limits.CONNECTION_ID_BYTES,
            idle_timeout=settings.idle_timeout_s,
            max_data=limits.CONNECTION_WINDOW_BYTES,
            max_stream_data=limits.STREAM_WINDOW_BYTES,
            supported_versions=[limits.QUIC_VERSION],
            verify_mode=ssl.CERT_NONE,
        )
        self._server = replace(
            self._client,
            is_client=False,
            certificate=certificate.certificate,
            private_key=certificate.key,
        )

    def dial(self, plan: PathPlan) -> EngineConnection:
        secrets = TrafficSecrets()
        configuration = replace(
            self._client,
            max_datagram_size=plan.datagram_bytes,
            secrets_log_file=secrets,  # type: ignore[arg-type]
        )
        return AioquicConnection(_SizedConnection(configuration), secrets)

    def accept(self, *, original_id: bytes, retry_id: bytes, plan: PathPlan) -> EngineConnection:
        secrets = TrafficSecrets()
        configuration = replace(
            self._server,
            max_datagram_size=plan.datagram_bytes,
            secrets_log_file=secrets,  # type: ignore[arg-type]
        )
        connection = _SizedConnection(configuration, original_id=original_id, retry_id=retry_id)
        return AioquicConnection(connection, secrets)
