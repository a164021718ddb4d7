"""A sidecar without a mesh: the real local API in front of a router that knows its agents only."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import sidelink
from sidelink.wire import (
    ASK,
    TELL,
    Answer,
    AttributeValue,
    Deliver,
    Opened,
    Receipt,
    Refuse,
    Reply,
    Send,
    ServerFrame,
    TellRun,
    Welcome,
)

from identity import Code
from sidecar.local_access import LocalAccess
from sidecar.local_api import DEFAULT_LIMITS, LocalApi, LocalLimits
from sidecar.local_port import LocalSession, PeerCredentials, failure

DOMAIN = "acme"
IDENTIFIER = "sl1" + "q" * 58
WAIT_S = 10.0
PeerOf = Callable[[asyncio.BaseTransport], PeerCredentials]


def uri(name: str) -> str:
    return f"agent://{DOMAIN}/{name}"


class FakeAgent:
    def __init__(self, session: LocalSession, number: int, name: str) -> None:
        self.session = session
        self.number = number
        self.name = name
        self.attributes: Mapping[str, AttributeValue] = {}
        self.listening = False
        self.mailbox: list[Deliver] = []
        self.asks: dict[int, tuple[LocalSession, int]] = {}


class FakeRouter:
    """Delivers between the agents that are open here, and keeps what a test may ask about.

    Names with a meaning: nothing may be sent to `denied`, nothing answers at `silent`, an agent
    named `busy` cannot be opened.
    """

    def __init__(self) -> None:
        self.agents: dict[int, FakeAgent] = {}
        self.sessions_closed = 0
        self.asked: list[Send] = []
        self.asked_event = asyncio.Event()
        self.batches: list[int] = []
        self.refused_names: dict[str, Code] = {"busy": Code.LOCAL_AGENT_BUSY}
        self.spawned: list[tuple[str, str, int]] = []
        self.children: set[str] = set()
        self._last_number = 0

    def welcome(self) -> Welcome:
        return Welcome(1, DOMAIN, IDENTIFIER)

    def open_agent(
        self,
        session: LocalSession,
        request: int,
        name: str,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        if name in self.refused_names:
            session.agent_refused(failure(request, self.refused_names[name], name))
            return
        self._last_number += 1
        agent = FakeAgent(session, self._last_number, name)
        agent.attributes = dict(attributes)
        self.agents[agent.number] = agent
        session.agent_opened(Opened(request, agent.number, uri(name), IDENTIFIER, dict(attributes)))

    def spawn_agent(
        self,
        session: LocalSession,
        request: int,
        parent: str,
        name: str,
        attributes: Mapping[str, AttributeValue],
        ttl_s: int,
    ) -> None:
        self.spawned.append((parent, name, ttl_s))
        self.children.add(f"{parent}/{name}")
        self.open_agent(session, request, f"{parent}/{name}", attributes)

    def is_child(self, name: str) -> bool:
        return name in self.children

    def close_agent(self, session: LocalSession, agent: int) -> None:
        del self.agents[agent]

    def send_batch(self, session: LocalSession, sends: list[Send]) -> None:
        self.batches.append(len(sends))
        answers: list[ServerFrame] = []
        deliveries: dict[FakeAgent, list[ServerFrame]] = {}
        for send in sends:
            answer = self._send(session, send, deliveries)
            if answer is not None:
                answers.append(answer)
        if answers:
            session.deliver(answers)
        for agent, frames in deliveries.items():
            agent.session.deliver(frames)

    def send_run(self, session: LocalSession, run: TellRun) -> None:
        self.send_batch(
            session,
            [Send(0, run.agent, run.to, TELL, body, run.content_type, 0) for body in run.bodies],
        )

    def _send(
        self,
        session: LocalSession,
        send: Send,
        deliveries: dict[FakeAgent, list[ServerFrame]],
    ) -> ServerFrame | None:
        if send.to == uri("denied"):
            failed = failure(
                send.request, Code.POLICY_DENIED, "not you", rule="r1", agent=send.agent
            )
            return failed
        if send.kind == ASK:
            self.asked.append(send)
            self.asked_event.set()
        if send.to == uri("silent"):
            return None
        target = next((a for a in self.agents.values() if uri(a.name) == send.to), None)
        if target is None:
            return failure(send.request, Code.ROUTE_UNKNOWN, send.to, agent=send.agent)
        self._last_number += 1
        sender = self.agents[send.agent]
        delivery = Deliver(
            target.number,
            self._last_number,
            send.kind,
            uri(sender.name),
            IDENTIFIER,
            dict(sender.attributes),
            send.body,
            send.content_type,
            send.timeout_ms,
        )
        if send.kind == ASK:
            target.asks[delivery.delivery] = (session, send.request)
        if target.listening and target.session.writable:
            deliveries.setdefault(target, []).append(delivery)
        else:
            target.mailbox.append(delivery)
        return Receipt(send.request) if send.request and send.kind != ASK else None

    def listen(self, session: LocalSession, agent: int, on: bool) -> None:
        found = self.agents[agent]
        found.listening = on
        self._drain(found)

    def _drain(self, agent: FakeAgent) -> None:
        while agent.listening and agent.mailbox and agent.session.writable:
            frames, agent.mailbox = agent.mailbox[:64], agent.mailbox[64:]
            agent.session.deliver(frames)

    def answer(self, session: LocalSession, answer: Answer) -> None:
        agent = self.agents[answer.agent]
        asker = agent.asks.pop(answer.delivery, None)
        if asker is None:
            session.deliver([failure(0, Code.MESSAGE_EXPIRED, agent=answer.agent)])
            return
        to, request = asker
        to.deliver(
            [
                Reply(
                    request,
                    answer.body,
                    answer.content_type,
                    uri(agent.name),
                    IDENTIFIER,
                    dict(agent.attributes),
                )
            ]
        )

    def refuse(self, session: LocalSession, refusal: Refuse) -> None:
        to, request = self.agents[refusal.agent].asks.pop(refusal.delivery)
        to.deliver([failure(request, Code.MESSAGE_REJECTED, refusal.reason)])

    def session_writable(self, session: LocalSession) -> None:
        for agent in self.agents.values():
            if agent.session is session:
                self._drain(agent)

    def session_closed(self, session: LocalSession) -> None:
        self.sessions_closed += 1
        for number in [n for n, agent in self.agents.items() if agent.session is session]:
            del self.agents[number]


@contextlib.asynccontextmanager
async def local_api(
    path: Path,
    router: FakeRouter,
    *,
    limits: LocalLimits = DEFAULT_LIMITS,
    access: LocalAccess | None = None,
    peer_credentials: PeerOf | None = None,
) -> AsyncIterator[LocalApi]:
    api = LocalApi(router, limits=limits, access=access, peer_credentials=peer_credentials)
    await api.start(path)
    try:
        yield api
    finally:
        await api.close()


async def answer_all(agent: sidelink.Agent) -> None:
    async for message in agent.inbox():
        if message.kind == "ask":
            await message.reply({"you said": message.body})
