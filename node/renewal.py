"""Renews this node's credential in time: at half of its life, with jitter, and again if that fails.

The credential that it has is kept while a renewal fails; nothing that runs ends before it does.
"""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from identity import SidelinkError, decode_credential_untrusted
from node.clocks import Clock
from node.metrics import Metrics
from node.own_node import OwnNode

RETRY_SECONDS_MIN: Final = 5.0
RETRY_SECONDS_MAX: Final = 3_600.0
LOOK_SECONDS_MAX: Final = 60.0
# Of the life of a credential, and of a wait: nodes that enrolled together, or that lost their
# authority together, do not all ask together.
JITTER: Final = 0.1
RETRY_JITTER: Final = 0.5

_log = structlog.get_logger("node.renewal")


class Renewal:
    """One for each node that has a credential. ``renew`` asks the authority and adopts the answer,
    or raises SidelinkError."""

    def __init__(
        self, node: OwnNode, clock: Clock, metrics: Metrics, renew: Callable[[], Awaitable[None]]
    ) -> None:
        self._node = node
        self._clock = clock
        self._renew = renew
        self._hurried = asyncio.Event()
        self._failures = 0
        self._retry_s = 0.0
        self.fault: str | None = None
        """Why the last attempt failed."""
        node.on_change.append(self.look_again)
        self._results = metrics.counter(
            "credential_renewals", "Renewals of this node's credential.", result=("ok", "failed")
        )
        metrics.gauge(
            "credential_renewal_due_unix_seconds",
            "When this node's credential is renewed next.",
            lambda: 0 if math.isinf(self.due_unix_s) else self.due_unix_s,
        )

    @property
    def due_unix_s(self) -> float:
        """Half-way through the life of the credential, a little earlier or later for each node.

        Infinite before there is one.
        """
        if not self._node.own.chain:
            return math.inf
        held = decode_credential_untrusted(self._node.own.chain[0].credential).credential
        # A key of the authority that ends sooner than the credential ends it.
        life_s = max(0, self._node.identity.expires_unix_s - held.not_before_unix_s)
        return held.not_before_unix_s + life_s * (0.5 + JITTER * _spread(held.credential_id))

    def hurry(self) -> None:
        """The key has changed, and with it what the credential must pin: ask now."""
        self._failures = 0
        self._retry_s = 0.0
        self._hurried.set()

    def look_again(self) -> None:
        """What decides when it is due may have changed."""
        self._hurried.set()

    def status(self) -> dict[str, Any]:
        due_unix_s = self.due_unix_s
        return {
            "due_unix_s": None if math.isinf(due_unix_s) else round(due_unix_s),
            "fault": self.fault,
        }

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._hurried.clear()
            wait_s = self._wait_s()
            # One whose credential has ended is not answered: it enrols again, or waits for that.
            if wait_s <= 0 and self._node.enrolled:
                await self._try()
                continue
            try:
                # The wall clock may jump, so it is looked at now and then.
                async with asyncio.timeout(min(max(wait_s, 1.0), LOOK_SECONDS_MAX)):
                    await self._hurried.wait()
            except TimeoutError:
                continue

    def _wait_s(self) -> float:
        retry_in_s = self._retry_s - self._clock.now_s()
        if self._is_behind:
            return retry_in_s
        return max(self.due_unix_s - self._clock.unix_s(), retry_in_s)

    @property
    def _is_behind(self) -> bool:
        """Whether the credential pins a key that this node signs with no longer."""
        own = self._node.own
        if not own.chain or own.next_key is not None:
            return False
        held = decode_credential_untrusted(own.chain[0].credential).credential
        return held.pin != own.history.pin

    async def _try(self) -> None:
        try:
            await self._renew()
        except SidelinkError as exc:
            self._results.increment(result="failed")
            self.fault = f"{exc.code.text}: {exc.detail}"
            wait_s = self._back_off_s()
            self._retry_s = self._clock.now_s() + wait_s
            _log.warning(
                "renewal_failed",
                code=exc.code.text,
                why=exc.detail,
                retry_s=round(wait_s, 1),
                expires_unix_s=self._node.identity.expires_unix_s,
                remedy=exc.code.remedy,
            )
            return
        self._failures = 0
        self._retry_s = 0.0
        self.fault = None
        self._results.increment(result="ok")
        _log.info("renewed", expires_unix_s=self._node.identity.expires_unix_s)

    def _back_off_s(self) -> float:
        """Doubled each time; towards the end of the credential's life at least so often that some
        attempts are left."""
        wait_s = RETRY_SECONDS_MIN * float(2**self._failures)
        seed = b"%d %s" % (self._failures, self._node.identifier.digest)
        wait_s = min(wait_s * (1 + RETRY_JITTER * _spread(seed)), RETRY_SECONDS_MAX)
        self._failures = min(self._failures + 1, 16)
        left_s = self._node.identity.expires_unix_s - self._clock.unix_s()
        if left_s > 0:
            wait_s = min(wait_s, left_s / 8)
        return max(RETRY_SECONDS_MIN, wait_s)


def _spread(seed: bytes) -> float:
    """From -0.5 to 0.5, and always the same for the same seed."""
    return hashlib.sha256(seed).digest()[0] / 255 - 0.5
