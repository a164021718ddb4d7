"""What an operator asks of a sidecar's agents: who they are, a new key, what others say of them."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from identity import (
    Code,
    Identifier,
    IdentityError,
    SidelinkError,
    did_key,
    parse_did_key,
    parse_voucher_untrusted,
)
from identity.interop import DID_KEY_PREFIX
from node.clocks import Clock
from node.http_servers import AdminServer
from node.identity_admin import show_identity
from node.rotation import (
    NODE_ANNOUNCE_SECONDS,
    NODE_OVERLAP_SECONDS,
    RETRY_SECONDS,
    overlap_and_announce,
)
from sidecar.agents import AgentRegistry
from sidecar.further import further_credentials, with_voucher, without_issuer

_log = structlog.get_logger("sidecar.agents")


class AgentAdmin:
    """Routes of the admin socket. There are no agents before ``serve``."""

    def __init__(self, admin: AdminServer, clock: Clock) -> None:
        self._served: tuple[AgentRegistry, Callable[[], None]] | None = None
        self._clock = clock
        self._timers: set[asyncio.TimerHandle] = set()
        admin.add("POST", "/v1/agents/identity", self._show)
        admin.add("POST", "/v1/agents/rotate", self._rotate)
        admin.add("POST", "/v1/agents/vouchers", self._vouch)
        admin.add("POST", "/v1/agents/vouchers/remove", self._unvouch)

    def serve(self, agents: AgentRegistry, changed: Callable[[], None]) -> None:
        """``changed`` is called when an agent that is awake has another proof."""
        self._served = agents, changed

    @property
    def _agents(self) -> AgentRegistry:
        if self._served is None:
            raise SidelinkError(Code.LOCAL_UNAVAILABLE, "this sidecar has not enrolled yet")
        return self._served[0]

    def _changed(self) -> None:
        assert self._served is not None
        self._served[1]()

    def close(self) -> None:
        """Rotations that are announced are completed when their agents wake."""
        for timer in self._timers:
            timer.cancel()

    async def _show(self, wishes: Mapping[str, Any]) -> object:
        own, identity = self._agents.look_up(self._path(wishes), self._clock.unix_s())
        return {
            **show_identity(own, identity),
            "further": [
                {
                    "issuer": str(held.issuer),
                    "name": str(held.name),
                    "expires_unix_s": held.expires_unix_s,
                    "attributes": dict(held.attributes),
                }
                for held in further_credentials(own)
            ],
        }

    async def _vouch(self, wishes: Mapping[str, Any]) -> object:
        path, unix_s = self._path(wishes), self._clock.unix_s()
        try:
            link = parse_voucher_untrusted(wishes.get("voucher", ""))
            self._agents.change(path, unix_s, lambda own: with_voucher(own, link, unix_s))
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
        self._changed()
        return await self._show(wishes)

    async def _unvouch(self, wishes: Mapping[str, Any]) -> object:
        try:
            issuer = Identifier.parse(wishes.get("issuer", ""))
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
        self._agents.change(
            self._path(wishes), self._clock.unix_s(), lambda own: without_issuer(own, issuer)
        )
        self._changed()
        return await self._show(wishes)

    async def _rotate(self, wishes: Mapping[str, Any]) -> object:
        path = self._path(wishes)
        overlap_s, announce_s = overlap_and_announce(
            wishes, announce_s=NODE_ANNOUNCE_SECONDS, overlap_s=NODE_OVERLAP_SECONDS
        )
        unix_s = self._clock.unix_s()
        self._agents.rotate(path, unix_s, overlap_s)
        self._changed()
        if announce_s == 0:
            self._complete(path)
        else:
            self._complete_in(announce_s, path)
        own, _ = self._agents.look_up(path, unix_s)
        return {
            "identifier": str(own.identifier),
            "change_number": own.history.change_number,
            "key": did_key(own.history.current_key),
            "used_from_unix_s": int(unix_s) + announce_s,
            "old_key_ends_unix_s": own.history.key_until_unix_s(own.history.change_number - 1),
        }

    def _complete(self, path: str) -> None:
        try:
            self._agents.complete_rotation(path, self._clock.unix_s())
        except SidelinkError as exc:
            # It is announced on the disk, and is completed at the latest when the agent wakes; one
            # that stays awake would be left with a key whose overlap ends.
            _log.error("rotation_not_completed", agent=path, code=exc.code.text, why=exc.detail)
            if exc.code is not Code.LOCAL_AGENT_UNKNOWN:
                self._complete_in(RETRY_SECONDS, path)
            return
        self._changed()

    def _complete_in(self, seconds: float, path: str) -> None:
        loop = asyncio.get_running_loop()
        self._timers = {timer for timer in self._timers if timer.when() > loop.time()}
        self._timers.add(loop.call_later(seconds, self._complete, path))

    def _path(self, wishes: Mapping[str, Any]) -> str:
        """The agent that is meant: by path, or, of those awake, by identifier or did:key."""
        text = wishes.get("agent")
        if not isinstance(text, str) or not text:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, "agent must be the path of an agent")
        awake = self._agents.awake_agents()
        if text.startswith(DID_KEY_PREFIX):
            try:
                key = parse_did_key(text)
            except IdentityError as exc:
                raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
            paths = ["/".join(agent.uri.path) for agent in awake]
            found = [path for path in paths if self._signs_with(path, did_key(key))]
        elif text.startswith("sl1"):
            found = ["/".join(a.uri.path) for a in awake if str(a.identity.identifier) == text]
        else:
            return text
        if not found:
            raise SidelinkError(Code.LOCAL_AGENT_UNKNOWN, f"no agent that is awake is {text}")
        return found[0]

    def _signs_with(self, path: str, key: str) -> bool:
        own, _ = self._agents.look_up(path, self._clock.unix_s())
        return did_key(own.signing_key.verify_key) == key
