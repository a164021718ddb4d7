"""Rotating this node's own key while it runs: announced first, used later.

Announced means that the history which every peer verifies names the new key, and that neighbours
have been shown it; nothing is signed with it before its time. The old key verifies until its
overlap ends. A rotation that a crash interrupted goes on where it was.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from identity import (
    Code,
    OwnIdentity,
    SidelinkError,
    decode_credential_untrusted,
    did_key,
)
from identity.history import OVERLAP_S_MAX
from node.clocks import Clock
from node.own_node import OwnNode
from node.store import Store

NODE_ANNOUNCE_SECONDS: Final = 30
NODE_OVERLAP_SECONDS: Final = 86_400
AUTHORITY_ANNOUNCE_SECONDS: Final = 3_600
AUTHORITY_OVERLAP_SECONDS: Final = OVERLAP_S_MAX
# How long the old key verifies at least once the new one signs. Peers' clocks may be off by a
# minute, and are shown the new key one after the other.
OVERLAP_LEFT_SECONDS_MIN: Final = 120
# Every credential that an authority's old key has signed ends with the overlap, and its nodes need
# the old one to ask for the new.
AUTHORITY_OVERLAP_LEFT_SECONDS_MIN: Final = 3_600
ANNOUNCE_SECONDS_MAX: Final = 7 * 86_400
# Changes that no credential pins cost each peer two signature checks, and it makes sixteen at most.
UNPINNED_CHANGES_MAX: Final = 3
LOOK_SECONDS_MAX: Final = 60.0
RETRY_SECONDS: Final = 5.0

_USE_AT: Final = "rotation_use_unix_s"

_log = structlog.get_logger("node.rotation")


def overlap_and_announce(
    wishes: Mapping[str, Any], *, announce_s: int, overlap_s: int, left_s_min: int | None = None
) -> tuple[int, int]:
    """How long the old key still verifies, and when the new one signs. Raises local.bad_request.

    ``left_s_min``: for how long the old key is needed once the new one signs. Unless given that is
    a moment, and nothing at all for a key that is replaced at once, because somebody has stolen it.
    """
    announce_s = _seconds(wishes, "announce_s", announce_s, ANNOUNCE_SECONDS_MAX)
    if left_s_min is None:
        left_s_min = OVERLAP_LEFT_SECONDS_MIN if announce_s else 0
    least_s = announce_s + left_s_min
    overlap_s = _seconds(wishes, "overlap_s", max(overlap_s, least_s), OVERLAP_S_MAX)
    if overlap_s < least_s:
        raise SidelinkError(
            Code.LOCAL_BAD_REQUEST,
            f"overlap_s must be at least {least_s}: until then the old key still signs, or what it "
            "has signed is still needed",
        )
    return overlap_s, announce_s


class Rotation:
    """The rotation of one node's key: asked for by an operator, completed by itself."""

    def __init__(self, node: OwnNode, store: Store, clock: Clock) -> None:
        self.on_used: list[Callable[[], None]] = []
        """Called when the new key signs."""
        self._node = node
        self._store = store
        self._clock = clock
        self._asked = asyncio.Event()

    @property
    def use_unix_s(self) -> int | None:
        """When the announced key begins to sign; None while none is announced."""
        if self._node.own.next_key is None:
            return None
        return int(self._store.get(_USE_AT) or b"0")

    def begin(self, wishes: Mapping[str, Any]) -> dict[str, Any]:
        """Announce a new key. Raises SidelinkError (local.bad_request)."""
        is_authority = self._node.identity.kind == "authority"
        overlap_s, announce_s = overlap_and_announce(
            wishes,
            announce_s=AUTHORITY_ANNOUNCE_SECONDS if is_authority else NODE_ANNOUNCE_SECONDS,
            overlap_s=AUTHORITY_OVERLAP_SECONDS if is_authority else NODE_OVERLAP_SECONDS,
            left_s_min=AUTHORITY_OVERLAP_LEFT_SECONDS_MIN if is_authority else None,
        )
        if self._node.own.next_key is not None:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, "a rotation is under way already")
        if _unpinned_changes(self._node.own) >= UNPINNED_CHANGES_MAX:
            raise SidelinkError(
                Code.LOCAL_BAD_REQUEST,
                f"the authority has not seen the last {UNPINNED_CHANGES_MAX} rotations yet",
            )
        use_unix_s = int(self._clock.unix_s()) + announce_s
        # First when, then what: a crash between the two leaves a time without a rotation.
        self._store.put(_USE_AT, str(use_unix_s).encode())
        try:
            self._node.announce_key(overlap_s=overlap_s)
        except ValueError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, str(exc)) from exc
        self._asked.set()
        own = self._node.own
        _log.info("key_announced", change=own.history.change_number, use_unix_s=use_unix_s)
        return {
            "identifier": str(own.identifier),
            "change_number": own.history.change_number,
            "key": did_key(own.history.current_key),
            "used_from_unix_s": use_unix_s,
            "old_key_ends_unix_s": own.history.changes[-1].created_unix_s + overlap_s,
        }

    async def run(self) -> None:
        """Complete what is announced when its time has come, until cancelled."""
        while True:
            self._asked.clear()
            try:
                wait_s = self._look()
            except SidelinkError as exc:
                # A disk that is full or busy now may not be so for ever.
                _log.error("rotation_not_completed", code=exc.code.text, why=exc.detail)
                wait_s = RETRY_SECONDS
            try:
                async with asyncio.timeout(wait_s):
                    await self._asked.wait()
            except TimeoutError:
                continue

    def _look(self) -> float:
        """Complete what is due. Returns for how long there is nothing to do."""
        use_unix_s = self.use_unix_s
        if use_unix_s is not None and self._clock.unix_s() >= use_unix_s:
            self._complete()
            use_unix_s = None
        if use_unix_s is None:
            return LOOK_SECONDS_MAX
        # The wall clock may jump, so it is looked at now and then.
        return min(LOOK_SECONDS_MAX, use_unix_s - self._clock.unix_s())

    def _complete(self) -> None:
        self._node.use_announced_key()
        _log.info("key_used", change=self._node.own.history.change_number)
        for listener in self.on_used:
            listener()


def _unpinned_changes(own: OwnIdentity) -> int:
    """Changes of its history that its credential does not vouch for; 0 where it needs none."""
    if not own.chain:
        return 0
    held = decode_credential_untrusted(own.chain[0].credential).credential
    return own.history.change_number - held.pin.change_number


def _seconds(wishes: Mapping[str, Any], name: str, default: int, maximum: int) -> int:
    value = wishes.get(name, default)
    if type(value) is not int or not 0 <= value <= maximum:
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, f"{name} must be from 0 to {maximum}")
    return value
