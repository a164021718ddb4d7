"""The key-log sink of one connection: kept in memory for the channel binding, then wiped.

A TLS exporter would do better, but neither engine has one. Both write the same 1-RTT traffic
secrets to their key log, so a hash over those binds the hop's handshake to this very connection.
"""

import hashlib
import hmac
from typing import Final

_CLIENT: Final = "CLIENT_TRAFFIC_SECRET_0"
_SERVER: Final = "SERVER_TRAFFIC_SECRET_0"
_LABEL: Final = b"sidelink hop binding"


class TrafficSecrets:
    """A text sink, as the engines' ``secrets_log_file`` wants it, that forgets all it can."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytearray] = {}

    def __repr__(self) -> str:
        return "TrafficSecrets(…)"

    def write(self, line: str) -> int:
        """Take one line of the NSS key-log format: label, client random, secret."""
        fields = line.split()
        # The first value stays: a later key update must not change what both sides bound to.
        if len(fields) == 3 and fields[0] in (_CLIENT, _SERVER) and fields[0] not in self._secrets:
            self._secrets[fields[0]] = bytearray.fromhex(fields[2])
        return len(line)

    def flush(self) -> None:
        """Nothing is written anywhere."""

    def take_binding(self) -> bytes | None:
        """Return the channel binding and forget the secrets; None before the handshake is done."""
        client, server = self._secrets.get(_CLIENT), self._secrets.get(_SERVER)
        if not client or not server:
            return None
        binding = hmac.new(client, _LABEL + server, hashlib.sha256).digest()
        self.wipe()
        return binding

    def wipe(self) -> None:
        """Overwrite and drop the secrets. The engine still holds its own copies."""
        for secret in self._secrets.values():
            for index in range(len(secret)):
                secret[index] = 0
            secret.clear()
