"""What happens to the programs while agents talk, one thing after the other. Nobody is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from bench.meshes import awaiting, starting
from bench.soak.setting import A, B, Setting
from bench.soak.watch import Watch

# Long enough for a hop to be missed at both ends (5 s), and dialled again.
DARK_S: Final = 8.0
KILLED_FOR_S: Final = 1.0
INTERVAL_S: Final = 30.0
# In a run that is too short for that, so many happen all the same.
HAPPENINGS_MIN: Final = 6
# Sidecars that have nothing to say to each other part after a minute, and a look at each hop.
TOGETHER_S: Final = 100.0
APART_S: Final = 100.0
LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Happening:
    """One of the things that may happen."""

    name: str
    do: Callable[[Setting], None]


def _dark(setting: Setting) -> None:
    setting.steady_gateway.blackhole(DARK_S)


def _rebind(setting: Setting) -> None:
    setting.steady_gateway.rebind()


def _kill_gateway(setting: Setting) -> None:
    setting.restarted_gateway.kill()
    time.sleep(KILLED_FOR_S)
    _start_gateway(setting)


def _restart_gateway(setting: Setting) -> None:
    setting.restarted_gateway.stop()
    _start_gateway(setting)


def _start_gateway(setting: Setting) -> None:
    with starting():
        setting.restarted_gateway.start()
        setting.restarted_gateway.wait_ready()


def _restart_sidecar(setting: Setting) -> None:
    setting.restarted_sidecar.stop()
    with starting():
        setting.restarted_sidecar.start()
        setting.restarted_sidecar.wait_ready()


# In this order each gateway is left while the other one is well, so that channels move to and fro.
HAPPENINGS: Final = (
    Happening("a gateway is dark for 8 s", _dark),
    Happening("the other gateway is killed", _kill_gateway),
    Happening("a sidecar is restarted", _restart_sidecar),
    Happening("all come from other ports", _rebind),
    Happening("the other gateway is restarted", _restart_gateway),
)


def let_it_happen(setting: Setting, watch: Watch, duration_s: float) -> None:
    """Until the run is over, and each has happened at least once."""
    interval_s = min(INTERVAL_S, duration_s / HAPPENINGS_MIN)
    order = cycle(HAPPENINGS)
    happened = 0
    due_s, parting_s = interval_s / 2, TOGETHER_S
    are_apart = False
    while watch.passed_s < duration_s or happened < len(HAPPENINGS):
        if watch.passed_s >= parting_s:
            are_apart = not are_apart
            parting_s += APART_S if are_apart else TOGETHER_S
            watch.mark("a and b fall silent" if are_apart else "a and b talk again")
            _keep_apart(setting, are_apart=are_apart)
        if watch.passed_s >= due_s:
            due_s += interval_s
            one = next(order)
            happened += 1
            watch.mark(one.name)
            with awaiting():
                one.do(setting)
            setting.each_crowd("count")  # An agent that has failed says so here.
        time.sleep(LOOK_S)


def _keep_apart(setting: Setting, *, are_apart: bool) -> None:
    """Two of the sidecars then carry nothing between them, and give up their direct hop."""
    for prefix, other in ((A, B), (B, A)):
        setting.crowds[prefix].call("keep apart", prefixes=[other] if are_apart else [])
