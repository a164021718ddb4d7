"""One system, running: its programs, its two agents, and what they are told to do."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench import proc
from bench.children import Children, Worker
from bench.messages.asks import Asked, AskPlan
from bench.messages.ruler import Counted, Plan
from bench.messages.systems import Programs, System

# A message of the slowest system, on a machine that is busy with something else.
MESSAGE_S_MAX: Final = 0.02
ANSWER_S_MAX: Final = 60.0
# While others had their turn, a channel may have been put away and a direct hop closed.
AWAKENING: Final = AskPlan(size_bytes=64, in_flight=1, warm_up_s=0.0, counted_s=0.02)


@dataclass(frozen=True, slots=True)
class OneWay:
    """One run, and the CPU time that all processes of the system spent on it."""

    counted: Counted
    cpu_s_of: Mapping[str, float]

    @property
    def cpu_s(self) -> float:
        return sum(self.cpu_s_of.values())


class RunningSystem:
    """Made by ``running``."""

    def __init__(
        self, system: System, programs: Programs, receiver: Worker, sender: Worker
    ) -> None:
        self.system = system
        self._programs = programs
        self._receiver = receiver
        self._sender = sender
        self.pids = {**programs.pids, "sender": sender.pid, "receiver": receiver.pid}

    def one_way(self, plan: Plan) -> OneWay:
        """Raises BenchError when a message is missing, or does not come in its turn."""
        self.awaken()
        timeout_s = ANSWER_S_MAX + MESSAGE_S_MAX * plan.total
        before = self._cpu_s_of()
        self._receiver.call("begin", plan=msgspec.to_builtins(plan))
        self._sender.post("send", plan=msgspec.to_builtins(plan))
        counted = self._receiver.call("finish", timeout_s=timeout_s)
        self._sender.answer(timeout_s)
        after = self._cpu_s_of()
        self._programs.check()
        spent = {label: after[label] - before[label] for label in before}
        return OneWay(msgspec.convert(counted, Counted), spent)

    def ask(self, plan: AskPlan) -> Asked:
        self.awaken()
        return self._ask(plan)

    def awaken(self) -> None:
        """Let the agents talk, and wait until what runs is what is to be measured."""
        self._ask(AWAKENING)

    def _ask(self, plan: AskPlan) -> Asked:
        timeout_s = ANSWER_S_MAX + plan.warm_up_s + plan.counted_s
        asked = self._sender.call("ask", timeout_s=timeout_s, plan=msgspec.to_builtins(plan))
        self._programs.check()
        return msgspec.convert(asked, Asked)

    def peak_resident_bytes_of(self) -> Mapping[str, int]:
        return {label: proc.peak_resident_bytes(pid) for label, pid in self.pids.items()}

    def _cpu_s_of(self) -> dict[str, float]:
        return {label: proc.cpu_s(pid) for label, pid in self.pids.items()}


@contextmanager
def running(system: System, folder: Path) -> Iterator[RunningSystem]:
    """Start all of it, let the agents talk, and end all of it."""
    folder.mkdir()
    here, there = socket.socketpair()
    with (
        here,
        there,
        Children(folder) as children,
        system.module.run_programs(system.variant, folder, children) as programs,
    ):
        agents = {
            role: children.start_worker(
                f"{system.name} {role}",
                "bench.messages.agent",
                *(system.name, role, str(end.fileno())),
                descriptors=[end.fileno()],
            )
            for role, end in (("receiver", here), ("sender", there))
        }
        found = agents["receiver"].call("open", place=programs.place)
        agents["sender"].call("open", place={**programs.place, **found})
        yield RunningSystem(system, programs, agents["receiver"], agents["sender"])
