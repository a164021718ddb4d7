"""The Sidelink SDK: what an agent imports to talk through its sidecar. Needs msgspec only."""

from sidelink.agent import Agent
from sidelink.errors import (
    AskTimeout,
    BodyError,
    LocalError,
    MailboxFull,
    PolicyDenied,
    Rejected,
    SidelinkError,
    Unreachable,
    Untrusted,
    WireError,
)
from sidelink.mesh import Mesh, connect, default_socket_path
from sidelink.messages import Message, Reply

__all__ = [
    "Agent",
    "AskTimeout",
    "BodyError",
    "LocalError",
    "MailboxFull",
    "Mesh",
    "Message",
    "PolicyDenied",
    "Rejected",
    "Reply",
    "SidelinkError",
    "Unreachable",
    "Untrusted",
    "WireError",
    "connect",
    "default_socket_path",
]
