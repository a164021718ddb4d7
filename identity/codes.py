"""The one registry of codes: the number that crosses the wire, its text, and what to do about it.

A number, once published, never changes its meaning. New codes are appended within their group.
The group is the first word of a member's name: `Code.ENROL_TICKET_USED` is `enrol.ticket_used`.
"""

from collections.abc import Mapping
from enum import IntEnum, unique
from typing import Final

CODE_MAX: Final = 2**16 - 1


@unique
class Code(IntEnum):
    """Every way in which something can be refused or fail, in any program."""

    PEER_ERROR_UNKNOWN = 1

    HOP_HANDSHAKE_FAILED = 101
    HOP_WRONG_IDENTIFIER = 102
    HOP_WRONG_AUTHORITY = 103
    HOP_WRONG_ROLE = 104
    HOP_SELF_CONNECTION = 105
    HOP_BINDING_MISMATCH = 106
    HOP_CERTIFICATE_MISSING = 107
    HOP_DENIED = 108
    HOP_TIMEOUT = 109
    HOP_RESTARTING = 110
    HOP_BAD_FRAME = 111
    HOP_LIMIT_EXCEEDED = 112
    HOP_CREDENTIAL_EXPIRED = 113
    HOP_ENROLMENT_ONLY = 114
    HOP_PEER_LOST = 115
    HOP_VERSION_UNSUPPORTED = 116
    HOP_CLOSED = 117
    HOP_UNREACHABLE = 118
    HOP_INTERNAL = 119
    HOP_SUPERSEDED = 120

    ENROL_TICKET_MISSING = 201
    ENROL_TICKET_EXPIRED = 202
    ENROL_TICKET_USED = 203
    ENROL_TICKET_UNKNOWN = 204
    ENROL_TICKET_MALFORMED = 205
    ENROL_WRONG_AUTHORITY = 206
    ENROL_DENIED = 207
    ENROL_AUTHORITY_UNREACHABLE = 208
    ENROL_BAD_REQUEST = 209
    ENROL_NO_GATEWAY = 210
    ENROL_WRONG_ROLE = 211

    CHANNEL_HANDSHAKE_FAILED = 301
    CHANNEL_WRONG_NAME = 302
    CHANNEL_WRONG_AUTHORITY = 303
    CHANNEL_DELEGATION_EXCEEDED = 304
    CHANNEL_CREDENTIAL_EXPIRED = 305
    CHANNEL_PIN_MISMATCH = 306
    CHANNEL_HISTORY_INVALID = 307
    CHANNEL_ATTESTATION_INVALID = 308
    CHANNEL_SELF_CONNECTION = 309
    CHANNEL_RECORD_INVALID = 310
    CHANNEL_RECORD_OUT_OF_ORDER = 311
    CHANNEL_VERSION_UNSUPPORTED = 312
    CHANNEL_TIMEOUT = 313
    CHANNEL_CREDENTIAL_INVALID = 314
    CHANNEL_TOO_MANY_SIGNATURES = 315
    CHANNEL_BAD_RECORD = 316
    CHANNEL_CLOSED = 317
    CHANNEL_LIMIT_EXCEEDED = 318
    CHANNEL_PROOF_INVALID = 319
    CHANNEL_UNSEALED_END = 320
    CHANNEL_NOT_YET_VALID = 321
    CHANNEL_SESSION_UNKNOWN = 322
    CHANNEL_MOVE_INVALID = 323
    CHANNEL_IDLE = 324
    CHANNEL_RESTARTING = 325

    ROUTE_UNKNOWN = 401
    ROUTE_PREFIX_DENIED = 402
    ROUTE_DISPLACED = 403
    ROUTE_SOURCE_DENIED = 404
    ROUTE_LINK_LIMIT = 405
    ROUTE_CREDIT_EXCEEDED = 406
    ROUTE_UNREACHABLE = 407
    ROUTE_LINK_CLOSED = 408
    ROUTE_BAD_FRAME = 409
    ROUTE_DENIED = 410
    ROUTE_RESTARTING = 411

    POLICY_DENIED = 501
    POLICY_NO_RULE = 502
    POLICY_INVALID = 503
    POLICY_NOT_READY = 504

    MESSAGE_TOO_LARGE = 601
    MESSAGE_MAILBOX_FULL = 602
    MESSAGE_TIMEOUT = 603
    MESSAGE_UNREACHABLE = 604
    MESSAGE_REJECTED = 605
    MESSAGE_EXPIRED = 606
    MESSAGE_AGENT_UNKNOWN = 607
    MESSAGE_NOT_AN_ASK = 608
    MESSAGE_QUEUE_FULL = 609
    MESSAGE_BODY_INVALID = 610
    MESSAGE_OUTCOME_UNKNOWN = 611

    STREAM_SERVICE_UNKNOWN = 701
    STREAM_SECRET_INVALID = 702
    STREAM_RESET = 703
    STREAM_CREDIT_EXCEEDED = 704
    STREAM_TRUNCATED = 705
    STREAM_EARLY_BYTES = 706
    STREAM_UPSTREAM_FAILED = 707
    STREAM_TIMEOUT = 708
    STREAM_LIMIT = 709
    STREAM_BAD_HEAD = 710

    LOCAL_UNAUTHORIZED = 801
    LOCAL_BAD_REQUEST = 802
    LOCAL_NAME_OUTSIDE_PREFIX = 803
    LOCAL_ATTRIBUTE_DENIED = 804
    LOCAL_AGENT_BUSY = 805
    LOCAL_VERSION_UNSUPPORTED = 806
    LOCAL_LIMIT = 807
    LOCAL_AGENT_UNKNOWN = 808
    LOCAL_DRAINING = 809
    LOCAL_UNAVAILABLE = 810
    LOCAL_INTERNAL = 811

    CONFIG_INVALID = 901
    CONFIG_UNKNOWN_KEY = 902
    CONFIG_PORT_BUSY = 903
    CONFIG_STATE_UNSAFE = 904
    CONFIG_STATE_LOCKED = 905
    CONFIG_POLICY_INVALID = 906
    CONFIG_ISOLATION_UNAVAILABLE = 907
    CONFIG_KEYSTORE_DAMAGED = 908
    CONFIG_MASTER_KEY = 909

    @property
    def text(self) -> str:
        """The stable text, for example `enrol.ticket_expired`."""
        return _TEXTS[self]

    @property
    def group(self) -> str:
        return _TEXTS[self].partition(".")[0]

    @property
    def remedy(self) -> str:
        """One sentence that tells a person what to do next."""
        return _REMEDIES[self]

    @classmethod
    def from_number_untrusted(cls, number: object) -> "Code":
        """The code a peer sent; a number we do not know, or no number, is PEER_ERROR_UNKNOWN."""
        if type(number) is not int:
            return cls.PEER_ERROR_UNKNOWN
        return _BY_NUMBER.get(number, cls.PEER_ERROR_UNKNOWN)


