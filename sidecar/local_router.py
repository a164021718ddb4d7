"""The local API's requests, as the router understands them: which session is which agent."""

from collections.abc import Callable, Mapping
from functools import partial

from sidelink.wire import LOCAL_API_VERSION, Answer, Opened, Refuse, Send, TellRun, Welcome

from identity import AttributeValue, Code, SidelinkError
from sidecar.agents import LocalAgent
from sidecar.local_port import LocalSession, failure
from sidecar.router import Router


class RouterPort:
    """Fits LocalRouter. After each call the shell is woken to look at the router's deadline."""

    def __init__(self, router: Router, node_name: str, wake: Callable[[], None]) -> None:
        self._router = router
        self._node_name = node_name
        self._wake = wake
        self._agents: dict[LocalSession, dict[int, LocalAgent]] = {}

    @property
    def sessions(self) -> int:
        return len(self._agents)

    def welcome(self) -> Welcome:
        return Welcome(LOCAL_API_VERSION, self._router.agents.trust_domain, self._node_name)

    def open_agent(
        self,
        session: LocalSession,
        request: int,
        name: str,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        self._open(session, request, partial(self._router.open_agent, name, attributes))

    def spawn_agent(
        self,
        session: LocalSession,
        request: int,
        parent: str,
        name: str,
        attributes: Mapping[str, AttributeValue],
        ttl_s: int,
    ) -> None:
        spawn = partial(self._router.spawn_agent, parent, name, attributes, ttl_s)
        self._open(session, request, spawn)

    def is_child(self, name: str) -> bool:
        try:
            return self._router.children.is_child(name)
        except SidelinkError:
            return False  # A damaged row is nobody's.

    def _open(self, session: LocalSession, request: int, find: Callable[[], LocalAgent]) -> None:
        try:
            agent = find()
        except SidelinkError as exc:
            session.agent_refused(failure(request, exc.code, exc.detail))
            return
        mine = self._agents.setdefault(session, {})
        if agent.handle not in mine:
            mine[agent.handle] = agent
            agent.users += 1
        identity = agent.identity
        session.agent_opened(
            Opened(
                request,
                agent.handle,
                str(agent.uri),
                str(identity.identifier),
                dict(identity.attributes),
            )
        )
        if agent.ends_unix_s is not None:
            self._wake()  # There is an end to wait for.

    def close_agent(self, session: LocalSession, agent: int) -> None:
        found = self._agents.get(session, {}).pop(agent, None)
        if found is not None:
            self._router.unlisten(found, session)
            self._router.let_go(found)

    def end_agent(self, agent: LocalAgent, code: Code) -> None:
        """An agent is nobody any more: no session acts as it from now on."""
        for session, mine in self._agents.items():
            if mine.pop(agent.handle, None) is not None:
                self._router.unlisten(agent, session)
                agent.users -= 1
                text = f"{agent.uri} may not be used any more"
                session.agent_gone(failure(0, code, text, agent=agent.handle))

    def send_batch(self, session: LocalSession, sends: list[Send]) -> None:
        mine = self._agents[session]
        start = 0
        # Runs of one agent, usually the whole batch.
        for index in range(1, len(sends) + 1):
            if index == len(sends) or sends[index].agent != sends[start].agent:
                self._router.send_batch(mine[sends[start].agent], session, sends[start:index])
                start = index
        self._wake()

    def send_run(self, session: LocalSession, run: TellRun) -> None:
        self._router.send_run(self._agents[session][run.agent], session, run)
        self._wake()

    def listen(self, session: LocalSession, agent: int, on: bool) -> None:
        found = self._agents[session][agent]
        if not on:
            self._router.hold(found, session)
        elif not self._router.listen(found, session):
            text = f"another process listens as {found.uri}"
            session.deliver([failure(0, Code.LOCAL_AGENT_BUSY, text, agent=agent)])

    def answer(self, session: LocalSession, answer: Answer) -> None:
        agent = self._agents[session][answer.agent]
        if not self._router.answer(agent, answer.delivery, answer.body, answer.content_type):
            self._not_an_ask(session, answer.agent, answer.delivery)

    def refuse(self, session: LocalSession, refusal: Refuse) -> None:
        agent = self._agents[session][refusal.agent]
        if not self._router.refuse(agent, refusal.delivery, refusal.reason):
            self._not_an_ask(session, refusal.agent, refusal.delivery)

    def session_writable(self, session: LocalSession) -> None:
        self._router.session_writable(session)

    def session_closed(self, session: LocalSession) -> None:
        agents = self._agents.pop(session, {})
        self._router.session_gone(session)
        for agent in agents.values():
            self._router.let_go(agent)

    def _not_an_ask(self, session: LocalSession, agent: int, delivery: int) -> None:
        text = f"delivery {delivery} is no ask that waits for an answer"
        session.deliver([failure(0, Code.MESSAGE_NOT_AN_ASK, text, agent=agent)])
