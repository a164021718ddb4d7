"""Keeps one hop open: dials, waits until it is lost, waits a little, dials again."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Final

import structlog

from identity import Code, Identifier
from node.addresses import SocketAddress
from transport import Endpoint, Hop, HopHandler, HopPurpose

RETRY_SECONDS_MIN: Final = 0.2
RETRY_SECONDS_MAX: Final = 30.0

_log = structlog.get_logger("node.redial")


class Redial:
    """One address. The owner's handler sees each hop; this sees only that it opened or closed.

    ``choose`` says before each attempt what for and who must answer; None waits for the next turn.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        address: SocketAddress,
        choose: Callable[[], tuple[HopPurpose, Identifier | None] | None],
        handler: HopHandler,
    ) -> None:
        self._endpoint = endpoint
        self.address = address
        self._choose = choose
        self._handler = handler
        self._closed = asyncio.Event()
        self._hurried = asyncio.Event()
        self._delay_s = RETRY_SECONDS_MIN
        self._asked_delay_s: float | None = None
        self.hop: Hop | None = None
        self.fault: str | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            chosen = self._choose()
            if chosen is not None:
                purpose, target = chosen
                self._closed.clear()
                self.hop = self._endpoint.dial(
                    self.address.host,
                    self.address.port,
                    purpose=purpose,
                    target=target,
                    handler=self._handler,
                )
                await self._closed.wait()
                self.hop = None
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_delay_s()):
                    await self._hurried.wait()

    def opened(self) -> None:
        """The owner's handler saw the hop open: the next loss is a new one."""
        self._delay_s = RETRY_SECONDS_MIN
        self.fault = None

    def closed(self, hop: Hop, code: Code, detail: str) -> None:
        """The owner's handler saw a hop close."""
        if hop is not self.hop:
            return
        self.fault = f"{code.text}: {detail}" if detail else code.text
        if code is Code.HOP_SUPERSEDED:
            self._delay_s = RETRY_SECONDS_MAX  # Two that push each other out help nobody.
        _log.warning(
            "hop_lost",
            address=str(self.address),
            code=code.text,
            detail=detail,
            retry_s=round(self._delay_s, 1),
            remedy=code.remedy,
        )
        self._closed.set()

    def hurry(self) -> None:
        """There is reason to believe that the other end will answer soon."""
        self._delay_s = RETRY_SECONDS_MIN
        self._hurried.set()

    def come_back_in(self, delay_s: float) -> None:
        """The peer is restarting and says when to come back."""
        self._asked_delay_s = delay_s

    def _next_delay_s(self) -> float:
        asked, self._asked_delay_s = self._asked_delay_s, None
        delay_s, self._delay_s = self._delay_s, min(self._delay_s * 2, RETRY_SECONDS_MAX)
        # Jitter, so that a thousand nodes do not come back in the same instant.
        jittered_s = delay_s * (0.5 + os.urandom(1)[0] / 510)
        return jittered_s if asked is None else max(asked, jittered_s)
