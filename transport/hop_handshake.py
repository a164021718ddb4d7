"""Who is at the other end of a hop: three Noise messages, bound to the connection below.

The prologue holds the hash of the server's certificate and the channel binding, so a handshake
that somebody relays from one QUIC connection into another fails at its first message.
"""

import os
from collections.abc import Mapping
from typing import Final

from channel import ChannelError, Handshake, Prologue, Role
from channel.limits import HANDSHAKE_1_BYTES
from identity import Code, Identifier, SidelinkError, VerifiedPeer
from link import PROTOCOL_VERSION, HopHello
from link.limits import LINK_NONCE_BYTES
from link.messages import (
    decode_hop_hello_untrusted,
    decode_hop_reply_untrusted,
    encode_hop_hello,
    encode_hop_reply,
)
from transport.contract import HopIdentity, HopPurpose
from transport.errors import TransportError

# What a failed proof means on a hop. Whatever is not here is HOP_HANDSHAKE_FAILED.
HOP_CODES: Final[Mapping[Code, Code]] = {
    Code.CHANNEL_WRONG_AUTHORITY: Code.HOP_WRONG_AUTHORITY,
    Code.CHANNEL_REVOKED: Code.HOP_REVOKED,
    Code.CHANNEL_CREDENTIAL_EXPIRED: Code.HOP_CREDENTIAL_EXPIRED,
    Code.CHANNEL_SELF_CONNECTION: Code.HOP_SELF_CONNECTION,
    Code.CHANNEL_VERSION_UNSUPPORTED: Code.HOP_VERSION_UNSUPPORTED,
    Code.HOP_WRONG_IDENTIFIER: Code.HOP_WRONG_IDENTIFIER,
}


_PURPOSES: Final = frozenset(purpose.value for purpose in HopPurpose)


def connection_binding(
    certificate_hash: bytes | None, binding: bytes | None
) -> tuple[bytes, bytes]:
    """What ties a handshake to its connection. TransportError if the engine does not give it."""
    if certificate_hash is None:
        raise TransportError(Code.HOP_CERTIFICATE_MISSING, "no certificate was shown")
    if binding is None:
        raise TransportError(Code.HOP_BINDING_MISMATCH, "the engine gave no traffic secrets")
    return certificate_hash, binding


class DiallerHandshake:
    """Our side of a hop that we dialled."""

    def __init__(
        self,
        identity: HopIdentity,
        purpose: HopPurpose,
        target: Identifier | None,
        connection_binding: tuple[bytes, bytes],
    ) -> None:
        self._identity = identity
        self._target = target
        nonce = os.urandom(LINK_NONCE_BYTES)
        text = "" if target is None else str(target)
        prologue = Prologue(
            purpose="hop",
            target=text,
            nonce=nonce,
            extra=(purpose.value.encode(), *connection_binding),
        )
        self._handshake = Handshake(
            Role.INITIATOR, prologue, identity.key, identity.proof, identity.verify
        )
        self.hello = encode_hop_hello(
            HopHello(purpose.value, text, nonce, self._handshake.write_1())
        )

    def read_reply_untrusted(self, body: bytes) -> tuple[VerifiedPeer, bytes]:
        """Return the proved peer and the body of HOP_FINISH. Raises TransportError."""
        try:
            version, message = decode_hop_reply_untrusted(body)
            if version != PROTOCOL_VERSION:
                raise TransportError(Code.HOP_VERSION_UNSUPPORTED, f"version {version}")
            peer = self._handshake.read_2_untrusted(message)
            _check_peer(peer, self._identity, self._target)
            return peer, self._handshake.write_3()
        except SidelinkError as exc:
            raise _hop_error(exc) from exc


class AcceptorHandshake:
    """Our side of a hop that somebody dialled to us."""

    def __init__(self, identity: HopIdentity, connection_binding: tuple[bytes, bytes]) -> None:
        self._identity = identity
        self._binding = connection_binding
        self._handshake: Handshake | None = None
        self.purpose = HopPurpose.ADMIT

    def read_hello_untrusted(self, body: bytes) -> bytes:
        """Return the body of HOP_REPLY. Raises TransportError."""
        try:
            hello = decode_hop_hello_untrusted(body)
            if PROTOCOL_VERSION not in hello.versions:
                raise TransportError(Code.HOP_VERSION_UNSUPPORTED, f"offered {hello.versions}")
            if hello.purpose not in _PURPOSES:
                raise TransportError(Code.HOP_BAD_FRAME, "no such purpose")
            if hello.target and hello.target != str(self._identity.identifier):
                raise TransportError(Code.HOP_WRONG_IDENTIFIER, "the peer asked for another node")
            self.purpose = HopPurpose(hello.purpose)
            prologue = Prologue(
                purpose="hop",
                target=hello.target,
                nonce=hello.nonce,
                versions=hello.versions,
                version=PROTOCOL_VERSION,
                extra=(hello.purpose.encode(), *self._binding),
            )
            self._handshake = Handshake(
                Role.RESPONDER,
                prologue,
                self._identity.key,
                self._identity.proof,
                self._identity.verify,
            )
            self._read_1_untrusted(hello.noise_1)
            return encode_hop_reply(self._handshake.write_2())
        except (SidelinkError, ValueError) as exc:
            raise _hop_error(exc) from exc

    def read_finish_untrusted(self, body: bytes) -> VerifiedPeer:
        """Return the proved peer. Raises TransportError."""
        assert self._handshake is not None
        try:
            peer = self._handshake.read_3_untrusted(body)
            _check_peer(peer, self._identity, None)
        except SidelinkError as exc:
            raise _hop_error(exc) from exc
        return peer

    def _read_1_untrusted(self, message: bytes) -> None:
        # With a psk in the pattern, message 1 is sealed under its own public ephemeral key, with
        # the prologue authenticated. Anybody could make it, so a message of the right length that
        # does not open was made for another prologue: for another connection or certificate.
        assert self._handshake is not None
        try:
            self._handshake.read_1_untrusted(message)
        except ChannelError as exc:
            if exc.code is Code.CHANNEL_HANDSHAKE_FAILED and len(message) == HANDSHAKE_1_BYTES:
                detail = "the handshake was made for another connection"
                raise TransportError(Code.HOP_BINDING_MISMATCH, detail) from exc
            raise


def _check_peer(peer: VerifiedPeer, identity: HopIdentity, target: Identifier | None) -> None:
    if peer.identifier == identity.identifier:
        raise TransportError(Code.HOP_SELF_CONNECTION, "the peer is this node itself")
    if target is not None and peer.identifier != target:
        raise TransportError(Code.HOP_WRONG_IDENTIFIER, f"it is {peer.identifier}")


def _hop_error(error: SidelinkError | ValueError) -> TransportError:
    if isinstance(error, TransportError):
        return error
    if not isinstance(error, SidelinkError):
        return TransportError(Code.HOP_BAD_FRAME, str(error))
    if error.code is Code.HOP_BAD_FRAME:
        return TransportError(error.code, error.detail)
    code = HOP_CODES.get(error.code, Code.HOP_HANDSHAKE_FAILED)
    return TransportError(code, f"{error.code.text}: {error.detail}")
