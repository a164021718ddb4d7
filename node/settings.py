"""What each program can be told, as one frozen model per program.

Rising precedence: the YAML file, ``SIDELINK_*`` variables, flags. ``load_settings`` of
``node.settings_load`` is the way to make one; nothing may change afterwards.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from identity.credential import CHAIN_LINKS_MAX
from identity.revocation import GRACE_S
from identity.verifier import CHAIN_LINKS
from node.addresses import SocketAddress
from node.settings_fields import (
    Account,
    Address,
    AddressList,
    AgentAttributes,
    AgentPath,
    AgentPattern,
    AgentUriText,
    GatewayList,
    Host,
    LocalModel,
    LocalPath,
    LoopbackHost,
    Port,
    Seconds,
    SegmentText,
    ServiceName,
    SocketPath,
    TrustDomainText,
    Whole,
)
from node.settings_source import StrictYamlSource, default_state_base
from node.workload_settings import WORKLOADS_MAX, WorkloadSettings

ENVIRONMENT_PREFIX: Final = "SIDELINK_"

GATEWAY_PORT: Final = 7440
MCP_INGRESS_PORT: Final = 7451
GATEWAY_OPS_PORT: Final = 7460
SIDECAR_OPS_PORT: Final = 7461
AUTHORITY_OPS_PORT: Final = 7462

DAY_S: Final = 86_400
NODE_CREDENTIAL_TTL_S: Final = 30 * DAY_S
NODE_CREDENTIAL_TTL_S_MAX: Final = 366 * DAY_S
REVOCATION_NEXT_UPDATE_S_MIN: Final = 60
REVOCATION_NEXT_UPDATE_S_MAX: Final = 30 * DAY_S
STOP_GRACE_S: Final = 8.0
STOP_GRACE_S_MAX: Final = 300.0
REVOCATION_GRACE_S_MAX: Final = 30 * DAY_S

MAILBOX_MESSAGES: Final = 1_000
MAILBOX_BYTES: Final = 16 << 20
MAILBOX_MESSAGES_MAX: Final = 1_000_000
MAILBOX_BYTES_MAX: Final = 1 << 30
MAILBOXES_BYTES: Final = 256 << 20
MAILBOXES_BYTES_MAX: Final = 1 << 36
MESSAGE_BYTES_MAX: Final = 1 << 20

CHANNEL_IDLE_S: Final = 300.0
CHANNEL_IDLE_S_MIN: Final = 1.0
CHANNEL_IDLE_S_MAX: Final = 86_400.0
CHANNELS: Final = 16_384
CHANNELS_MAX: Final = 65_536

HOP_QUEUE_BYTES: Final = 64 << 20
QUEUE_BYTES: Final = 512 << 20
QUEUE_BYTES_MIN: Final = 4 << 20
QUEUE_BYTES_MAX: Final = 1 << 36

HOPS: Final = 1_024
HOPS_MAX: Final = 65_536

DATAGRAM_BYTES_MIN: Final = 1_200
DATAGRAM_BYTES_MAX: Final = 16_000

MCP_SERVICES_MAX: Final = 64
COMMAND_WORDS_MAX: Final = 256
ENVIRONMENT_ENTRIES_MAX: Final = 256
WRITABLE_FOLDERS_MAX: Final = 64
CHILDREN: Final = 1_000
CHILDREN_MAX: Final = 100_000
AGENT_RULES_MAX: Final = 256
AGENT_PATTERNS_MAX: Final = 64

assert MAILBOX_BYTES >= MESSAGE_BYTES_MAX, "a mailbox must hold at least one message"


def _service_names_are_unique(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"service {repeated[0]!r} is given more than once")


Engine = Literal["auto", "qh3", "aioquic"]


class ProgramSettings(BaseSettings):
    """What every program has."""

    program: ClassVar[str]

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        case_sensitive=False,
        hide_input_in_errors=True,
        validate_default=False,
    )

    state: LocalPath = Field(default_factory=default_state_base)
    """The folder that holds one folder for each program."""
    config: LocalPath | None = None
    """The settings file, when it is not config.yaml of the state folder."""
    ops_host: Host = "127.0.0.1"
    ops_port: Port
    quic_engine: Engine = "auto"
    datagram_bytes: Annotated[Whole, Field(ge=DATAGRAM_BYTES_MIN, le=DATAGRAM_BYTES_MAX)] | None = (
        None
    )
    """UDP payload that every path of this node carries; found out for each path unless given."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """auto: for people when standard error is a terminal, else JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stop_grace_s: Annotated[Seconds, Field(gt=0, le=STOP_GRACE_S_MAX)] = STOP_GRACE_S
    """How long a graceful stop may take before what is left is cut."""
    revocation_grace_s: Annotated[Whole, Field(ge=60, le=REVOCATION_GRACE_S_MAX)] = GRACE_S
    """How long after a revocation list is due again nobody new is let in without the next one."""
    delegation_depth_max: Annotated[Whole, Field(ge=1, le=CHAIN_LINKS_MAX)] = CHAIN_LINKS
    """Links of a chain of credentials: authority → node → agent → subagent → its child is four."""
    mandatory_policy_required: bool = False
    """Whether nothing but the baseline is allowed before the trust domain's policy has come."""

    @property
    def state_path(self) -> Path:
        """This program's own folder."""
        return self.state / self.program

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, StrictYamlSource(settings_cls, cls.program)


