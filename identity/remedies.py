"""What a person does about each code: one sentence, by the code's stable text."""

from collections.abc import Mapping
from typing import Final

REMEDIES: Final[Mapping[str, str]] = {
    "peer.error_unknown": (
        "Upgrade this side; the peer gave a reason that this version does not know."
    ),
    # hop: between two nodes
    "hop.handshake_failed": (
        "Check that the address is a Sidelink node of the same version, then try again."
    ),
    "hop.wrong_identifier": (
        "Compare the configured gateway identifier with `sidelink status` on that gateway; do "
        "not connect if they differ."
    ),
    "hop.wrong_authority": (
        "Enrol both nodes with the same authority, or add the other authority to this node's "
        "configuration."
    ),
    "hop.wrong_role": (
        "Check the address: the node there does not hold the role that this connection needs."
    ),
    "hop.self_connection": (
        "Correct the configured gateway address: it leads back to this node, or a state folder "
        "was copied."
    ),
    "hop.binding_mismatch": (
        "Look for a proxy that terminates QUIC between the two nodes and remove it."
    ),
    "hop.certificate_missing": (
        "Remove whatever resumes or strips TLS between the two nodes; each connection needs a "
        "full handshake."
    ),
    "hop.denied": (
        "Ask the operator of the other node for a policy rule that allows `hop.admit` for this "
        "node."
    ),
    "hop.timeout": (
        "Check that UDP passes in both directions between the two nodes, then try again."
    ),
    "hop.restarting": (
        "Wait for the delay that the gateway announced; the node reconnects by itself."
    ),
    "hop.bad_frame": "Upgrade both nodes to the same version and report it if it happens again.",
    "hop.limit_exceeded": (
        "Open fewer links or send less at once, or raise the limit in the other node's "
        "configuration."
    ),
    "hop.credential_expired": (
        "Renew this node's credential: check the clock, then enrol again with a new ticket."
    ),
    "hop.enrolment_only": (
        "Finish enrolment first; until then this connection carries traffic to the authority only."
    ),
    "hop.peer_lost": (
        "Check the network path and that the other node is running; the node reconnects by itself."
    ),
    "hop.version_unsupported": "Upgrade the older of the two nodes.",
    "hop.closed": "Connect again; the other node closed this connection in good order.",
    "hop.unreachable": (
        "Check the gateway's address, port and firewall, and that the gateway is running."
    ),
    "hop.internal": ("Report it with the node's log; the node failed in a way it did not foresee."),
    "hop.superseded": (
        "Stop one of the two programs that run with this node's identity; a state folder was "
        "copied, or one was started twice."
    ),
    "hop.revoked": (
        "Ask the operator of the authority why this node was revoked; enrol a new node if it "
        "was a mistake."
    ),
    # enrol: a node asks for its first credential
    "enrol.ticket_missing": (
        "Get a ticket from the authority with `sidelink ticket create` and give it to this node."
    ),
    "enrol.ticket_expired": "Ask for a new ticket: `sidelink ticket create` on the authority.",
    "enrol.ticket_used": "Ask for a new ticket: each one enrols a single node.",
    "enrol.ticket_unknown": (
        "Ask for a new ticket; this authority does not know this one, perhaps because it was "
        "restored."
    ),
    "enrol.ticket_malformed": "Copy the whole ticket again, from `slt1` to its last character.",
    "enrol.wrong_authority": (
        "Use a ticket of the authority that this node belongs to, or start with an empty state "
        "folder."
    ),
    "enrol.denied": (
        "Ask the operator of the gateway or authority for a policy rule that allows `node.enrol`."
    ),
    "enrol.authority_unreachable": (
        "Start the authority and check that it is connected to the gateway."
    ),
    "enrol.bad_request": "Upgrade this node to the version of the authority and enrol again.",
    "enrol.no_gateway": (
        "Ask for a ticket that names a gateway, or configure a gateway for this node."
    ),
    "enrol.wrong_role": (
        "Ask for a ticket of the right role with `sidelink ticket create --role`, and start with "
        "an empty state folder."
    ),
    "enrol.ticket_revoked": (
        "Ask for a new ticket; the operator of the authority has withdrawn this one."
    ),
    "enrol.name_denied": (
        "Choose a name below the prefix of the ticket that no other node has, or let the "
        "authority choose."
    ),
    "enrol.token_invalid": (
        "Check issuer, audience and age of the workload token against the authority's "
        "configuration."
    ),
    "enrol.token_used": ("Wait for a fresh workload token; each one enrols one node once."),
    "enrol.keys_unavailable": (
        "Check the JWKS file or URL in the authority's configuration, then try again."
    ),
    "enrol.revoked": (
        "Start with an empty state folder and a new ticket; a revoked identity is never let "
        "in again."
    ),
    "enrol.not_a_member": (
        "Enrol again with a new ticket; the authority has no record of this node."
    ),
    # channel: end to end between two identities
    "channel.handshake_failed": (
        "Try again; if it persists, check that both sides run the same version."
    ),
    "channel.wrong_name": (
        "Check the agent URI; the identity that answered does not hold that name."
    ),
    "channel.wrong_authority": (
        "Add the other side's authority to the trusted authorities, or enrol both with the same "
        "one."
    ),
    "channel.delegation_exceeded": (
        "Issue the credential again within what its issuer may delegate, or widen the issuer's "
        "ticket."
    ),
    "channel.credential_expired": (
        "Renew the credential; check that the clocks of both machines are right."
    ),
    "channel.pin_mismatch": (
        "Renew the peer's credential; if its key history was replaced without your doing, treat "
        "the identity as stolen."
    ),
    "channel.history_invalid": (
        "Renew the peer's identity; its key history does not verify or its key has lapsed."
    ),
    "channel.attestation_invalid": (
        "Restart the peer so that it attests its keys anew; check the clocks of both machines."
    ),
    "channel.self_connection": (
        "Send to another agent; an identity cannot open a channel to itself."
    ),
    "channel.record_invalid": "Open the channel again; a record was changed on its way.",
    "channel.record_out_of_order": (
        "Open the channel again; a record was lost, repeated or moved on its way."
    ),
    "channel.version_unsupported": "Upgrade the older of the two sides.",
    "channel.timeout": "Try again; check that the peer is running and its gateway reachable.",
    "channel.credential_invalid": "Enrol the peer again; its credential does not verify.",
    "channel.too_many_signatures": (
        "Renew the peer's credentials, so that they pin its newest keys and fewer checks are "
        "needed."
    ),
    "channel.bad_record": (
        "Upgrade both sides to the same version and report it if it happens again."
    ),
    "channel.closed": "Open the channel again; the peer closed it in good order.",
    "channel.limit_exceeded": "Send smaller messages or fewer at once.",
    "channel.proof_invalid": (
        "Upgrade both sides to the same version; the peer's proof of identity could not be read."
    ),
    "channel.unsealed_end": (
        "Treat the outcome as unknown and ask again; the channel ended without a sealed goodbye."
    ),
    "channel.not_yet_valid": (
        "Correct the clocks of both machines; something is signed for a time that has not come."
    ),
    "channel.session_unknown": (
        "Treat the outcome of what was under way as unknown and send again; the peer's sidecar was "
        "restarted and has forgotten the channel."
    ),
    "channel.move_invalid": (
        "Upgrade both sides to the same version; a channel could not go on over another link."
    ),
    "channel.idle": "Send again; the channel was put away because nothing had been said on it.",
    "channel.restarting": (
        "Wait; the peer's sidecar is restarting, and the next message opens another channel."
    ),
    "channel.revoked": (
        "Ask the operator of the peer's authority why it was revoked; nothing will be "
        "accepted from it."
    ),
    "channel.revocations_stale": (
        "Reconnect this node to a gateway that the authority reaches; its revocation list is "
        "out of date."
    ),
    "channel.revocations_invalid": (
        "Report it to the operator of the neighbour that sent it; the list was not made by "
        "its authority."
    ),
    "channel.revocations_outdated": (
        "Nothing to do here; the sender holds an older revocation list than this node."
    ),
    "channel.history_outdated": (
        "Restore the newest state of the peer; it shows keys that it has replaced since."
    ),
    # route: through a gateway
    "route.unknown": "Check the agent URI and that the sidecar that holds it is connected.",
    "route.prefix_denied": (
        "Register only the name prefix of this node's credential, or ask for a ticket with that "
        "prefix."
    ),
    "route.displaced": (
        "Stop the other node that registered this prefix, or restart this one to take it back."
    ),
    "route.source_denied": "Send under a name within this node's own prefix.",
    "route.link_limit": ("Close links that are not needed, or raise the gateway's limit of links."),
    "route.credit_exceeded": "Upgrade the sending node; it sent more than it was granted.",
    "route.unreachable": "Check that the other node is running and connected to a gateway.",
    "route.link_closed": "Open the link again; the other end closed it.",
    "route.bad_frame": (
        "Upgrade both nodes to the same version and report it if it happens again."
    ),
    "route.denied": (
        "Ask the operator of the gateway for a policy rule that allows `link.relay` between "
        "these names."
    ),
    "route.restarting": ("Wait and send again; the sidecar that holds this name is restarting."),
    # policy: a decision said no
    "policy.denied": (
        "Look up the named rule with `sidelink policy check`; a deny rule wins over every allow "
        "rule."
    ),
    "policy.no_rule": (
        "Add a rule to policy.yaml that allows this action; what no rule allows is denied."
    ),
    "policy.invalid": (
        "Correct policy.yaml at the line named; `sidelink policy check` reads it without a restart."
    ),
    "policy.not_ready": (
        "Write a policy.yaml with at least one rule; an empty or missing policy denies everything."
    ),
    "policy.limited": (
        "Wait and ask again, less often; the rule that allows this has a `limit`, which is spent."
    ),
    "policy.bundle_invalid": (
        "Report it to the operator of the neighbour that sent it; the mandatory policy was not "
        "signed by its authority, nor by a signer whom that names."
    ),
    "policy.bundle_outdated": (
        "Nothing to do here; the sender holds an older mandatory policy than this node."
    ),
    "policy.signer_denied": (
        "Publish at the authority, or have its operator name this node: "
        "`sidelink policy signers --add IDENTIFIER`."
    ),
    # message: between two agents
    "message.too_large": "Send at most 1 MiB in one message, or use a stream.",
    "message.mailbox_full": (
        "Wait and send again; the receiver has not taken what was already delivered."
    ),
    "message.timeout": (
        "Treat the outcome as unknown; ask again only if the request may safely happen twice."
    ),
    "message.unreachable": (
        "Check the agent URI, and that its sidecar is connected, with `sidelink status`."
    ),
    "message.rejected": "Read the reason that the receiving agent gave.",
    "message.expired": "Ask with a longer timeout; the deadline passed before delivery.",
    "message.agent_unknown": (
        "Check the agent URI; no agent of that name is open at the receiving sidecar."
    ),
    "message.not_an_ask": "Reply only to an ask; a tell has no sender that waits.",
    "message.body_invalid": (
        "Send plain values, or bytes or text with a content type that says what they are."
    ),
    "message.outcome_unknown": (
        "The channel broke after the message had left: ask the other agent, or repeat what may be "
        "repeated."
    ),
    "message.queue_full": (
        "Wait and send again; messages to this peer are queued up to the limit."
    ),
    # stream: bytes inside the mesh
    "stream.service_unknown": (
        "Check the service's name in the configuration of the sidecar that offers it."
    ),
    "stream.secret_invalid": "Open the stream again; its secret was unknown or already used.",
    "stream.reset": "Open the stream again if it is still needed; the other end gave it up.",
    "stream.credit_exceeded": "Upgrade the sending node; it sent more than it was granted.",
    "stream.truncated": (
        "Treat what arrived as incomplete; the stream ended without a sealed end."
    ),
    "stream.early_bytes": (
        "Open the stream again; too many bytes came before the request that explains them."
    ),
    "stream.upstream_failed": (
        "Check that the service beside the other sidecar is running, and read that sidecar's log."
    ),
    "stream.timeout": "Try again; the service did not answer in time.",
    "stream.limit": ("Close streams that are not needed, or raise the limit in the configuration."),
    "stream.bad_head": (
        "Upgrade both sidecars to the same version; the head of the stream could not be read."
    ),
    # local: between an agent and its own sidecar
    "local.unauthorized": (
        "Show a token for this agent, or ask the sidecar's operator for a rule in `agents.rules` "
        "that lets this user act as it."
    ),
    "local.bad_request": "Correct the request as the message says.",
    "local.name_outside_prefix": (
        "Choose a name within the prefix of this sidecar's credential; `sidelink status` shows it."
    ),
    "local.attribute_denied": (
        "Use only attributes that this sidecar's credential may delegate, or ask for a ticket "
        "that allows more."
    ),
    "local.agent_busy": "Close the agent in the process that holds it, or choose another name.",
    "local.version_unsupported": (
        "Upgrade the package `sidelink` or the sidecar, whichever is older."
    ),
    "local.limit": (
        "Wait for earlier requests to finish, or raise the limit in the sidecar's configuration."
    ),
    "local.agent_unknown": "Open the agent on this connection before using it.",
    "local.draining": "Wait and connect again; the sidecar is shutting down.",
    "local.unavailable": (
        "Start the sidecar with `sidelink up`, and look at `sidelink status` for what it waits for."
    ),
    "local.internal": "Report it with the sidecar's log; it failed in a way it did not foresee.",
    "local.agent_expired": ("Spawn the agent again; its time to live is over."),
    "local.agent_revoked": (
        "Use another name; the authority has revoked this agent or one above it."
    ),
    "local.delegation_denied": (
        "Ask for less: a child may have no name, attribute, action or life beyond its parent's."
    ),
    # config: a program cannot start as it is set up
    "config.invalid": "Correct the value that is named.",
    "config.unknown_key": "Correct or remove the key; its spelling is not known.",
    "config.port_busy": (
        "Stop the program that holds the port, or choose another port (0 takes any)."
    ),
    "config.state_unsafe": (
        "Give the state folder to the user that runs the program and close it to others: `chmod "
        "700`."
    ),
    "config.state_locked": (
        "Stop the other program that uses this state folder, or choose another folder."
    ),
    "config.policy_invalid": (
        "Correct the policy at the line named; `sidelink policy check` reads it again."
    ),
    "config.isolation_unavailable": (
        "Run the service under another user, use a kernel with Landlock, or accept the risk "
        "with `unsafe_same_uid: true`."
    ),
    "config.keystore_damaged": (
        "Restore the state folder from a backup, or remove the named identity and enrol it again."
    ),
    "config.master_key": (
        "Provide the master key that this state folder was made with, in a file of mode 0600."
    ),
    "config.backup_invalid": (
        "Use another copy of the backup; this file is damaged or was made by something else."
    ),
    "config.backup_passphrase": ("Give the passphrase that the backup was made with."),
}