_BY_NUMBER: Final[Mapping[int, Code]] = {int(code): code for code in Code}
_TEXTS: Final[Mapping[Code, str]] = {code: code.name.lower().replace("_", ".", 1) for code in Code}

_REMEDIES: Final[Mapping[Code, str]] = {
    Code.PEER_ERROR_UNKNOWN: (
        "Upgrade this side; the peer gave a reason that this version does not know."
    ),
    # hop: between two nodes
    Code.HOP_HANDSHAKE_FAILED: (
        "Check that the address is a Sidelink node of the same version, then try again."
    ),
    Code.HOP_WRONG_IDENTIFIER: (
        "Compare the configured gateway identifier with `sidelink status` on that gateway; do "
        "not connect if they differ."
    ),
    Code.HOP_WRONG_AUTHORITY: (
        "Enrol both nodes with the same authority, or add the other authority to this node's "
        "configuration."
    ),
    Code.HOP_WRONG_ROLE: (
        "Check the address: the node there does not hold the role that this connection needs."
    ),
    Code.HOP_SELF_CONNECTION: (
        "Correct the configured gateway address: it leads back to this node, or a state folder "
        "was copied."
    ),
    Code.HOP_BINDING_MISMATCH: (
        "Look for a proxy that terminates QUIC between the two nodes and remove it."
    ),
    Code.HOP_CERTIFICATE_MISSING: (
        "Remove whatever resumes or strips TLS between the two nodes; each connection needs a "
        "full handshake."
    ),
    Code.HOP_DENIED: (
        "Ask the operator of the other node for a policy rule that allows `hop.admit` for this "
        "node."
    ),
    Code.HOP_TIMEOUT: (
        "Check that UDP passes in both directions between the two nodes, then try again."
    ),
    Code.HOP_RESTARTING: (
        "Wait for the delay that the gateway announced; the node reconnects by itself."
    ),
    Code.HOP_BAD_FRAME: "Upgrade both nodes to the same version and report it if it happens again.",
    Code.HOP_LIMIT_EXCEEDED: (
        "Open fewer links or send less at once, or raise the limit in the other node's "
        "configuration."
    ),
    Code.HOP_CREDENTIAL_EXPIRED: (
        "Renew this node's credential: check the clock, then enrol again with a new ticket."
    ),
    Code.HOP_ENROLMENT_ONLY: (
        "Finish enrolment first; until then this connection carries traffic to the authority only."
    ),
    Code.HOP_PEER_LOST: (
        "Check the network path and that the other node is running; the node reconnects by itself."
    ),
    Code.HOP_VERSION_UNSUPPORTED: "Upgrade the older of the two nodes.",
    Code.HOP_CLOSED: "Connect again; the other node closed this connection in good order.",
    Code.HOP_UNREACHABLE: (
        "Check the gateway's address, port and firewall, and that the gateway is running."
    ),
    Code.HOP_INTERNAL: (
        "Report it with the node's log; the node failed in a way it did not foresee."
    ),
    Code.HOP_SUPERSEDED: (
        "Stop one of the two programs that run with this node's identity; a state folder was "
        "copied, or one was started twice."
    ),
    # enrol: a node asks for its first credential
    Code.ENROL_TICKET_MISSING: (
        "Get a ticket from the authority with `sidelink ticket create` and give it to this node."
    ),
    Code.ENROL_TICKET_EXPIRED: "Ask for a new ticket: `sidelink ticket create` on the authority.",
    Code.ENROL_TICKET_USED: "Ask for a new ticket: each one enrols a single node.",
    Code.ENROL_TICKET_UNKNOWN: (
        "Ask for a new ticket; this authority does not know this one, perhaps because it was "
        "restored."
    ),
    Code.ENROL_TICKET_MALFORMED: "Copy the whole ticket again, from `slt1` to its last character.",
    Code.ENROL_WRONG_AUTHORITY: (
        "Use a ticket of the authority that this node belongs to, or start with an empty state "
        "folder."
    ),
    Code.ENROL_DENIED: (
        "Ask the operator of the gateway or authority for a policy rule that allows `node.enrol`."
    ),
    Code.ENROL_AUTHORITY_UNREACHABLE: (
        "Start the authority and check that it is connected to the gateway."
    ),
    Code.ENROL_BAD_REQUEST: "Upgrade this node to the version of the authority and enrol again.",
    Code.ENROL_NO_GATEWAY: (
        "Ask for a ticket that names a gateway, or configure a gateway for this node."
    ),
    Code.ENROL_WRONG_ROLE: (
        "Ask for a ticket of the right role with `sidelink ticket create --role`, and start with "
        "an empty state folder."
    ),
    # channel: end to end between two identities
    Code.CHANNEL_HANDSHAKE_FAILED: (
        "Try again; if it persists, check that both sides run the same version."
    ),
    Code.CHANNEL_WRONG_NAME: (
        "Check the agent URI; the identity that answered does not hold that name."
    ),
    Code.CHANNEL_WRONG_AUTHORITY: (
        "Add the other side's authority to the trusted authorities, or enrol both with the same "
        "one."
    ),
    Code.CHANNEL_DELEGATION_EXCEEDED: (
        "Issue the credential again within what its issuer may delegate, or widen the issuer's "
        "ticket."
    ),
    Code.CHANNEL_CREDENTIAL_EXPIRED: (
        "Renew the credential; check that the clocks of both machines are right."
    ),
    Code.CHANNEL_PIN_MISMATCH: (
        "Renew the peer's credential; if its key history was replaced without your doing, treat "
        "the identity as stolen."
    ),
    Code.CHANNEL_HISTORY_INVALID: (
        "Renew the peer's identity; its key history does not verify or its key has lapsed."
    ),
    Code.CHANNEL_ATTESTATION_INVALID: (
        "Restart the peer so that it attests its keys anew; check the clocks of both machines."
    ),
    Code.CHANNEL_SELF_CONNECTION: (
        "Send to another agent; an identity cannot open a channel to itself."
    ),
    Code.CHANNEL_RECORD_INVALID: "Open the channel again; a record was changed on its way.",
    Code.CHANNEL_RECORD_OUT_OF_ORDER: (
        "Open the channel again; a record was lost, repeated or moved on its way."
    ),
    Code.CHANNEL_VERSION_UNSUPPORTED: "Upgrade the older of the two sides.",
    Code.CHANNEL_TIMEOUT: "Try again; check that the peer is running and its gateway reachable.",
    Code.CHANNEL_CREDENTIAL_INVALID: "Enrol the peer again; its credential does not verify.",
    Code.CHANNEL_TOO_MANY_SIGNATURES: (
        "Renew the peer's credentials, so that they pin its newest keys and fewer checks are "
        "needed."
    ),
    Code.CHANNEL_BAD_RECORD: (
        "Upgrade both sides to the same version and report it if it happens again."
    ),
    Code.CHANNEL_CLOSED: "Open the channel again; the peer closed it in good order.",
    Code.CHANNEL_LIMIT_EXCEEDED: "Send smaller messages or fewer at once.",
    Code.CHANNEL_PROOF_INVALID: (
        "Upgrade both sides to the same version; the peer's proof of identity could not be read."
    ),
    Code.CHANNEL_UNSEALED_END: (
        "Treat the outcome as unknown and ask again; the channel ended without a sealed goodbye."
    ),
    Code.CHANNEL_NOT_YET_VALID: (
        "Correct the clocks of both machines; something is signed for a time that has not come."
    ),
    Code.CHANNEL_SESSION_UNKNOWN: (
        "Treat the outcome of what was under way as unknown and send again; the peer's sidecar was "
        "restarted and has forgotten the channel."
    ),
    Code.CHANNEL_MOVE_INVALID: (
        "Upgrade both sides to the same version; a channel could not go on over another link."
    ),
    Code.CHANNEL_IDLE: "Send again; the channel was put away because nothing had been said on it.",
    Code.CHANNEL_RESTARTING: (
        "Wait; the peer's sidecar is restarting, and the next message opens another channel."
    ),
    # route: through a gateway
    Code.ROUTE_UNKNOWN: "Check the agent URI and that the sidecar that holds it is connected.",
    Code.ROUTE_PREFIX_DENIED: (
        "Register only the name prefix of this node's credential, or ask for a ticket with that "
        "prefix."
    ),
    Code.ROUTE_DISPLACED: (
        "Stop the other node that registered this prefix, or restart this one to take it back."
    ),
    Code.ROUTE_SOURCE_DENIED: "Send under a name within this node's own prefix.",
    Code.ROUTE_LINK_LIMIT: (
        "Close links that are not needed, or raise the gateway's limit of links."
    ),
    Code.ROUTE_CREDIT_EXCEEDED: "Upgrade the sending node; it sent more than it was granted.",
    Code.ROUTE_UNREACHABLE: "Check that the other node is running and connected to a gateway.",
    Code.ROUTE_LINK_CLOSED: "Open the link again; the other end closed it.",
    Code.ROUTE_BAD_FRAME: (
        "Upgrade both nodes to the same version and report it if it happens again."
    ),
    Code.ROUTE_DENIED: (
        "Ask the operator of the gateway for a policy rule that allows `link.relay` between "
        "these names."
    ),
    Code.ROUTE_RESTARTING: ("Wait and send again; the sidecar that holds this name is restarting."),
    # policy: a decision said no
    Code.POLICY_DENIED: (
        "Look up the named rule with `sidelink policy check`; a deny rule wins over every allow "
        "rule."
    ),
    Code.POLICY_NO_RULE: (
        "Add a rule to policy.yaml that allows this action; what no rule allows is denied."
    ),
    Code.POLICY_INVALID: (
        "Correct policy.yaml at the line named; `sidelink policy check` reads it without a restart."
    ),
    Code.POLICY_NOT_READY: (
        "Write a policy.yaml with at least one rule; an empty or missing policy denies everything."
    ),
    # message: between two agents
    Code.MESSAGE_TOO_LARGE: "Send at most 1 MiB in one message, or use a stream.",
    Code.MESSAGE_MAILBOX_FULL: (
        "Wait and send again; the receiver has not taken what was already delivered."
    ),
    Code.MESSAGE_TIMEOUT: (
        "Treat the outcome as unknown; ask again only if the request may safely happen twice."
    ),
    Code.MESSAGE_UNREACHABLE: (
        "Check the agent URI, and that its sidecar is connected, with `sidelink status`."
    ),
    Code.MESSAGE_REJECTED: "Read the reason that the receiving agent gave.",
    Code.MESSAGE_EXPIRED: "Ask with a longer timeout; the deadline passed before delivery.",
    Code.MESSAGE_AGENT_UNKNOWN: (
        "Check the agent URI; no agent of that name is open at the receiving sidecar."
    ),
    Code.MESSAGE_NOT_AN_ASK: "Reply only to an ask; a tell has no sender that waits.",
    Code.MESSAGE_BODY_INVALID: (
        "Send plain values, or bytes or text with a content type that says what they are."
    ),
    Code.MESSAGE_OUTCOME_UNKNOWN: (
        "The channel broke after the message had left: ask the other agent, or repeat what may be "
        "repeated."
    ),
    Code.MESSAGE_QUEUE_FULL: (
        "Wait and send again; messages to this peer are queued up to the limit."
    ),
    # stream: bytes inside the mesh
    Code.STREAM_SERVICE_UNKNOWN: (
        "Check the service's name in the configuration of the sidecar that offers it."
    ),
    Code.STREAM_SECRET_INVALID: "Open the stream again; its secret was unknown or already used.",
    Code.STREAM_RESET: "Open the stream again if it is still needed; the other end gave it up.",
    Code.STREAM_CREDIT_EXCEEDED: "Upgrade the sending node; it sent more than it was granted.",
    Code.STREAM_TRUNCATED: (
        "Treat what arrived as incomplete; the stream ended without a sealed end."
    ),
    Code.STREAM_EARLY_BYTES: (
        "Open the stream again; too many bytes came before the request that explains them."
    ),
    Code.STREAM_UPSTREAM_FAILED: (
        "Check that the service beside the other sidecar is running, and read that sidecar's log."
    ),
    Code.STREAM_TIMEOUT: "Try again; the service did not answer in time.",
    Code.STREAM_LIMIT: (
        "Close streams that are not needed, or raise the limit in the configuration."
    ),
    Code.STREAM_BAD_HEAD: (
        "Upgrade both sidecars to the same version; the head of the stream could not be read."
    ),
    # local: between an agent and its own sidecar
    Code.LOCAL_UNAUTHORIZED: (
        "Give the token that this listener asks for, or connect as the user that runs the sidecar."
    ),
    Code.LOCAL_BAD_REQUEST: "Correct the request as the message says.",
    Code.LOCAL_NAME_OUTSIDE_PREFIX: (
        "Choose a name within the prefix of this sidecar's credential; `sidelink status` shows it."
    ),
    Code.LOCAL_ATTRIBUTE_DENIED: (
        "Use only attributes that this sidecar's credential may delegate, or ask for a ticket "
        "that allows more."
    ),
    Code.LOCAL_AGENT_BUSY: "Close the agent in the process that holds it, or choose another name.",
    Code.LOCAL_VERSION_UNSUPPORTED: (
        "Upgrade the package `sidelink` or the sidecar, whichever is older."
    ),
    Code.LOCAL_LIMIT: (
        "Wait for earlier requests to finish, or raise the limit in the sidecar's configuration."
    ),
    Code.LOCAL_AGENT_UNKNOWN: "Open the agent on this connection before using it.",
    Code.LOCAL_DRAINING: "Wait and connect again; the sidecar is shutting down.",
    Code.LOCAL_UNAVAILABLE: (
        "Start the sidecar with `sidelink up`, and look at `sidelink status` for what it waits for."
    ),
    Code.LOCAL_INTERNAL: "Report it with the sidecar's log; it failed in a way it did not foresee.",
    # config: a program cannot start as it is set up
    Code.CONFIG_INVALID: "Correct the value that is named.",
    Code.CONFIG_UNKNOWN_KEY: "Correct or remove the key; its spelling is not known.",
    Code.CONFIG_PORT_BUSY: (
        "Stop the program that holds the port, or choose another port (0 takes any)."
    ),
    Code.CONFIG_STATE_UNSAFE: (
        "Give the state folder to the user that runs the program and close it to others: `chmod "
        "700`."
    ),
    Code.CONFIG_STATE_LOCKED: (
        "Stop the other program that uses this state folder, or choose another folder."
    ),
    Code.CONFIG_POLICY_INVALID: (
        "Correct the policy at the line named; `sidelink policy check` reads it again."
    ),
    Code.CONFIG_ISOLATION_UNAVAILABLE: (
        "Run the service under another user, use a kernel with Landlock, or accept the risk "
        "with `unsafe_same_uid: true`."
    ),
    Code.CONFIG_KEYSTORE_DAMAGED: (
        "Restore the state folder from a backup, or remove the named identity and enrol it again."
    ),
    Code.CONFIG_MASTER_KEY: (
        "Provide the master key that this state folder was made with, in a file of mode 0600."
    ),
}
