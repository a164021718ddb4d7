"""The play itself: two meshes side by side, who says what to whom, and what is kept as evidence."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cli.demo.agents import __file__ as _agents_file
from cli.demo.children import Child, Children
from cli.demo.faults import DemoError
from cli.demo.mesh import HOST, Mesh
from cli.demo.proofs import (
    ASKER_ATTRIBUTES,
    HANDLER,
    HANDLER_ATTRIBUTES,
    LEDGER,
    PAYROLL,
)
from cli.demo.reports import (
    AskerReport,
    AssistantReport,
    Evidence,
    HandlerReport,
    Search,
    Talk,
    read_report,
)
from cli.demo.tap import read_tap
from cli.demo.venvs import Venvs
from cli.demo.workshop import Workshop
from identity import SidelinkError

AGENTS: Final = Path(_agents_file).parent
SERVICE: Final = "clock"
TALK_S_MAX: Final = 40.0
TOKEN_BYTES: Final = 24

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Stage:
    """What a run is made of."""

    workshop: Workshop
    children: Children
    venvs: Venvs
    say: Callable[[str], None]


async def conduct(stage: Stage, evidence: Evidence) -> None:
    """Fill in the evidence. What fails is written there too, and the rest goes on if it can."""
    control = asyncio.create_task(_control(stage, evidence))
    try:
        await _main(stage, evidence)
        evidence.control = await _or_fault(control)
    finally:
        control.cancel()
        await asyncio.gather(control, return_exceptions=True)


async def _main(stage: Stage, evidence: Evidence) -> None:
    clock = asyncio.get_running_loop()
    token = secrets.token_urlsafe(TOKEN_BYTES)
    mesh = _main_mesh(stage, token)
    # It takes a second to import its packages; meanwhile the mesh comes up.
    assistant = await _start_agent(stage, "assistant", "assistant", stage.venvs.assistant.python)
    stage.say("enrolling four programs, and four more for the control run")
    begun_s = clock.time()
    await mesh.start()
    evidence.enrol_seconds = clock.time() - begun_s
    evidence.nodes = mesh.reports
    stage.say("the agents are talking")
    evidence.talk, evidence.assistant = await asyncio.gather(
        _or_fault(_talk(stage, mesh, evidence.canaries)),
        _or_fault(_assist(assistant, mesh, token, evidence.canaries)),
    )
    begun_s = clock.time()
    evidence.metrics = await _or_fault(_scrape(mesh))
    evidence.metrics_seconds = clock.time() - begun_s
    stage.say("looking through what the gateways relayed")
    await mesh.stop()
    needles = _needles(evidence.canaries) | {
        "enrol": mesh.ticket_codes,
        "the MCP token": [token.encode()],
    }
    evidence.search = await _or_fault(_search(stage, mesh, needles, look_elsewhere=True))


async def _control(stage: Stage, evidence: Evidence) -> Search:
    """The same conversation where sidecars do not seal: the tap must find what is said."""
    mesh = Mesh("control", stage.children, stage.workshop.folder / "c", plain=True)
    await mesh.start()
    await _talk(stage, mesh, evidence.canaries, only=("tell", "ask"))
    await mesh.stop()
    return await _search(stage, mesh, _needles(evidence.canaries))


def _main_mesh(stage: Stage, token: str) -> Mesh:
    token_file = stage.workshop.folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(token)
    ingress = {
        "service": SERVICE,
        "agent": "finance/assistant",
        "to": f"agent://acme/tools/{SERVICE}",
        "token_file": str(token_file),
    }
    python = str(stage.venvs.clock.python)
    server = {
        "service": SERVICE,
        "agent": f"tools/{SERVICE}",
        "command": [python, "-I", "-m", "mcp_server_time", "--local-timezone", "UTC"],
    }
    settings: dict[str, dict[str, Any]] = {
        "a": {"mcp": {"ingress": [ingress]}},
        "b": {"mcp": {"servers": [server]}},
    }
    return Mesh("main", stage.children, stage.workshop.folder / "m", settings)


async def _talk(
    stage: Stage,
    mesh: Mesh,
    canaries: Mapping[str, str],
    *,
    only: Sequence[str] | None = None,
) -> Talk:
    """Agent A says everything that it has to say to B. Raises DemoError."""
    wishes = [
        ("tell", "tell", HANDLER, "tell"),
        ("ask", "ask", HANDLER, "ask"),
        ("deny-sender", "ask", PAYROLL, "deny-sender"),
        ("deny-receiver", "ask", LEDGER, "deny-receiver"),
        ("deny-receiver, a tell", "tell", LEDGER, "deny-receiver"),
    ]
    steps = [
        {"step": step, "kind": kind, "to": to, "canary": canaries[canary]}
        for step, kind, to, canary in wishes
        if only is None or step in only
    ]
    python = stage.venvs.sdk.python
    handler = await _start_agent(stage, f"{mesh.label} agent B", "handler", python)
    handler.say(
        _line(
            socket=str(mesh.nodes["b"].agent_socket),
            names=[_path_of(HANDLER), _path_of(LEDGER)],
            attributes=HANDLER_ATTRIBUTES,
            answer=canaries["reply"],
            expected=len(steps) - 2 if only is None else len(steps),
        )
    )
    await mesh.wait_listening("b", [HANDLER, LEDGER], handler)
    asker = await _start_agent(stage, f"{mesh.label} agent A", "asker", python)
    asker.say(
        _line(
            socket=str(mesh.nodes["a"].agent_socket),
            name="finance/planner",
            attributes=ASKER_ATTRIBUTES,
            steps=steps,
        )
    )
    asked = read_report(await asker.report(TALK_S_MAX), AskerReport, asker.name)
    handler.say_end()
    seen = read_report(await handler.report(TALK_S_MAX), HandlerReport, handler.name)
    return Talk(asked, seen)


async def _assist(
    assistant: Child, mesh: Mesh, token: str, canaries: Mapping[str, str]
) -> AssistantReport:
    port = await mesh.nodes["a"].port(f"mcp_{SERVICE}")
    url = f"http://{HOST}:{port}/mcp/{SERVICE}"
    assistant.say(_line(url=url, token=token, canaries=dict(canaries)))
    return read_report(await assistant.report(TALK_S_MAX), AssistantReport, assistant.name)


async def _scrape(mesh: Mesh) -> dict[str, str]:
    texts = await asyncio.gather(*(node.metrics() for node in mesh.nodes.values()))
    return dict(zip(mesh.nodes, texts, strict=True))


async def _search(
    stage: Stage,
    mesh: Mesh,
    needles: Mapping[str, Sequence[bytes]],
    *,
    look_elsewhere: bool = False,
) -> Search:
    """Called once the mesh has stopped: its gateway has then written everything down."""
    clock = asyncio.get_running_loop()
    begun_s = clock.time()
    tapped = read_tap(mesh.tap)
    found = tapped.find(needles)
    elsewhere = _look_elsewhere(stage, mesh, needles) if look_elsewhere else ()
    return Search(tapped, found, clock.time() - begun_s, elsewhere)


def _look_elsewhere(
    stage: Stage, mesh: Mesh, needles: Mapping[str, Sequence[bytes]]
) -> tuple[str, ...]:
    """Names of the files, of those that should hold no plaintext, in which there is one.

    A sidecar's log is none of them: it repeats what the MCP server beside it writes to its errors.
    """
    folder = stage.workshop.folder
    files = [node.state / node.program / "audit.jsonl" for node in mesh.nodes.values()]
    for label in ("gateway", "authority"):
        files.append(mesh.nodes[label].child.log)
        files += [path for path in mesh.nodes[label].state.rglob("*") if path.is_file()]
    canaries = [needle for found in needles.values() for needle in found]
    return tuple(
        str(path.relative_to(folder))
        for path in files
        if any(needle in path.read_bytes() for needle in canaries)
    )


def _needles(canaries: Mapping[str, str]) -> dict[str, list[bytes]]:
    """A canary as it is written in a body, and the bytes that it stands for."""
    return {step: [text.encode(), bytes.fromhex(text)] for step, text in canaries.items()}


async def _start_agent(stage: Stage, name: str, script: str, python: Path) -> Child:
    # -I: no variable, no user's site-packages, not even the script's own folder.
    words = (python, "-I", AGENTS / f"{script}.py")
    return await stage.children.start(name, words, talks=True)


async def _or_fault(work: Awaitable[ResultT]) -> ResultT | DemoError:
    try:
        return await work
    except DemoError as error:
        return error
    except SidelinkError as error:
        return DemoError(str(error))


def _line(**wishes: Any) -> bytes:
    return json.dumps(wishes).encode() + b"\n"


def _path_of(uri: str) -> str:
    return uri.removeprefix("agent://acme/")
