"""qh3 behind ``transport.engine``. The only importer of qh3. The default: its packet core is Rust.

A panic in the Rust part is no ``Exception``; the caller catches it with everything else.
"""

import hashlib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from qh3._hazmat import Buffer
from qh3.quic import connection as qh3_connection
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from qh3.quic.tls_bridge import QuicTlsBridge

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
from transport.path import Address, PathPlan
from transport.settings import TransportSettings
from transport.traffic_secrets import TrafficSecrets

_TRANSPORT_PARAMETERS_BYTES_MAX: Final = 1_024
_CLOSED_REASON: Final = "connection is closed"


class _OpenBridge(QuicTlsBridge):
    """Tells the peer to send no larger datagrams than we do: a path is as narrow either way. By
    itself qh3 says, as browsers do, 1,472 bytes, whatever is set and the path carries."""

    def serialize_transport_parameters(self) -> bytes:
        parameters = pull_quic_transport_parameters(
            Buffer(data=super().serialize_transport_parameters())
        )
        parameters.max_udp_payload_size = self.configuration.max_datagram_size
        buffer = Buffer(capacity=_TRANSPORT_PARAMETERS_BYTES_MAX)
        push_quic_transport_parameters(buffer, parameters)
        return bytes(buffer.data)


# The connection makes its bridge by this name; there is no other way in.
qh3_connection.QuicTlsBridge = _OpenBridge  # type: ignore[attr-defined]


class _QuietConnection(QuicConnection):
    """Without the parsing of every packet for a log that nobody keeps: 8 % of a relay's time."""

    def _log_packets(self, event: str, data: bytes) -> None:
        if self._quic_logger is not None:
            super()._log_packets(event, data)


@contextmanager
def _closed_is_no_failure() -> Iterator[None]:
    """A peer may close in the very read that we answer: qh3 raises then, and tells of it later."""
    try:
        yield
    except QuicConnectionError as error:
        if error.reason_phrase != _CLOSED_REASON:
            raise


class _WatchedHybrid:
    """Notes whether TLS came to use the hybrid key share that the client offered."""

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange
        self.used = False

    def exchange(self, peer_public_key: bytes) -> bytes:
        self.used = True
        shared: bytes = self._exchange.exchange(peer_public_key)
        return shared


