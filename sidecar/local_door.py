"""The door of the local API as settings want it: whom it lets in, where, and which tokens open it.

Made before the sidecar has enrolled, so that a setting that cannot be is told at once.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final

import msgspec

from identity import AgentUri, Code, IdentityError, SidelinkError, VerifiedIdentity
from node.clocks import Clock
from node.parts import Parts
from node.settings import SidecarSettings
from sidecar.attestation import Attestation, group_id_of
from sidecar.local_access import LocalAccess
from sidecar.local_api import LocalApi
from sidecar.local_port import LocalRouter
from sidecar.tokens import AGENTS_PER_TOKEN_MAX, TOKEN_SECONDS_MAX, Token, TokenBook

TOKENS_ROUTE: Final = "/v1/agents/tokens"
REVOKE_ROUTE: Final = "/v1/agents/tokens/revoke"


class _TokenWish(msgspec.Struct, forbid_unknown_fields=True):
    agents: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=255)]],
        msgspec.Meta(min_length=1, max_length=AGENTS_PER_TOKEN_MAX),
    ]
    expires_in_s: Annotated[int, msgspec.Meta(ge=1, le=TOKEN_SECONDS_MAX)]


class _TokenNumber(msgspec.Struct, forbid_unknown_fields=True):
    id: int


class TokenDesk:
    """Gives out, lists and revokes tokens for the operator, who comes by the admin socket."""

    def __init__(
        self,
        tokens: TokenBook,
        own: Callable[[], VerifiedIdentity],
        clock: Clock,
        on_revoked: Callable[[], None],
    ) -> None:
        self._tokens = tokens
        self._own = own
        self._clock = clock
        self._on_revoked = on_revoked

    async def create(self, wishes: Mapping[str, Any]) -> object:
        """Raises SidelinkError: local.bad_request, local.name_outside_prefix, local.limit."""
        wish = _convert(wishes, _TokenWish)
        own = self._own()
        if own.name is None or own.delegable is None:
            raise SidelinkError(Code.LOCAL_UNAVAILABLE, "this sidecar has not enrolled yet")
        for path in wish.agents:
            try:
                name = AgentUri.in_domain(own.name.trust_domain, path)
            except IdentityError as error:
                raise SidelinkError(Code.LOCAL_BAD_REQUEST, error.detail) from error
            if not any(prefix.covers(name) for prefix in own.delegable.name_prefixes):
                prefixes = ", ".join(map(str, own.delegable.name_prefixes))
                raise SidelinkError(
                    Code.LOCAL_NAME_OUTSIDE_PREFIX, f"{name}: this sidecar may name {prefixes}"
                )
        text, token = self._tokens.create(
            list(dict.fromkeys(wish.agents)),
            unix_s=int(self._clock.unix_s()),
            lifetime_s=wish.expires_in_s,
        )
        return {"token": text, **_told(token)}

    async def show(self, _: Mapping[str, Any]) -> object:
        unix_s = self._clock.unix_s()
        return {
            "tokens": [
                {**_told(token), "expired": token.expires_unix_s <= unix_s}
                for token in self._tokens.entries()
            ]
        }

    async def revoke(self, wishes: Mapping[str, Any]) -> object:
        """Raises SidelinkError (local.bad_request) when there is no such token."""
        number = _convert(wishes, _TokenNumber).id
        if not self._tokens.revoke(number):
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, f"there is no token {number}")
        self._on_revoked()
        return {"revoked": number}


class LocalDoor:
    """Use ``open_door``. ``api`` is there once agents can be served."""

    def __init__(self, parts: Parts, settings: SidecarSettings, tokens: TokenBook) -> None:
        self._parts = parts
        self._settings = settings
        group = settings.agents.socket_group
        self._group_id = None if group is None else group_id_of(group, "agents.socket_group")
        self.tokens: Final = tokens
        self.access: Final = LocalAccess(
            Attestation.from_settings(settings.agents),
            tokens,
            clock=parts.clock,
            audit=parts.audit.record,
        )
        self._api: LocalApi | None = None
        desk = TokenDesk(tokens, lambda: parts.node.identity, parts.clock, self._token_revoked)
        parts.admin.add("GET", TOKENS_ROUTE, desk.show)
        parts.admin.add("POST", TOKENS_ROUTE, desk.create)
        parts.admin.add("POST", REVOKE_ROUTE, desk.revoke)

    def api(self, router: LocalRouter) -> LocalApi:
        """The local API in front of this router. It listens once ``start`` is called."""
        self._api = LocalApi(router, access=self.access)
        return self._api

    async def start(self) -> None:
        """Listen where settings say. Raises SidelinkError."""
        assert self._api is not None
        settings = self._settings
        path = settings.agent_socket or self._parts.folder.agent_socket
        await self._api.start(path, self._group_id)
        if settings.agent_port is not None:
            try:
                port = await self._api.start_tcp(settings.agent_host, settings.agent_port)
            except BaseException:
                await self._api.close()
                raise
            self._parts.ports["agents"] = port

    def _token_revoked(self) -> None:
        if self._api is not None:
            self._api.look_at_tokens()


@contextmanager
def open_door(parts: Parts, settings: SidecarSettings) -> Iterator[LocalDoor]:
    """Read rules and tokens. Raises ConfigError for what a person has to put right first."""
    tokens = TokenBook(parts.folder.database)
    try:
        yield LocalDoor(parts, settings, tokens)
    finally:
        tokens.close()


def _told(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "agents": list(token.agents),
        "created_unix_s": token.created_unix_s,
        "expires_unix_s": token.expires_unix_s,
        "last_used_unix_s": token.last_used_unix_s,
    }


def _convert(wishes: Mapping[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(dict(wishes), kind)
    except msgspec.ValidationError as error:
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, str(error)) from error
