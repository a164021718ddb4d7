"""The engine: one policy, compiled once, asked for every decision. Deny by default."""

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from identity import AgentUri, Code
from policy.bundles import BASELINE_FILE, BASELINE_POLICY
from policy.cel import ValueType
from policy.condition import Facts
from policy.decision import PERMIT_LIFETIME_S, AuditedRule, Denial, Permit, make_permit
from policy.documents import PolicySource, read_bundle, read_policy, version_of
from policy.evaluation import (
    Reuse,
    allows,
    could_allow,
    denies,
    find_allowing,
    find_denying,
    index_rules,
    nearest_rule,
)
from policy.limits import LimitTable
from policy.model import PolicyDocument, Rule
from policy.obligations import Disclosure
from policy.request import (
    IMPLIED_BY,
    MESSAGE_ACTIONS,
    SERVICE_ACTIONS,
    Action,
    Request,
)
from policy.selftest import PolicyTest, PolicyTestOutcome, read_question, read_tests
from policy.trace import Trace, trace_rules

NEAREST_RULES_MAX: Final = 16
"""To say which came nearest, a denial looks at no more rules of an action than this."""
AUDITED_RULES_MAX: Final = 8
"""Named in one decision."""
_NO_POLICY: Final = "there is no policy, so everything is denied"
_NO_RULES: Final = "the policy has no rules, so everything is denied"

# Their permits hold for one tool and one set of arguments, so they are never reused.
_NEVER_REUSED: Final = frozenset(
    {
        Action.MCP_LIST,
        Action.MCP_CALL,
        Action.MCP_READ,
        Action.MCP_PROMPT,
        Action.MCP_RESULT,
        Action.ROUTE_REGISTER,
    }
)

# What a request has to name, by action.
_NAMED_BY: Final = {
    **dict.fromkeys(SERVICE_ACTIONS, ("service",)),
    Action.MCP_CALL: ("service", "tool"),
    Action.ROUTE_REGISTER: ("prefix",),
}


