"""What a hop and a link cost a gateway that have nothing to say: growth of its resident memory."""

import time
from pathlib import Path
from typing import Final

from bench import proc
from bench.benchmark import say
from bench.relay.running import gateway_and_generator
from bench.report import Row

GATEWAY: Final = "gateway"
IDLE_LINK: Final = "idle link"
IDLE_HOP: Final = "idle hop"
MEMORY: Final = "resident memory"
KIB: Final = 1024
# The first ones also bring what all of them share: code that runs for the first time, pools.
WARM_UP_LINKS: Final = 256
# Opened at once, no more than one address may have half open.
HOPS_AT_ONCE: Final = 16
# The audit log is written a little later, and what it took is then free again.
SETTLE_S: Final = 1.0


def idle_rows(folder: Path, hops: int, links: int) -> tuple[Row, ...]:
    """A gateway that has carried nothing yet, so that nothing hides in what it has freed."""
    with gateway_and_generator(folder, links=WARM_UP_LINKS) as setting:
        generator = setting.generator

        def open_idle(what: str, count: int, at_once: int) -> float:
            """KiB for each."""
            before = _settled_resident_bytes(setting.gateway_pid)
            for done in range(0, count, at_once):
                generator.call(f"open {what}", count=min(at_once, count - done))
            grown = _settled_resident_bytes(setting.gateway_pid) - before
            return grown / count / KIB

        say(f"opening {links} links")
        link_kib = open_idle("links", links, links)
        say(f"opening {hops} hops")
        hop_kib = open_idle("hops", hops, HOPS_AT_ONCE)
    return (
        Row(GATEWAY, IDLE_LINK, MEMORY, link_kib, "KiB"),
        Row(GATEWAY, IDLE_HOP, MEMORY, hop_kib, "KiB"),
    )


def _settled_resident_bytes(pid: int) -> int:
    time.sleep(SETTLE_S)
    return proc.resident_bytes(pid)