class AuthoritySettings(ProgramSettings):
    """The authority: dials its gateways, listens for nobody."""

    program: ClassVar[str] = "authority"

    trust_domain: TrustDomainText = "local"
    gateways: AddressList = ()
    """Where its gateways listen, as nodes and this authority reach them."""
    ops_port: Port = AUTHORITY_OPS_PORT
    node_credential_ttl_s: Annotated[Whole, Field(ge=60, le=NODE_CREDENTIAL_TTL_S_MAX)] = (
        NODE_CREDENTIAL_TTL_S
    )
    revocation_next_update_s: Annotated[
        Whole, Field(ge=REVOCATION_NEXT_UPDATE_S_MIN, le=REVOCATION_NEXT_UPDATE_S_MAX)
    ] = DAY_S
    """How long nodes go by a revocation list before they wait for the next."""
    workloads: Annotated[tuple[WorkloadSettings, ...], Field(max_length=WORKLOADS_MAX)] = ()
    """Whose tokens let nodes in without a ticket, and as what."""


class EnrolledSettings(ProgramSettings):
    """What a node needs to enrol once."""

    ticket: SecretStr | None = None
    """The ticket itself. Prefer ticket_file: other users can see arguments."""
    ticket_file: Path | None = None
    """A file that holds the ticket; - reads standard input."""
    node_name: SegmentText | None = None
    """One segment: what to be called, where the ticket leaves a choice and the name is free."""

    @field_validator("ticket_file")
    @classmethod
    def _one_ticket(cls, value: Path | None, others: ValidationInfo) -> Path | None:
        if value is not None and others.data.get("ticket") is not None:
            raise ValueError("ticket is given too; give one of them, not both")
        return value


class GatewaySettings(EnrolledSettings):
    """The gateway: listens on UDP, admits and relays."""

    program: ClassVar[str] = "gateway"

    listen: Address = SocketAddress("0.0.0.0", GATEWAY_PORT)  # noqa: S104  # a gateway serves all.
    ops_port: Port = GATEWAY_OPS_PORT
    hops_max: Annotated[Whole, Field(ge=1, le=HOPS_MAX)] = HOPS
    """Nodes connected at once; further ones are refused."""
    hop_queue_bytes_max: Annotated[Whole, Field(ge=QUEUE_BYTES_MIN, le=QUEUE_BYTES_MAX)] = (
        HOP_QUEUE_BYTES
    )
    """What may wait for one node that takes less than it is sent; beyond it, its hop is closed."""
    queue_bytes_max: Annotated[Whole, Field(ge=QUEUE_BYTES_MIN, le=QUEUE_BYTES_MAX)] = QUEUE_BYTES
    """What may wait for all nodes together; beyond it, the fullest hop is closed."""


class McpIngress(LocalModel):
    """Where an agent's MCP client reaches a service of the mesh. Acts as one named agent."""

    service: ServiceName
    agent: AgentPath
    attributes: AgentAttributes = {}
    """What the agent is minted with, within what this node's credential lets it say."""
    to: AgentUriText
    token_file: LocalPath | None = None
    """Clients show this file's text as bearer token, on the MCP listener."""
    socket: LocalPath | None = None
    """Clients connect to this Unix socket; its folder's owner is the guard."""
    allow_any_local: bool = False
    """Let every process that reaches the MCP listener act as the agent. Warned of at each start."""

    @model_validator(mode="after")
    def _one_guard(self) -> Self:
        guards = (self.token_file is not None, self.socket is not None, self.allow_any_local)
        if sum(guards) != 1:
            raise ValueError(
                "an MCP ingress needs exactly one of token_file, socket and allow_any_local"
            )
        return self


class McpServer(LocalModel):
    """An MCP server that this sidecar runs by stdio and offers to the mesh."""

    service: ServiceName
    agent: AgentPath
    attributes: AgentAttributes = {}
    """What the agent is minted with, within what this node's credential lets it say."""
    command: Annotated[tuple[str, ...], Field(min_length=1, max_length=COMMAND_WORDS_MAX)]
    env: Annotated[Mapping[str, str], Field(max_length=ENVIRONMENT_ENTRIES_MAX)] = {}
    """Variables given to the server, beside the few that every child gets."""
    pass_env: Annotated[tuple[str, ...], Field(max_length=ENVIRONMENT_ENTRIES_MAX)] = ()
    """Names of the sidecar's own variables that the server may see."""
    writable: Annotated[tuple[LocalPath, ...], Field(max_length=WRITABLE_FOLDERS_MAX)] = ()
    """Folders that the server may write to, beside a temporary one of its own."""
    unsafe_same_uid: bool = False
    """Run the server without isolation from the sidecar's keys. Say so only if you mean it."""


