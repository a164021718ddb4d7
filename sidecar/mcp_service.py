"""MCP at this sidecar: the ingresses and servers of its settings, joined to router and policy."""

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from identity import AgentUri, AttributeValue, Code, SidelinkError, VerifiedIdentity
from identity.master_key import MASTER_KEY_FILE_VARIABLE
from node.parts import Parts
from node.settings import McpIngress as IngressEntry
from node.settings import McpServer, SidecarSettings
from node.state_folder import check_socket_path
from node.tickets import STANDARD_INPUT
from policy import Denial, Disclosure, Party, Permit, Request
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.child import ChildSettings, check_isolation
from sidecar.mcp_egress import McpEgress, StdioService
from sidecar.mcp_ingress import IngressSettings, McpIngress, McpListener
from sidecar.mcp_message import McpAsk
from sidecar.mesh_stream import MeshStream
from sidecar.streams import Streams

TOKEN_CHARACTERS_MIN: Final = 16
TOKEN_CHARACTERS_MAX: Final = 4_096


class McpService:
    """Opens every ingress and server of the settings; closes them together."""

    def __init__(
        self, parts: Parts, settings: SidecarSettings, agents: AgentRegistry, streams: Streams
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._agents = agents
        self._streams = streams
        self._stack = AsyncExitStack()
        self._egresses: list[McpEgress] = []
        self._ingresses: list[McpIngress] = []

    @property
    def children(self) -> int:
        return sum(egress.children for egress in self._egresses)

    async def start(self) -> None:
        """Raises SidelinkError naming the entry that cannot be served."""
        if any(not server.unsafe_same_uid for server in self._settings.mcp.servers):
            await check_isolation(self._hidden())
        for server in self._settings.mcp.servers:
            await self._serve(server)
        on_tcp: list[McpIngress] = []
        for entry in self._settings.mcp.ingress:
            ingress = self._ingress(entry)
            if entry.socket is None:
                on_tcp.append(ingress)
            else:
                check_socket_path(entry.socket)
                self._stack.push_async_callback(ingress.close)
                await ingress.start_unix(entry.socket)
        if on_tcp:
            await self._listen(McpListener(on_tcp), on_tcp)

    async def close(self) -> None:
        await self._stack.aclose()

    def policy_changed(self) -> None:
        """Another policy is in force: calls in flight that it denies end, at once or soon."""
        for egress in self._egresses:
            egress.policy_changed()
        for ingress in self._ingresses:
            ingress.policy_changed()

    async def _serve(self, server: McpServer) -> None:
        agent = self._open_agent(server.agent, server.attributes)
        egress = McpEgress(
            StdioService(server.service, self._child(server)),
            decide=lambda caller, service, ask: self._decide_at_egress(caller, agent, service, ask),
            may_offer=lambda caller, service, ask: self._may_offer(caller, agent, service, ask),
            judges_results=lambda: self._parts.policy.judges_results,
            ask_again=lambda caller, service, ask: self._ask_again_at_egress(
                caller, agent, service, ask
            ),
        )
        await self._stack.enter_async_context(egress)
        self._egresses.append(egress)
        self._streams.offer(agent, server.service, egress.serve)

    async def _listen(self, listener: McpListener, ingresses: list[McpIngress]) -> None:
        self._stack.push_async_callback(listener.close)
        port = await listener.start_tcp(self._settings.mcp_host, self._settings.mcp_port)
        for ingress in ingresses:
            self._parts.ports |= {f"mcp_{service}": port for service in ingress.services}

    def _ingress(self, entry: IngressEntry) -> McpIngress:
        agent = self._open_agent(entry.agent, entry.attributes)
        to = AgentUri.parse(entry.to)
        ingress = McpIngress(
            IngressSettings(
                agent=str(agent.uri),
                services={entry.service: to},
                token=None if entry.token_file is None else read_token(entry.token_file),
                allow_any_local=entry.allow_any_local,
            ),
            decide=lambda _agent, service, target, ask: self._decide_at_ingress(
                agent, service, target, ask
            ),
            open_stream=lambda _agent, target, service: self._open_stream(agent, target, service),
            ask_again=None
            if self._agents.covers(to)
            else lambda target, service, ask: self._ask_again_at_ingress(
                agent, target, service, ask
            ),
        )
        self._ingresses.append(ingress)
        return ingress

    async def _open_stream(self, agent: LocalAgent, to: AgentUri, service: str) -> MeshStream:
        return await self._streams.open(agent, to, service)

    def _open_agent(self, path: str, attributes: Mapping[str, AttributeValue]) -> LocalAgent:
        """The agent that a service acts as. Without attributes of its own, those it has stay."""
        if path.startswith("agent://"):
            uri = AgentUri.parse(path)
            if uri.trust_domain != self._agents.trust_domain:
                raise SidelinkError(Code.LOCAL_NAME_OUTSIDE_PREFIX, f"{uri}: another trust domain")
            path = "/".join(uri.path)
        unix_s = self._parts.clock.unix_s()
        name = AgentUri.in_domain(self._agents.trust_domain, path)
        agent = None if attributes else self._agents.find(name, unix_s)
        if agent is None:
            agent = self._agents.open(path, attributes, unix_s)
        agent.users += 1
        return agent

    def _child(self, server: McpServer) -> ChildSettings:
        environment = {name: os.environ[name] for name in server.pass_env if name in os.environ}
        return ChildSettings(
            command=server.command,
            hidden=self._hidden(),
            writable=server.writable,
            environment=environment | dict(server.env),
            unsafe_same_uid=server.unsafe_same_uid,
        )

    def _hidden(self) -> tuple[Path, ...]:
        """All programs' states, a master key and a ticket kept elsewhere, the tokens with which a
        child could act as an agent, and the settings, which may hold other servers' keys."""
        files = [entry.token_file for entry in self._settings.mcp.ingress]
        files += [self._settings.config, self._settings.ticket_file]
        if MASTER_KEY_FILE_VARIABLE in os.environ:
            files.append(Path(os.environ[MASTER_KEY_FILE_VARIABLE]))
        # The ticket may be standard input, which children do not have.
        named = [path.expanduser() for path in files if path and path != STANDARD_INPUT]
        return tuple(path.absolute() for path in (self._settings.state, *named))

    async def _decide_at_ingress(
        self, agent: LocalAgent, service: str, to: AgentUri, ask: McpAsk
    ) -> Permit | Denial:
        """Decide on a far agent that has proved who it is; on its name alone only to refuse."""
        request = _request(agent.party, Party.unproved(to), service, ask)
        if self._parts.policy.could_allow(request, self._parts.clock.unix_s()):
            target = await self._streams.prove(agent, to)
            request = _request(agent.party, Party.from_verified(target), service, ask)
            if self._agents.covers(to):
                # The egress is ours too, and decides by the same policy: one call, one charge.
                request = replace(request, again=True)
        return self._parts.admission.decide(request, expires_unix_s=agent.expires_unix_s)

    def _decide_at_egress(
        self, caller: VerifiedIdentity, agent: LocalAgent, service: str, ask: McpAsk
    ) -> Permit | Denial:
        request = _request(Party.from_verified(caller), agent.party, service, ask)
        decision = self._parts.admission.decide(request, expires_unix_s=caller.expires_unix_s)
        return _as_told(decision, caller, agent)

    def _ask_again_at_egress(
        self, caller: VerifiedIdentity, agent: LocalAgent, service: str, ask: McpAsk
    ) -> Permit | Denial:
        """Whether a call that is being served may go on."""
        request = _request(Party.from_verified(caller), agent.party, service, ask)
        expires_unix_s = caller.expires_unix_s
        decision = self._parts.admission.ask_again(request, "call", expires_unix_s=expires_unix_s)
        return _as_told(decision, caller, agent)

    def _ask_again_at_ingress(
        self, agent: LocalAgent, target: VerifiedIdentity, service: str, ask: McpAsk
    ) -> Permit | Denial:
        """Whether a call that waits for the far side may."""
        request = _request(agent.party, Party.from_verified(target), service, ask)
        expires_unix_s = agent.expires_unix_s
        return self._parts.admission.ask_again(request, "call", expires_unix_s=expires_unix_s)

    def _may_offer(
        self, caller: VerifiedIdentity, agent: LocalAgent, service: str, ask: McpAsk
    ) -> bool:
        request = _request(Party.from_verified(caller), agent.party, service, ask)
        return self._parts.policy.could_allow(request, self._parts.clock.unix_s())


def _as_told(
    decision: Permit | Denial, caller: VerifiedIdentity, agent: LocalAgent
) -> Permit | Denial:
    """The decision, with how much of a denial this caller is told where policy does not say."""
    if isinstance(decision, Permit) or decision.disclose is not None:
        return decision
    is_stranger = caller.trust_domain != agent.uri.trust_domain
    return replace(decision, disclose=Disclosure.NONE if is_stranger else Disclosure.REASON)


def read_token(path: Path) -> str:
    """The bearer token of an ingress. Raises SidelinkError for a file that is open to others."""
    try:
        status = path.stat()
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SidelinkError(Code.CONFIG_INVALID, f"token_file {path}: {exc}") from None
    if status.st_mode & 0o077:
        raise SidelinkError(
            Code.CONFIG_STATE_UNSAFE, f"token_file {path} can be read by others: chmod 0600 {path}"
        )
    if not TOKEN_CHARACTERS_MIN <= len(text) <= TOKEN_CHARACTERS_MAX:
        raise SidelinkError(
            Code.CONFIG_INVALID,
            f"token_file {path}: a token has {TOKEN_CHARACTERS_MIN} characters or more, "
            f"and at most {TOKEN_CHARACTERS_MAX}",
        )
    return text


def _request(subject: Party, target: Party, service: str, ask: McpAsk) -> Request:
    args: Mapping[str, object] | None = ask.args
    if ask.uri is not None:
        args = {"uri": ask.uri}
    return Request(
        ask.action,
        subject,
        target,
        service=service,
        mcp_method=ask.method,
        tool=ask.tool or ask.prompt,
        args=args,
        uri=ask.uri,
        result=ask.result,
    )