class PolicyEngine:
    """Answers requests. ``version`` changes with the text.

    Holds no state but a counter, and ``limits``, which the engine that replaces it takes over.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        *,
        version: str,
        unready: str | None,
        documents: tuple[PolicyDocument, ...] = (),
        limits: LimitTable | None = None,
    ) -> None:
        self.version = version
        self.unready = unready
        """Why everything is denied; None when the policy is in force."""
        self.rules = rules
        self.rule_names = tuple(rule.name for rule in rules)
        self.limits = LimitTable() if limits is None else limits
        self._documents = documents
        self.disclose = min(
            (one.defaults.disclose for one in documents if one.defaults.disclose is not None),
            key=list(Disclosure).index,
            default=None,
        )
        """What the files say of denials that no rule of theirs is the reason for."""
        self._allowing = index_rules(rules, allows=True)
        self._denying = index_rules(rules, allows=False)
        self._audited_allowing = index_rules(rules, allows=True, enforced=False)
        self._audited_denying = index_rules(rules, allows=False, enforced=False)
        # Unique across engines and processes without asking for chance each time.
        self._decision_prefix = os.urandom(6).hex()
        self._decisions = 0

    @classmethod
    def load(cls, text: str, *, file: str, baseline: bool = True) -> "PolicyEngine":
        """Compile a policy that is one text: see ``load_bundle``."""
        return cls.load_bundle([PolicySource(file, text)], baseline=baseline)

    @classmethod
    def load_bundle(
        cls,
        files: Sequence[PolicySource],
        *,
        baseline: bool = True,
        limits: LimitTable | None = None,
    ) -> "PolicyEngine":
        """Compile a policy of one or more files; raises PolicyError, and then nothing is loaded.

        Without rules of its own the policy denies everything, the baseline's permits included.
        ``limits`` are those of the engine before: what is spent stays spent.
        """
        with _collection_paused():
            documents = read_bundle(files)
            rules = tuple(chain.from_iterable(document.rules for document in documents))
            unready = None if rules else _NO_RULES
            texts = [file.text for file in files]
            if baseline:
                texts.append(BASELINE_POLICY)
                built_in = read_policy(BASELINE_POLICY, BASELINE_FILE)
                rules += () if built_in is None else built_in.rules
            return cls(
                rules,
                version=version_of(texts),
                unready=unready,
                documents=documents,
                limits=limits,
            )

    @classmethod
    def only_baseline(cls) -> "PolicyEngine":
        """What a node needs to be part of a mesh, and nothing else."""
        built_in = read_policy(BASELINE_POLICY, BASELINE_FILE)
        assert built_in is not None
        return cls(built_in.rules, version=version_of([BASELINE_POLICY]), unready=None)

    @classmethod
    def deny_all(cls) -> "PolicyEngine":
        """What there is while there is no policy: not ready, and every answer is no."""
        return cls((), version="none", unready=_NO_POLICY)

    @property
    def ready(self) -> bool:
        return self.unready is None

    def decide(
        self, request: Request, unix_s: float, *, expires_unix_s: float | None = None
    ) -> Permit | Denial:
        """Answer. Never raises, whatever the request holds.

        ``expires_unix_s`` is when the subject's credential lapses; the permit ends by then, and
        ``PERMIT_LIFETIME_S`` after ``unix_s`` at the latest.
        """
        self._decisions += 1
        try:
            return self._decide(request, unix_s, expires_unix_s)
        except Exception as error:
            # A request that is not even well formed gets the answer that is safe.
            reason = f"The request could not be judged ({type(error).__name__})."
            return self._deny(Code.POLICY_DENIED, reason)

    @property
    def has_limits(self) -> bool:
        """Whether any rule counts what it allows."""
        return any(rule.terms.limit is not None for rule in self.rules)

    @property
    def only_audits(self) -> bool:
        """Whether there are rules in its files, and none of them is enforced."""
        own = [rule for document in self._documents for rule in document.rules]
        return bool(own) and not any(rule.terms.enforced for rule in own)

    @property
    def attributes(self) -> Mapping[str, ValueType]:
        """What the files declare."""
        return self._documents[0].attributes if self._documents else {}

    @property
    def judges_results(self) -> bool:
        """Whether any rule of the file speaks of mcp.result: if none does, nobody need ask."""
        indices = self._denying, self._audited_denying
        return any(index[Action.MCP_RESULT].rules for index in indices)

    def could_allow(self, request: Request, unix_s: float) -> bool:
        """Whether a request might be allowed once what it leaves open is known.

        Arguments and message size that are None are open, and so is all of an unproved object but
        its name. For lists that leave out what could never be used. Never raises.
        """
        try:
            action = Action(request.action)
            request = replace(request, action=action)
            if not self.ready or self._refusal(request, action, unix_s, None) is not None:
                return False
            if self._surely_denied(request, unix_s):
                return False
            return self._find_implying(request, unix_s, waits_for_proof=True) is not None
        except Exception:
            return False

    def trace(self, request: Request, unix_s: float) -> Trace:
        """Answer, and say why: each rule for this action, or for one that implies it. Charges no
        limit. Raises ValueError for what is no action."""
        action = Action(request.action)
        asked = replace(request, action=action, again=True)
        found: dict[str, tuple[Action, Rule]] = {}
        for one in (action, *IMPLIED_BY.get(action, ())):
            for index in (
                self._denying,
                self._audited_denying,
                self._allowing,
                self._audited_allowing,
            ):
                for rule in index[one].rules:
                    if one is action or rule.allows:
                        found.setdefault(rule.name, (one, rule))
        decision = self.decide(asked, unix_s)
        return Trace(decision, tuple(trace_rules(found.values(), asked, unix_s, self.limits)))

    def run_tests(self) -> tuple[PolicyTestOutcome, ...]:
        """Run the `tests:` of all files. Raises PolicyError for a test that cannot be read."""
        return tuple(test.run(self.decide) for test in self.tests())

    def tests(self) -> tuple[PolicyTest, ...]:
        """The `tests:` of all files, as read. Raises PolicyError for one that cannot be read."""
        return tuple(chain.from_iterable(map(read_tests, self._documents)))

    def question(self, fields: dict[str, Any], where: str) -> tuple[Request, float]:
        """A request and its time from the keys of a test, with this policy's attributes.

        Raises PolicyError; ``where`` stands for the file in it.
        """
        return read_question(fields, self.attributes, where)

    def _decide(
        self, request: Request, unix_s: float, expires_unix_s: float | None
    ) -> Permit | Denial:
        action = request.action
        if type(action) is not Action:
            action = Action(action)
            request = replace(request, action=action)
        if self.unready is not None:
            return self._deny(Code.POLICY_NOT_READY, f"{_sentence(self.unready)}.")
        refusal = self._refusal(request, action, unix_s, expires_unix_s)
        if refusal is not None:
            return self._deny(Code.POLICY_NO_RULE, refusal)
        facts = Facts(request, unix_s, probing=False)
        reuse = Reuse(action not in _NEVER_REUSED and request.object.verified)
        audited = self._audited(facts, reuse)
        for rule in find_denying(self._denying[action], request):
            if denies(rule, facts, reuse):
                reason = f'{_denied(request)} by the rule "{rule.name}".'
                return self._deny(Code.POLICY_DENIED, reason, rule, audited)
        spent: list[Rule] = []
        asked = find_allowing(self._allowing[action], request)
        granting = self._find_granting(asked, facts, reuse, spent)
        if granting is None and action in IMPLIED_BY:
            reuse.is_reusable = False
            # A channel opens before its far end is proved, and all is decided again afterwards.
            waits = action is Action.CHANNEL_OPEN
            granting = self._find_implying(request, unix_s, waits_for_proof=waits, spent=spent)
        if granting is not None:
            return self._permit(request, granting, unix_s, expires_unix_s, reuse, audited)
        if spent:
            reason = f'{_denied(request)}: the limit of the rule "{spent[0].name}" is spent.'
            return self._deny(Code.POLICY_LIMITED, reason, spent[0], audited)
        nearest = nearest_rule(self._candidates(request, asked), facts)
        reason = f"{_denied(request)}: no rule allows it.{nearest}"
        return self._deny(Code.POLICY_NO_RULE, reason, audited=audited)

    def _find_granting(
        self, rules: Sequence[Rule], facts: Facts, reuse: Reuse, spent: list[Rule]
    ) -> Rule | None:
        """A rule that grants this very request. ``spent`` are those whose limits are in the way."""
        for rule in rules:
            if allows(rule, facts, reuse):
                if self._is_within(rule, facts):
                    return rule
                spent.append(rule)
        return None

    def _is_within(self, rule: Rule, facts: Facts) -> bool:
        """Whether the rule's limit leaves room for one more. If so, it is charged."""
        limit = rule.terms.limit
        if limit is None or facts.request.again:
            return True
        return self.limits.take(rule.name, limit, facts.request, facts.unix_s)

    def _audited(self, facts: Facts, reuse: Reuse) -> tuple[AuditedRule, ...]:
        """The rules in audit mode that would have had an effect; not too many.

        They change no answer. But a permit is not used again where one of them denies, or might
        for another message, so that each message that it would have denied is recorded.
        """
        request = facts.request
        denying = self._audited_denying[request.action]
        allowing = self._audited_allowing[request.action]
        if not denying.rules and not allowing.rules:
            return ()
        found: list[AuditedRule] = []
        for rule in find_denying(denying, request):
            if denies(rule, facts, reuse):
                reuse.is_reusable = False
                found.append(AuditedRule(rule.name, "deny"))
        for rule in find_allowing(allowing, request):
            if allows(rule, facts, Reuse(False)):
                effect = "allow" if self._is_within(rule, facts) else "limit"
                found.append(AuditedRule(rule.name, effect))
        return tuple(found[:AUDITED_RULES_MAX])

    def _find_implying(
        self,
        request: Request,
        unix_s: float,
        *,
        waits_for_proof: bool,
        spent: Sequence[Rule] = (),
    ) -> Rule | None:
        """A rule that could allow the action, or one that needs it, unless one is sure to deny."""
        for wanted in (request.action, *IMPLIED_BY.get(request.action, ())):
            if not _may_pass_on(request, wanted):
                continue
            asked = replace(request, action=wanted)
            facts = Facts(asked, unix_s, probing=True, waits_for_proof=waits_for_proof)
            for rule in find_allowing(self._allowing[wanted], asked, waits=waits_for_proof):
                if could_allow(rule, facts) and not any(rule is one for one in spent):
                    if self._surely_denied(asked, unix_s):
                        break
                    return rule
        return None

    def _surely_denied(self, request: Request, unix_s: float) -> bool:
        facts = Facts(request, unix_s, probing=True)
        rules = find_denying(self._denying[request.action], request)
        return any(denies(rule, facts, Reuse(False)) for rule in rules)

    @staticmethod
    def _refusal(
        request: Request, action: Action, unix_s: float, expires_unix_s: float | None
    ) -> str | None:
        """What no rule can make good."""
        subject = request.subject
        if subject.identifier is None or not subject.verified:
            return f"{_denied(request)}: who asks is not proved."
        if expires_unix_s is not None and not unix_s < expires_unix_s:
            return f"{_denied(request)}: the credential has expired."
        for field in _NAMED_BY.get(action, ()):
            if not getattr(request, field):
                return f"{_denied(request)}: no {field} is named."
        if subject.allowed_actions is not None:
            implied = IMPLIED_BY.get(action, ())
            if not any(_may_pass_on(request, one) for one in (action, *implied)):
                return f"{_denied(request)}: its issuer may not pass this action on."
        return None

    def _permit(
        self,
        request: Request,
        rule: Rule,
        unix_s: float,
        expires_unix_s: float | None,
        reuse: Reuse,
        audited: tuple[AuditedRule, ...],
    ) -> Permit:
        identifier = request.subject.identifier
        assert identifier is not None  # _refusal has seen to it.
        name: AgentUri | None = request.object.name
        latest = unix_s + PERMIT_LIFETIME_S
        return make_permit(
            request.action,
            identifier,
            name,
            policy_version=self.version,
            expires_unix_s=latest if expires_unix_s is None else min(expires_unix_s, latest),
            rule=rule.name,
            decision_id=self._decision_id(),
            message_bytes_max=reuse.message_bytes_max,
            cacheable=reuse.is_reusable,
            obligations=rule.terms.obligations,
            audited=audited,
        )

    def _deny(
        self,
        code: Code,
        reason: str,
        rule: Rule | None = None,
        audited: tuple[AuditedRule, ...] = (),
    ) -> Denial:
        disclose = self.disclose if rule is None else rule.terms.disclose
        name = None if rule is None else rule.name
        return Denial(code, name, reason, self._decision_id(), self.version, disclose, audited)

    def _decision_id(self) -> str:
        return f"{self._decision_prefix}-{self._decisions:x}"

    def _candidates(self, request: Request, asked: Sequence[Rule]) -> Iterable[Rule]:
        """Rules that could have allowed it, outright or by implication; not too many.

        ``asked`` are those that were looked at already.
        """
        likely = self._likely(request, request.action, asked)
        implying = IMPLIED_BY.get(request.action)
        if implying is None:
            return likely
        found = {rule.name: rule for rule in likely}
        for action in implying:
            for rule in self._likely(request, action):
                found[rule.name] = rule
        return found.values()

    def _likely(
        self, request: Request, action: Action, asked: Sequence[Rule] = ()
    ) -> Sequence[Rule]:
        index = self._allowing[action]
        rules: Sequence[Rule] = index.rules
        if len(rules) > NEAREST_RULES_MAX:
            # Of an object that is not proved yet more rules may turn out to speak.
            if not asked or not request.object.verified:
                asked = find_allowing(index, request, waits=True)
            rules = (asked or rules)[:NEAREST_RULES_MAX]
        return rules


@contextmanager
def _collection_paused() -> Iterator[None]:
    """For a load: it makes half a million objects, all of them to stay.

    Looking for garbage among them, again and again, took 0.8 s of the 1.7 s for 10,000 rules; to
    look once afterwards takes 0.1 s.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _may_pass_on(request: Request, action: Action) -> bool:
    """Whether the subject's issuer was allowed to pass the action on."""
    allowed = request.subject.allowed_actions
    return allowed is None or action in allowed or f"{action.partition('.')[0]}.*" in allowed


def _denied(request: Request) -> str:
    on = request.service, request.tool, request.shown_uri, request.prefix
    what = f" ({', '.join(str(text) for text in on if text)})" if any(on) else ""
    return f"{request.action}{what} from {request.subject} to {request.object} is denied"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


assert MESSAGE_ACTIONS.isdisjoint(SERVICE_ACTIONS)
