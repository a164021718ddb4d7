"""The mandatory policy in force: compiled beside the loop, and put above the node's own.

One that cannot be read here, because this version is older than its authors' for example, is passed
on all the same; the one before stays in force, and where there is none, nothing but the baseline
is allowed. So a node never obeys less than it has been told once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from identity import PolicyFile, SidelinkError, SignedPolicy
from node.clocks import Clock, utc_text
from node.errors import error_text
from node.mandatory import MandatoryPolicy
from node.metrics import Metrics
from node.policy_live import LivePolicy
from policy import LimitTable, PolicyEngine, PolicySource

MANDATORY: Final = "mandatory:"
"""Before the names of its files, wherever a place in one of them is told."""

_log = structlog.get_logger("node.mandatory")


class LiveMandatory:
    """One for a program. ``required``: without a mandatory policy only the baseline is allowed."""

    def __init__(
        self,
        mandatory: MandatoryPolicy,
        policy: LivePolicy,
        clock: Clock,
        metrics: Metrics,
        *,
        required: bool,
    ) -> None:
        self._mandatory = mandatory
        self._policy = policy
        self._clock = clock
        self._required = required
        self._engine: PolicyEngine | None = None
        self._limits = LimitTable()
        """What is spent stays spent, also while nothing is mandatory for a while."""
        self._in_force: SignedPolicy | None = None
        self._since_unix_s = clock.unix_s()
        self._fault: dict[str, Any] | None = None
        self._news = asyncio.Event()
        self._open()
        mandatory.on_news.append(self._news.set)
        metrics.gauge(
            "mandatory_policy_number",
            "Number of the mandatory policy in force; 0 without one.",
            lambda: 0 if self._in_force is None else self._in_force.number,
        )
        metrics.gauge(
            "mandatory_policy_refused",
            "1 while a newer mandatory policy is held that cannot be read here.",
            lambda: self._fault is not None,
        )
        metrics.counter_read(
            "mandatory_policies_taken",
            "Newer mandatory policies taken.",
            lambda: mandatory.taken,
        )

    @property
    def awaited(self) -> bool:
        """Whether one is required, and none has come."""
        return self._required and self._mandatory.held is None

    async def run(self) -> None:
        """Put each newer one into force, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.take()

    async def take(self) -> None:
        """Compile the newest in another thread: thousands of rules take seconds."""
        held = self._mandatory.held
        if held is None or held == self._in_force:
            return
        if self._in_force is not None and held.bundle.files == self._in_force.bundle.files:
            self._in_force, self._fault = held, None  # Only signed anew.
            self._mandatory.obeyed = held.rank
            return
        try:
            engine = await asyncio.to_thread(self._compile, held)
        except SidelinkError as exc:
            self._refuse(held, exc)
        except Exception as exc:
            # A fault of ours must not end the watch, nor leave the operator without a word.
            _log.exception("mandatory_policy_not_read")
            self._refuse(held, exc)
        else:
            self._fault = None
            self._put(held, engine)

    def status(self) -> Mapping[str, Any]:
        """For operators: which one is in force since when, and what is wrong with a newer one."""
        one = self._in_force
        told: dict[str, Any] = {
            "required": self._required,
            "may_publish": self._mandatory.may_publish,
            "number": None,
            "fault": self._fault,
        }
        if one is not None:
            told |= {
                "number": one.number,
                "files": [file.name for file in one.bundle.files],
                "version": None if self._engine is None else self._engine.version,
                "rules": 0 if self._engine is None else len(self._engine.rule_names),
                "signer": str(one.bundle.signer),
                "issued": utc_text(one.bundle.issued_unix_s),
                "since": utc_text(self._since_unix_s),
            }
        return told

    def _open(self) -> None:
        """At a start: the newest that can be read, or nothing but the baseline."""
        for kept in self._mandatory.kept():
            try:
                engine = self._compile(kept)
            except Exception as exc:
                # Also a fault of ours: what a running program has survived must not end each start.
                if self._fault is None:
                    self._refuse(kept, exc)
            else:
                self._put(kept, engine)
                return
        if self._required:
            self._policy.set_upper(PolicyEngine.only_baseline())

    def _compile(self, signed: SignedPolicy) -> PolicyEngine | None:
        """None for one that has no files, and so asks for nothing. Raises PolicyError."""
        if not signed.bundle.files:
            return None
        return PolicyEngine.load_bundle(sources_of(signed.bundle.files), limits=self._limits)

    def _put(self, signed: SignedPolicy, engine: PolicyEngine | None) -> None:
        self._in_force, self._engine = signed, engine
        self._mandatory.obeyed = signed.rank
        self._since_unix_s = self._clock.unix_s()
        _log.info(
            "mandatory_policy_loaded",
            number=signed.number,
            version=None if engine is None else engine.version,
            rules=0 if engine is None else len(engine.rule_names),
        )
        self._policy.set_upper(engine)

    def _refuse(self, signed: SignedPolicy, exc: Exception) -> None:
        why = error_text(exc) if isinstance(exc, SidelinkError) else f"{type(exc).__name__}: {exc}"
        self._fault = {
            "number": signed.number,
            "why": why,
            "since": utc_text(self._clock.unix_s()),
        }
        in_force = None if self._in_force is None else self._in_force.number
        _log.error("mandatory_policy_refused", number=signed.number, why=why, in_force=in_force)
        if self._in_force is None:
            self._policy.set_upper(PolicyEngine.only_baseline())


def sources_of(files: Sequence[PolicyFile]) -> list[PolicySource]:
    """The texts as a policy, under names that tell them from the node's own files."""
    return [PolicySource(f"{MANDATORY}{file.name}", file.text) for file in files]
