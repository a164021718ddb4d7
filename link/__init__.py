"""Between neighbours: frames, lanes, credits, routes and the relay table. No I/O, no clock."""

from link.credits import ReceiveWindow, RelayWindow, SendWindow
from link.errors import CreditError, FrameError, LinkError
from link.frames import CONTROL_KIND_MIN, Frame, FrameKind, FrameParser, encode_frame
from link.lanes import LaneWriter, lane_of
from link.limits import LANES, LINK_WINDOW_BYTES, STREAM_WINDOW_BYTES
from link.messages import (
    PROTOCOL_VERSION,
    VERSIONS,
    Credit,
    HopHello,
    HopLimits,
    LinkOpen,
    LinkTarget,
    PrefixEpoch,
    StreamPreamble,
)
from link.port import HopPort
from link.relay import Direction, LinkEnd, LinkIds, RelayTable, is_peers_link
from link.routes import Directory, Route

__all__ = [
    "CONTROL_KIND_MIN",
    "LANES",
    "LINK_WINDOW_BYTES",
    "PROTOCOL_VERSION",
    "STREAM_WINDOW_BYTES",
    "VERSIONS",
    "Credit",
    "CreditError",
    "Direction",
    "Directory",
    "Frame",
    "FrameError",
    "FrameKind",
    "FrameParser",
    "HopHello",
    "HopLimits",
    "HopPort",
    "LaneWriter",
    "LinkEnd",
    "LinkError",
    "LinkIds",
    "LinkOpen",
    "LinkTarget",
    "PrefixEpoch",
    "ReceiveWindow",
    "RelayTable",
    "RelayWindow",
    "Route",
    "SendWindow",
    "StreamPreamble",
    "encode_frame",
    "is_peers_link",
    "lane_of",
]
