"""The two answers of policy. A Permit cannot be made anywhere but in the engine.

It guards against forgetting to ask and against mistakes, not against code within this process
that sets out to cheat: Python cannot keep a secret from its own program.
"""

from dataclasses import InitVar, dataclass, field
from typing import Any, Final, NoReturn

from identity import AgentUri, Code, Identifier
from policy.obligations import NO_OBLIGATIONS, Disclosure, Obligations
from policy.request import Action

PERMIT_LIFETIME_S: Final = 300.0
"""A permit ends by then at the latest, so that no cache outlives a change for longer."""

_DECIDED: Final = object()


@dataclass(frozen=True, slots=True)
class AuditedRule:
    """A rule in audit mode that would have matched: ``effect`` is allow, deny or limit."""

    name: str
    effect: str


@dataclass(frozen=True, slots=True)
class Permit:
    """Policy said yes to this action of this subject on this object, until it expires.

    If ``cacheable``, it holds for every further request that differs only in a message size which
    ``covers`` allows.
    """

    action: Action
    subject: Identifier
    object_name: AgentUri | None
    policy_version: str
    expires_unix_s: float
    rule: str
    decision_id: str
    message_bytes_max: int | None
    cacheable: bool
    made_by_decide: InitVar[object]
    obligations: Obligations = NO_OBLIGATIONS
    """What whoever acts on the permit has to do besides."""
    audited: tuple[AuditedRule, ...] = ()
    _seal: object = field(init=False, repr=False, compare=False)

    def __post_init__(self, made_by_decide: object) -> None:
        if made_by_decide is not _DECIDED:
            raise TypeError("a Permit comes from PolicyEngine.decide(), and from nowhere else")
        object.__setattr__(self, "_seal", _DECIDED)

    def __init_subclass__(cls, **_: object) -> NoReturn:
        raise TypeError("nothing may pass for a Permit")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Permit holds in the process that decided it, and in no other")

    def covers(self, message_bytes: int) -> bool:
        """Whether a message of this size is within the bounds that the rules set."""
        return self.message_bytes_max is None or message_bytes <= self.message_bytes_max

    def require(
        self, action: Action, *, subject: Identifier | None = None, unix_s: float | None = None
    ) -> None:
        """Raise PermissionError unless this is for that action (and subject, and still valid)."""
        if getattr(self, "_seal", None) is not _DECIDED:
            raise TypeError("this Permit was not made by PolicyEngine.decide()")
        if self.action != action:
            raise PermissionError(f"a permit for {self.action} does not allow {action}")
        if subject is not None and self.subject != subject:
            raise PermissionError("a permit of somebody else")
        if unix_s is not None and unix_s >= self.expires_unix_s:
            raise PermissionError("a permit that has expired")


@dataclass(frozen=True, slots=True)
class Denial:
    """Policy said no. ``rule`` names the deny rule that matched; None when nothing allows it.

    For ``policy.limited`` it names the rule whose limit is spent. ``reason`` is a sentence for a
    person, and ``disclose`` is what the policy says of how much of all this may be told.
    """

    code: Code
    rule: str | None
    reason: str
    decision_id: str
    policy_version: str
    disclose: Disclosure | None = None
    audited: tuple[AuditedRule, ...] = ()

    def told(self, *, colleague: bool) -> tuple[str, str]:
        """The rule and the reason, as far as the caller may know them; empty where not.

        Where the policy does not say, colleagues are told everything, and strangers nothing.
        """
        disclose = self.disclose
        if disclose is None:
            disclose = Disclosure.REASON if colleague else Disclosure.NONE
        if disclose is Disclosure.NONE:
            return "", ""
        return self.rule or "", self.reason if disclose is Disclosure.REASON else ""


def require(
    permit: object,
    action: Action,
    *,
    subject: Identifier | None = None,
    unix_s: float | None = None,
) -> Permit:
    """Return the permit if it is one and allows this; TypeError or PermissionError otherwise."""
    if type(permit) is not Permit:
        raise TypeError(f"a Permit is needed, not {type(permit).__name__}")
    permit.require(action, subject=subject, unix_s=unix_s)
    return permit


def make_permit(
    action: Action,
    subject: Identifier,
    object_name: AgentUri | None,
    *,
    policy_version: str,
    expires_unix_s: float,
    rule: str,
    decision_id: str,
    message_bytes_max: int | None,
    cacheable: bool,
    obligations: Obligations = NO_OBLIGATIONS,
    audited: tuple[AuditedRule, ...] = (),
) -> Permit:
    """For the engine only; the package does not export it, and a test holds that."""
    return Permit(
        action,
        subject,
        object_name,
        policy_version,
        expires_unix_s,
        rule,
        decision_id,
        message_bytes_max,
        cacheable,
        _DECIDED,
        obligations,
        audited,
    )