class McpSettings(LocalModel):
    """Both ends of MCP: ingresses for local clients, servers for the mesh."""

    ingress: Annotated[tuple[McpIngress, ...], Field(max_length=MCP_SERVICES_MAX)] = ()
    servers: Annotated[tuple[McpServer, ...], Field(max_length=MCP_SERVICES_MAX)] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _service_names_are_unique([ingress.service for ingress in self.ingress])
        _service_names_are_unique([server.service for server in self.servers])
        return self


class DirectSettings(LocalModel):
    """Hops between sidecars themselves. Whom they are offered to, policy says (path.direct)."""

    enabled: bool = True
    allow_loopback: bool = False
    """Tell and try loopback and link-local addresses too: for several sidecars on one machine."""
    advertise: AddressList = ()
    """Told beside the addresses of this machine: where others reach its UDP port."""


class AgentRule(LocalModel):
    """Which processes may act as which agents of this sidecar. All that is given must hold."""

    names: Annotated[tuple[AgentPattern, ...], Field(min_length=1, max_length=AGENT_PATTERNS_MAX)]
    """Paths within the trust domain: finance/planner, finance/*, finance/**."""
    uid: Account | None = None
    gid: Account | None = None
    """Its own group or a supplementary one."""
    exe: LocalPath | None = None
    """The file that the process runs, in addition to uid or gid: by itself it proves little."""

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if self.uid is None and self.gid is None:
            why = "exe alone does not tell who runs it: " if self.exe is not None else ""
            raise ValueError(f"{why}a rule needs uid or gid")
        if self.exe is not None and not self.exe.is_absolute():
            raise ValueError(f"exe: {self.exe} is no absolute path")
        return self


class AgentsSettings(LocalModel):
    """Who may act as the agents of this sidecar, by its socket."""

    rules: Annotated[tuple[AgentRule, ...], Field(max_length=AGENT_RULES_MAX)] = ()
    """Whom else than the sidecar's own user the socket lets in, and as whom."""
    own_user: bool = True
    """Whether processes of the sidecar's own user, and root, may act as any agent."""
    children_max: Annotated[Whole, Field(ge=0, le=CHILDREN_MAX)] = CHILDREN
    """How many children one agent may have."""
    socket_group: Account | None = None
    """The group that may reach the socket; only the sidecar's own user unless given."""


class SidecarSettings(EnrolledSettings):
    """The sidecar: dials gateways, serves agents over a Unix socket and MCP clients over HTTP."""

    program: ClassVar[str] = "sidecar"

    listen: Address = SocketAddress("0.0.0.0", 0)  # noqa: S104  # replies come from anywhere.
    ops_port: Port = SIDECAR_OPS_PORT
    token_file: LocalPath | None = None
    """Holds a workload token, for an invitation in place of a ticket. Read at each attempt."""
    further_gateways: GatewayList = ()
    """Of other companies: where their agents are met. A hop is kept to each, beside those to the
    gateways of this node's own authority."""
    agent_socket: SocketPath | None = None
    """Where agents connect; run/agent.sock of the state folder unless given."""
    agent_host: LoopbackHost = "127.0.0.1"
    agent_port: Port | None = None
    """Where agents connect by TCP, with a token; nowhere unless given. 7450 by convention."""
    agents: AgentsSettings = AgentsSettings()
    mcp_host: Host = "127.0.0.1"
    mcp_port: Port = MCP_INGRESS_PORT
    mcp: McpSettings = McpSettings()
    direct: DirectSettings = DirectSettings()
    channel_idle_s: Annotated[Seconds, Field(ge=CHANNEL_IDLE_S_MIN, le=CHANNEL_IDLE_S_MAX)] = (
        CHANNEL_IDLE_S
    )
    """A channel on which nothing is said for so long is put away until the next message."""
    channels_max: Annotated[Whole, Field(ge=16, le=CHANNELS_MAX)] = CHANNELS
    """Channels kept open: beyond it those that were used longest ago are put away first."""
    mailbox_messages_max: Annotated[Whole, Field(ge=1, le=MAILBOX_MESSAGES_MAX)] = MAILBOX_MESSAGES
    mailbox_bytes_max: Annotated[Whole, Field(ge=MESSAGE_BYTES_MAX, le=MAILBOX_BYTES_MAX)] = (
        MAILBOX_BYTES
    )
    mailboxes_bytes_max: Annotated[Whole, Field(ge=MESSAGE_BYTES_MAX, le=MAILBOXES_BYTES_MAX)] = (
        MAILBOXES_BYTES
    )
    """What waits for all agents together: whoever may tell them something can fill this much."""

    @field_validator("agents")
    @classmethod
    def _group_reaches_socket(cls, value: AgentsSettings, others: ValidationInfo) -> AgentsSettings:
        if value.socket_group is not None:
            socket, state = others.data.get("agent_socket"), others.data.get("state")
            if socket is None or (state is not None and socket.is_relative_to(state)):
                raise ValueError(
                    "socket_group needs an agent_socket outside the state folder, "
                    "which nobody else may enter"
                )
        return value


PROGRAMS: Final[tuple[type[ProgramSettings], ...]] = (
    AuthoritySettings,
    GatewaySettings,
    SidecarSettings,
)
