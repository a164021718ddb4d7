"""Every target there is. A test proves that all functions named `…_untrusted` are reached."""

from typing import Final

from tests.fuzz import (
    machine_channel,
    machine_datagrams,
    machine_enrolment,
    machine_hop,
    machine_link,
    machine_local,
    machine_neighbours,
    machine_relay,
    machine_sidecar,
    machine_stream,
    targets_audit,
    targets_authority,
    targets_backup,
    targets_channel,
    targets_identity,
    targets_link,
    targets_node,
    targets_policy,
    targets_sidecar,
    targets_signed_policy,
    targets_transport,
)
from tests.fuzz.target import Target

TARGETS: Final[list[Target]] = [
    *targets_link.TARGETS,
    *targets_channel.TARGETS,
    *targets_identity.TARGETS,
    *targets_signed_policy.TARGETS,
    *targets_transport.TARGETS,
    *targets_node.TARGETS,
    *targets_audit.TARGETS,
    *targets_authority.TARGETS,
    *targets_backup.TARGETS,
    *targets_sidecar.TARGETS,
    *targets_policy.TARGETS,
    *machine_channel.TARGETS,
    *machine_stream.TARGETS,
    *machine_link.TARGETS,
    *machine_relay.TARGETS,
    *machine_hop.TARGETS,
    *machine_sidecar.TARGETS,
    *machine_enrolment.TARGETS,
    *machine_local.TARGETS,
    *machine_neighbours.TARGETS,
    *machine_datagrams.TARGETS,
]

assert len({target.name for target in TARGETS}) == len(TARGETS)
