"""The keys of one token issuer: loaded when needed, kept for a while, and kept longer while their
source fails."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from authority.fetch import fetch
from authority.jose import (
    KEYS_BYTES_MAX,
    IssuerKey,
    Token,
    find_key,
    keys_unavailable,
    read_keys_untrusted,
)
from identity import Code, SidelinkError
from node.clocks import Clock
from node.workload_settings import WorkloadSettings

KEYS_FRESH_SECONDS: Final = 300.0
KEYS_KEPT_SECONDS_MAX: Final = 3_600.0
REFRESH_SECONDS_MIN: Final = 10.0

assert REFRESH_SECONDS_MIN < KEYS_FRESH_SECONDS < KEYS_KEPT_SECONDS_MAX

LoadKeys = Callable[[], Awaitable[bytes]]

_log = structlog.get_logger("authority.keys")


class KeySet:
    """One issuer's keys. Strangers decide when they are asked for, so their source is asked at
    most every ten seconds, and by one of them for all."""

    def __init__(self, issuer: str, load: LoadKeys, clock: Clock) -> None:
        self._issuer = issuer
        self._load = load
        self._clock = clock
        self._keys: tuple[IssuerKey, ...] = ()
        self._loaded_s: float | None = None
        self._may_load_s = clock.now_s()
        self._loading: asyncio.Task[bool] | None = None

    async def key_for_untrusted(self, token: Token) -> IssuerKey:
        """The key that a token names. Raises SidelinkError: enrol.token_invalid for one that the
        issuer does not have, enrol.keys_unavailable while that cannot be known."""
        is_new = self._age_s() >= KEYS_FRESH_SECONDS and await self._refresh()
        if self._age_s() >= KEYS_KEPT_SECONDS_MAX:
            raise keys_unavailable(f"the keys of {self._issuer} could not be loaded")
        key = find_key(self._keys, token)
        if key is None and not is_new:
            # Issuers replace their keys: one that is not known may be new.
            is_new = await self._refresh()
            key = find_key(self._keys, token)
        if key is not None:
            return key
        if not is_new:
            raise keys_unavailable(f"{self._issuer} was asked for its keys a moment ago")
        raise SidelinkError(Code.ENROL_TOKEN_INVALID, "its key is none of its issuer's")

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    def _age_s(self) -> float:
        return float("inf") if self._loaded_s is None else self._clock.now_s() - self._loaded_s

    async def _refresh(self) -> bool:
        """Load, or wait for whoever loads. False when that failed, now or a moment ago."""
        if self._loading is None:
            now_s = self._clock.now_s()
            if now_s < self._may_load_s:
                return False
            self._may_load_s = now_s + REFRESH_SECONDS_MIN
            self._loading = asyncio.create_task(self._load_once())
        # Others wait for it too: it goes on when one of them does not.
        return await asyncio.shield(self._loading)

    async def _load_once(self) -> bool:
        try:
            self._keys = read_keys_untrusted(await self._load())
        except SidelinkError as error:
            _log.warning("keys_not_loaded", issuer=self._issuer, why=error.detail)
            return False
        finally:
            self._loading = None
        self._loaded_s = self._clock.now_s()
        return True


def key_set_of(settings: WorkloadSettings, clock: Clock) -> KeySet:
    """The keys of a workload, from its file or its URL."""

    async def load() -> bytes:
        if settings.jwks_file is not None:
            return await asyncio.to_thread(_read_file, settings.jwks_file)
        assert settings.jwks_url is not None, "a workload has one of the two"
        return await fetch(
            settings.jwks_url,
            bytes_max=KEYS_BYTES_MAX,
            ca_file=settings.ca_file,
            allow_private_network=settings.allow_private_network,
        )

    return KeySet(settings.issuer, load, clock)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(KEYS_BYTES_MAX + 1)
    except OSError as error:
        raise keys_unavailable(f"{path}: {error.strerror}") from None
