"""What can go wrong, as an agent sees it: one class for each thing it can do about it.

`code` is stable text from the project's registry (for example ``policy.denied``); match on the
class or on the code, never on the message, which is for people.
"""

from typing import Final


class SidelinkError(Exception):
    """The base of everything this package raises on purpose."""

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        rule: str | None = None,
        remedy: str = "",
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code: Final = code
        self.message: Final = message
        self.rule: Final = rule
        self.remedy: Final = remedy
        self.outcome_unknown: Final = outcome_unknown
        """True when the other agent may or may not have acted on the message."""


class PolicyDenied(SidelinkError):  # noqa: N818  # reads as what happened, where it is caught
    """A policy said no, at either end or at the gateway. `rule` names the rule, if one matched."""


class Unreachable(SidelinkError):  # noqa: N818
    """There is no way to the agent, or to the sidecar, at the moment."""


class Untrusted(SidelinkError):  # noqa: N818
    """The far side could not prove that it is who was asked for."""


class AskTimeout(SidelinkError):  # noqa: N818
    """No reply in time: the outcome is unknown, for the other agent may have acted."""


class Rejected(SidelinkError):  # noqa: N818
    """The other agent's handler refused the message; `message` is the reason that it gave."""


class MailboxFull(SidelinkError):  # noqa: N818
    """A bounded queue on the way is full: slow down and try again."""


class BodyError(SidelinkError):
    """The body cannot be sent (too large, not plain data) or what arrived is not what it says."""


class LocalError(SidelinkError):
    """The sidecar refused what this program asked of it, or cannot be spoken to."""


class WireError(LocalError):
    """The bytes on the local socket are not this protocol. Ends the connection."""


_CLASS_OF_CODE: Final[dict[str, type[SidelinkError]]] = {
    "channel.closed": Unreachable,
    "channel.credential_expired": Unreachable,
    "channel.limit_exceeded": Unreachable,
    "channel.timeout": Unreachable,
    "channel.unsealed_end": Unreachable,
    "local.draining": Unreachable,
    "local.unavailable": Unreachable,
    "message.agent_unknown": Unreachable,
    "message.body_invalid": BodyError,
    "message.expired": Unreachable,
    "message.mailbox_full": MailboxFull,
    "message.not_an_ask": LocalError,
    "message.outcome_unknown": Unreachable,
    "message.queue_full": MailboxFull,
    "message.rejected": Rejected,
    "message.timeout": AskTimeout,
    "message.too_large": BodyError,
    "message.unreachable": Unreachable,
}
_CLASS_OF_GROUP: Final[dict[str, type[SidelinkError]]] = {
    "channel": Untrusted,
    "hop": Unreachable,
    "local": LocalError,
    "policy": PolicyDenied,
    "route": Unreachable,
}
_OUTCOME_UNKNOWN: Final = frozenset(
    {"channel.closed", "message.outcome_unknown", "message.timeout"}
)


def error_from_code(
    code: str, message: str = "", *, rule: str | None = None, remedy: str = ""
) -> SidelinkError:
    """The error of the class that fits `code`; an unknown code gives the base class."""
    group = code.partition(".")[0]
    error_class = _CLASS_OF_CODE.get(code) or _CLASS_OF_GROUP.get(group, SidelinkError)
    return error_class(
        code, message, rule=rule, remedy=remedy, outcome_unknown=code in _OUTCOME_UNKNOWN
    )


def copy_error(error: SidelinkError) -> SidelinkError:
    """The same error once more. One object that is raised again and again grows a traceback."""
    return type(error)(
        error.code,
        error.message,
        rule=error.rule,
        remedy=error.remedy,
        outcome_unknown=error.outcome_unknown,
    )
