"""What a hop and a link cost a gateway that have nothing to say: growth of its resident memory."""

import time
from pathlib import Path
from typing import Final

from bench import proc
from bench.benchmark import say
from bench.relay.running import Setting, gateway_and_generator
from bench.report import Row

GATEWAY: Final = "gateway"
IDLE_LINK: Final = "idle link"
IDLE_HOP: Final = "idle hop"
MEMORY: Final = "resident memory"
KIB: Final = 1024
# The first ones also bring what all of them share: code that runs for the first time, pools.
WARM_UP_LINKS: Final = 256
# Opened at once: few enough that what a handshake needs for a moment is not what is weighed, and no
# more hops than one address may have half open.
LINKS_AT_ONCE: Final = 250
HOPS_AT_ONCE: Final = 16
# The audit log is written a little later, and what it took is then free again.
SETTLE_S, QUICK_SETTLE_S = 1.0, 0.1


def idle_rows(folder: Path, hops: int, links: int, settle_s: float) -> tuple[Row, ...]:
    """Each on a gateway of its own that has carried nothing: freed memory would hide it."""
    say(f"opening {links} links")
    with gateway_and_generator(folder / "links", links=WARM_UP_LINKS) as setting:
        link_kib = _kib_of_each(setting, "open links", links, LINKS_AT_ONCE, settle_s)
    say(f"opening {hops} hops, each of another node")
    with gateway_and_generator(folder / "hops", links=WARM_UP_LINKS, idle_nodes=hops) as setting:
        hop_kib = _kib_of_each(setting, "open hops", hops, HOPS_AT_ONCE, settle_s)
    return (
        Row(GATEWAY, IDLE_LINK, MEMORY, link_kib, "KiB"),
        Row(GATEWAY, IDLE_HOP, MEMORY, hop_kib, "KiB"),
    )


def _kib_of_each(
    setting: Setting, command: str, count: int, at_once: int, settle_s: float
) -> float:
    before = _settled_resident_bytes(setting.gateway_pid, settle_s)
    for done in range(0, count, at_once):
        setting.generator.call(command, count=min(at_once, count - done))
    grown = _settled_resident_bytes(setting.gateway_pid, settle_s) - before
    return grown / count / KIB


def _settled_resident_bytes(pid: int, settle_s: float) -> int:
    time.sleep(settle_s)
    return proc.resident_bytes(pid)
