"""Key sets: kept while good, kept longer while their source fails, never asked for in a loop."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from authority.jose import KEYS_BYTES_MAX, Token
from authority.keysets import (
    KEYS_FRESH_SECONDS,
    KEYS_KEPT_SECONDS_MAX,
    REFRESH_SECONDS_MIN,
    KeySet,
    key_set_of,
)
from identity import Code, SidelinkError
from node.clocks import ManualClock
from tests.authority.tokens import EC_KEY, ED_KEY, jwk, jwks, kind, token

BY_EC, BY_ED = Token.parse_untrusted(token(by="ec")), Token.parse_untrusted(token(by="ed"))


class Source:
    """Where keys come from. It counts, and may fail or take its time."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.data = jwks(jwk(EC_KEY, "ec"))
        self.fails = False
        self.loads = 0
        self.gate: asyncio.Event | None = None
        self.keys = KeySet("issuer", self._load, self.clock)

    async def _load(self) -> bytes:
        self.loads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise SidelinkError(Code.ENROL_KEYS_UNAVAILABLE, "for the test")
        return self.data

    async def code_for(self, wanted: Token) -> Code | None:
        try:
            async with asyncio.timeout(5):
                await self.keys.key_for_untrusted(wanted)
        except SidelinkError as error:
            return error.code
        return None


@pytest.fixture
async def source() -> Source:
    return Source()


async def test_keys_are_loaded_once_while_they_are_fresh(source: Source) -> None:
    for _ in range(3):
        assert await source.code_for(BY_EC) is None
        source.clock.advance(KEYS_FRESH_SECONDS / 4)

    assert source.loads == 1
    source.clock.advance(KEYS_FRESH_SECONDS)
    assert await source.code_for(BY_EC) is None
    assert source.loads == 2


async def test_a_new_key_is_found_though_the_known_ones_are_fresh(source: Source) -> None:
    await source.code_for(BY_EC)
    source.clock.advance(REFRESH_SECONDS_MIN)
    source.data = jwks(jwk(EC_KEY, "ec"), jwk(ED_KEY, "ed"))

    assert await source.code_for(BY_ED) is None


async def test_a_key_that_the_issuer_has_not_is_a_fault_of_the_token(source: Source) -> None:
    assert await source.code_for(BY_ED) is Code.ENROL_TOKEN_INVALID


async def test_strangers_cannot_have_the_source_asked_in_a_loop(source: Source) -> None:
    await source.code_for(BY_EC)
    for _ in range(100):
        # Whether the key is new cannot be known yet, so a node may try again.
        assert await source.code_for(BY_ED) is Code.ENROL_KEYS_UNAVAILABLE
        source.clock.advance(REFRESH_SECONDS_MIN / 101)
    assert source.loads == 1

    source.clock.advance(REFRESH_SECONDS_MIN)
    assert await source.code_for(BY_ED) is Code.ENROL_TOKEN_INVALID
    assert source.loads == 2


async def test_keys_are_kept_while_their_source_fails_for_so_long_and_no_longer(
    source: Source,
) -> None:
    await source.code_for(BY_EC)
    source.fails = True
    source.clock.advance(KEYS_KEPT_SECONDS_MAX - 1)
    assert await source.code_for(BY_EC) is None
    assert await source.code_for(BY_ED) is Code.ENROL_KEYS_UNAVAILABLE
    source.clock.advance(REFRESH_SECONDS_MIN)
    assert await source.code_for(BY_EC) is Code.ENROL_KEYS_UNAVAILABLE

    source.fails = False
    source.clock.advance(REFRESH_SECONDS_MIN)
    assert await source.code_for(BY_EC) is None


async def test_a_source_that_serves_garbage_is_one_that_fails(source: Source) -> None:
    await source.code_for(BY_EC)
    source.data = b"<html>"
    source.clock.advance(KEYS_FRESH_SECONDS)

    assert await source.code_for(BY_EC) is None


async def test_many_that_come_at_once_wait_for_one_load(source: Source) -> None:
    source.gate = asyncio.Event()
    asking = [asyncio.create_task(source.code_for(BY_EC)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    source.gate.set()
    codes = await asyncio.gather(*asking[1:])

    assert set(codes) == {None}
    assert source.loads == 1


async def test_a_load_that_is_under_way_ends_with_the_program(source: Source) -> None:
    source.gate = asyncio.Event()
    asking = asyncio.create_task(source.code_for(BY_EC))
    await asyncio.sleep(0)
    await source.keys.close()

    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_keys_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    keys = key_set_of(kind(jwks_file=path), ManualClock())
    path.write_bytes(jwks())

    key = await keys.key_for_untrusted(BY_EC)
    assert key.key_id == "ec"


UNREADABLE: dict[str, Any] = {
    "a file that is not there": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a file that is too long": lambda path: path.write_bytes(b" " * (KEYS_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
async def test_no_keys_come_from(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "jwks.json"
    make(path)
    keys = key_set_of(kind(jwks_file=path), ManualClock())

    with pytest.raises(SidelinkError) as caught:
        await keys.key_for_untrusted(BY_EC)
    assert caught.value.code is Code.ENROL_KEYS_UNAVAILABLE
