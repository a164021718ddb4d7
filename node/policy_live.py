"""The policy in force while a program runs: watched, replaced as a whole, or left as it is.

Decisions are taken on the program's loop, and there the engine is replaced between two of them, so
that none sees a mixture. What is bad changes nothing, and is said: in the log, the status and a
metric. Whoever holds something that a policy has allowed hears of a new one, and asks it again.

It is the policy of this node's files, below the mandatory policy of its trust domain if there is
one: see ``node.mandatory_live``.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from identity import Code, SidelinkError
from node.clocks import Clock, utc_text
from node.errors import ConfigError, error_text
from node.metrics import Metrics
from node.policy_files import load_policy, look_at, read_sources
from node.state_folder import StateFolder
from policy import Engine, LayeredEngine, LocatedError, PolicyEngine, PolicySource

LOOK_SECONDS: Final = 0.25
"""How often the files are looked at."""
SETTLE_SECONDS: Final = 0.1
"""How long they must have been the same after a change before they are read."""
RESULTS: Final = ("loaded", "unchanged", "refused")

_log = structlog.get_logger("node.policy")


class LivePolicy:
    """The engine in force, and why what lies in the folder now is not, if so."""

    def __init__(
        self,
        folder: StateFolder,
        sources: Sequence[PolicySource],
        engine: PolicyEngine,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._own = engine
        self._upper: PolicyEngine | None = None
        self.engine: Engine = engine
        """The one that answers."""
        self.on_change: list[Callable[[], None]] = []
        """Called, on the loop, right after another engine has come into force."""
        self._files = [source.name for source in sources]
        self._digest = _digest_of(sources)
        self._loaded_unix_s = clock.unix_s()
        self._fault: dict[str, Any] | None = None
        self._tried = look_at(folder)
        self._last_look = self._tried
        self._is_settled = True
        self._asked = asyncio.Event()
        self._results: Counter[str] = Counter()
        self._publish(metrics)

    @classmethod
    def open(cls, folder: StateFolder, clock: Clock, metrics: Metrics) -> "LivePolicy":
        """Read what there is. Raises SidelinkError for a policy that a start cannot use."""
        sources, engine = load_policy(folder)
        return cls(folder, sources, engine, clock, metrics)

    def hurry(self) -> None:
        """Somebody has asked: read the files now, whatever they look like."""
        self._asked.set()

    async def run(self) -> None:
        """Take what changes in the folder, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS if self._is_settled else SETTLE_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                await self.look()
            else:
                self._asked.clear()
                # Looked at again soon: what is being written at this moment is taken then.
                self._tried = ()
                await self.reload()

    async def look(self) -> None:
        """See whether the files are others than those that were tried last."""
        seen = look_at(self._folder)
        # Who writes a file writes a part of it first, and parts may be policies of their own.
        self._is_settled = seen == self._last_look
        self._last_look = seen
        if self._is_settled and seen != self._tried:
            self._tried = seen
            await self.reload()

    async def reload(self) -> str:
        """Read the files and take what they say, as a whole or not at all. One of ``RESULTS``.

        Another thread reads and compiles: thousands of rules take seconds, and decisions go on.
        """
        try:
            result = await self._load()
        except SidelinkError as exc:
            result = "refused"
            self._refuse(exc)
        except Exception as exc:
            # A fault of ours must not end the watch, nor leave the operator without a word.
            _log.exception("policy_not_read")
            result = "refused"
            self._refuse(SidelinkError(Code.LOCAL_INTERNAL, f"{type(exc).__name__}: {exc}"))
        self._results[result] += 1
        return result

    def status(self) -> Mapping[str, Any]:
        """For operators: what is in force since when, and what is wrong with the files."""
        return {
            "version": self.engine.version,
            "files": list(self._files),
            "rules": len(self._own.rule_names),
            "loaded": utc_text(self._loaded_unix_s),
            "reloads": {result: self._results[result] for result in RESULTS},
            "fault": self._fault,
        }

    def set_upper(self, upper: PolicyEngine | None) -> None:
        """Put the node's own policy below another one, or below none. On the loop."""
        self._upper = upper
        self._compose()

    @property
    def age_s(self) -> float:
        return max(0.0, self._clock.unix_s() - self._loaded_unix_s)

    async def _load(self) -> str:
        sources = await asyncio.to_thread(read_sources, self._folder)
        if all(not source.text.strip() for source in sources):
            # At a start this denies everything. Of a running program it is more likely a mistake,
            # or a disk that is full, than a wish, and the wish can be written.
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{self._folder.policy}: there is no policy any more",
                remedy="Put it back. To deny everything, write a policy with `rules: []`.",
            )
        digest = _digest_of(sources)
        if digest == self._digest:
            if self._fault is not None:
                _log.info("policy_as_before", version=self._own.version)
            self._fault = None
            return "unchanged"
        limits = self._own.limits  # What is spent stays spent.
        engine = await asyncio.to_thread(PolicyEngine.load_bundle, sources, limits=limits)
        self._replace(engine, sources, digest)
        return "loaded"

    def _replace(
        self, engine: PolicyEngine, sources: Sequence[PolicySource], digest: bytes
    ) -> None:
        before, self._own = self._own, engine
        self._files = [source.name for source in sources]
        self._digest = digest
        self._fault = None
        _log.info(
            "policy_loaded",
            version=engine.version,
            before=before.version,
            rules=len(engine.rule_names),
            files=len(sources),
        )
        if engine.unready is not None:
            _log.warning("policy_denies_all", why=engine.unready)
        self._compose()

    def _compose(self) -> None:
        """Put into force what there is now, and tell whoever holds what another has allowed."""
        self._loaded_unix_s = self._clock.unix_s()
        self.engine = self._own if self._upper is None else LayeredEngine(self._upper, self._own)
        for listener in self.on_change:
            try:
                listener()
            except Exception:
                # The others have something to cut, too.
                _log.exception("policy_not_asked_again")

    def _refuse(self, exc: SidelinkError) -> None:
        place: dict[str, Any] = {"file": None, "line": None, "column": None}
        if isinstance(exc, LocatedError):
            place = {"file": exc.file, "line": exc.line, "column": exc.column}
        # With the way out, as a start says it: who reads this has a file to put right.
        told = {**place, "code": exc.code.text, "why": error_text(exc)}
        self._fault = {**told, "since": utc_text(self._clock.unix_s())}
        _log.error("policy_refused", **told, in_force=self._own.version)

    def _publish(self, metrics: Metrics) -> None:
        metrics.counter_read(
            "policy_reloads",
            "Readings of the policy's files while running, by result.",
            lambda: {result: self._results[result] for result in RESULTS},
            label="result",
        )
        metrics.info("policy", "The policy in force.", lambda: {"version": self.engine.version})
        metrics.gauge(
            "policy_age_seconds", "How long the policy has been in force.", lambda: self.age_s
        )
        metrics.gauge(
            "policy_refused",
            "1 while what lies in the policy's files is refused, and an older one is in force.",
            lambda: self._fault is not None,
        )


def _digest_of(sources: Sequence[PolicySource]) -> bytes:
    digest = hashlib.sha256()
    for source in sources:
        for text in (source.name, source.text):
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.digest()