class Qh3Connection:
    """One connection of qh3."""

    def __init__(self, connection: QuicConnection, secrets: TrafficSecrets) -> None:
        self._connection = connection
        self._secrets = secrets
        self._is_client = connection.configuration.is_client
        self._next_stream = 0 if self._is_client else 1
        self._ping = 0
        self._connected = False
        self._hybrid: _WatchedHybrid | None = None
        # Writes to streams that the peer does not allow yet: qh3 raises where aioquic waits.
        self._blocked: dict[int, list[tuple[bytes, bool]]] = {}
        self._blocked_resets: dict[int, int] = {}

    @property
    def connection_id(self) -> bytes:
        return self._connection.host_cid

    @property
    def post_quantum(self) -> bool | None:
        if not self._connected:
            return None
        if self._is_client:
            return None if self._hybrid is None else self._hybrid.used
        # A server makes the hybrid's key pair only after it has chosen that group.
        return getattr(self._connection.tls, "_x25519_kyber_768_private_key", None) is not None

    def connect(self, address: Address, now_s: float) -> None:
        self._connection.connect(address, now_s)
        self._watch_hybrid()

    @property
    def peer_address(self) -> Address | None:
        core: Any = self._connection._core
        if core is None:
            return None
        host, port = core.active_path[2][:2]
        return host, port

    def receive(self, data: bytes, segment_bytes: int, address: Address, now_s: float) -> None:
        if segment_bytes and segment_bytes < len(data):
            self._connection.receive_gro_buffer(data, segment_bytes, address, now_s)
        else:
            self._connection.receive_datagram(data, address, now_s)
        if self._is_client and not self._connected:
            self._watch_hybrid()

    def take_events(self) -> Sequence[EngineEvent]:
        return gather_events(
            self._connection.next_event, events.StreamDataReceived, self._translate
        )

    def take_datagrams(self, now_s: float) -> Sequence[tuple[bytes, Address]]:
        if self._blocked or self._blocked_resets:
            self._send_blocked()
        return self._connection.datagrams_to_send(now_s)

    @property
    def deadline_s(self) -> float | None:
        return self._connection.get_timer()

    def handle_deadline(self, now_s: float) -> None:
        self._connection.handle_timer(now_s)

    def open_stream(self) -> int:
        stream = self._next_stream
        self._next_stream += 4
        return stream

    def send_stream(self, stream: int, data: bytes, end: bool) -> None:
        if stream in self._blocked or self._is_beyond_limit(stream):
            self._blocked.setdefault(stream, []).append((data, end))
        else:
            with _closed_is_no_failure():
                self._connection.send_stream_data(stream, data, end)

    def reset_stream(self, stream: int, code: int) -> None:
        if self._blocked.pop(stream, None) is not None or self._is_beyond_limit(stream):
            # Later streams bring this one to life at the peer: it must hear of the end as well.
            self._blocked_resets[stream] = code
            return
        with _closed_is_no_failure():
            self._connection.reset_stream(stream, code)
            self._connection.stop_stream(stream, code)

    def stream_queued_bytes(self, stream: int) -> int:
        if stream in self._blocked:
            return sum(len(data) for data, _ in self._blocked[stream])
        return self._connection.get_send_buffer_size(stream)

    def flow(self) -> Flow:
        core: Any = self._connection._core
        queued_bytes = self._connection.get_send_buffer_size()
        window_bytes = getattr(core, "congestion_window", None)
        if window_bytes is None:  # A private name: without it the queue has a fixed length.
            return Flow(limits.SEND_QUEUE_BYTES, 0, queued_bytes, 0.0)
        return Flow(window_bytes, core.bytes_in_flight, queued_bytes, core.latest_rtt or 0.0)

    def ping(self) -> int:
        self._ping += 1
        self._connection.send_ping(self._ping)
        return self._ping

    @property
    def key_phase(self) -> int | None:
        core: Any = self._connection._core
        return None if core is None else core.send_key_phase

    def renew_keys(self) -> bool:
        if not self._connection._handshake_confirmed:
            return False
        try:
            self._connection.request_key_update()
        except ValueError:
            return False  # "invalid key phase": the peer has not followed the last update yet.
        return True

    def close(self, code: int) -> None:
        self._connection.close(error_code=code)

    def peer_certificate_hash(self) -> bytes | None:
        certificate = self._connection.get_peercert()
        if certificate is None:
            return None
        return hashlib.sha256(bytes(certificate.public_bytes())).digest()

    def take_binding(self) -> bytes | None:
        return self._secrets.take_binding()

    def wipe(self) -> None:
        self._secrets.wipe()

    def _is_beyond_limit(self, stream: int) -> bool:
        is_ours = (stream & 1 == 0) == self._is_client
        return is_ours and stream // 4 >= self._connection.max_concurrent_bidi_streams

    def _send_blocked(self) -> None:
        for stream in sorted(self._blocked):
            if self._is_beyond_limit(stream):
                break
            for data, end in self._blocked.pop(stream):
                self._connection.send_stream_data(stream, data, end)
        for stream in sorted(self._blocked_resets):
            if self._is_beyond_limit(stream):
                break
            self.reset_stream(stream, self._blocked_resets.pop(stream))

    def _watch_hybrid(self) -> None:
        # A Retry starts TLS again, so this looks afresh after each datagram of the handshake.
        # The name is private: where it is missing the answer is "not known", never a guess.
        context: Any = self._connection.tls
        exchange = getattr(context, "_x25519_kyber_768_private_key", None)
        if exchange is not None and not isinstance(exchange, _WatchedHybrid):
            self._hybrid = _WatchedHybrid(exchange)
            context._x25519_kyber_768_private_key = self._hybrid

    def _translate(self, event: events.QuicEvent) -> EngineEvent | None:
        match event:
            case events.HandshakeCompleted():
                self._connected = True
                return Connected(event.alpn_protocol)
            case events.StreamReset() | events.StopSendingReceived():
                return StreamReset(event.stream_id, event.error_code)
            case events.ConnectionIdIssued():
                return ConnectionIdIssued(event.connection_id)
            case events.ConnectionIdRetired():
                return ConnectionIdRetired(event.connection_id)
            case events.PingAcknowledged():
                return PingAnswered(event.uid)
            case events.ConnectionTerminated():
                return Terminated(event.error_code, event.frame_type is None, event.reason_phrase)
        return None


class Qh3Engine:
    """Makes connections that share one certificate. No tickets, so no resumption and no 0-RTT."""

    name = "qh3"

    def __init__(self, certificate: ThrowAwayCertificate, settings: TransportSettings) -> None:
        self._client = QuicConfiguration(
            is_client=True,
            alpn_protocols=[limits.ALPN],
            connection_id_length=limits.CONNECTION_ID_BYTES,
            idle_timeout=settings.idle_timeout_s,
            initial_rtt=0.1,
            max_data=limits.CONNECTION_WINDOW_BYTES,
            max_stream_data=limits.STREAM_WINDOW_BYTES,
            supported_versions=[limits.QUIC_VERSION],
            verify_mode=ssl.CERT_NONE,
            verify_hostname=False,
        )
        self._server = replace(self._client, is_client=False)
        self._server.load_cert_chain(certificate.certificate_pem(), certificate.key_pem())
        # The native cryptography takes about 40 ms to start. Paid here, when the socket is bound,
        # and not by the first hop: a first flight that is never sent.
        _QuietConnection(configuration=self._client).connect(("127.0.0.1", 9), 0.0)

    def dial(self, plan: PathPlan) -> EngineConnection:
        secrets = TrafficSecrets()
        configuration = replace(
            self._client,
            max_datagram_size=plan.datagram_bytes,
            probe_datagram_size=plan.is_guessed,
            secrets_log_file=secrets,  # type: ignore[arg-type]
        )
        return Qh3Connection(_QuietConnection(configuration=configuration), secrets)

    def accept(self, *, original_id: bytes, retry_id: bytes, plan: PathPlan) -> EngineConnection:
        secrets = TrafficSecrets()
        configuration = replace(
            self._server,
            max_datagram_size=plan.datagram_bytes,
            secrets_log_file=secrets,  # type: ignore[arg-type]
        )
        connection = _QuietConnection(
            configuration=configuration,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        return Qh3Connection(connection, secrets)
