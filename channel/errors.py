"""What can go wrong in a channel.

* ChannelError          the peer, or somebody between, did what the protocol forbids
  - ChannelStateError   you asked for what the state forbids; nothing has changed

Each carries a code of the registry. The code may cross the wire; the detail never does.
"""

from identity import SidelinkError


class ChannelError(SidelinkError):
    """The session that raised this is over. Close; do not argue, do not retry on it."""


class ChannelStateError(ChannelError):
    """A mistake of our own: the call is not legal in this state."""
