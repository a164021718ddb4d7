"""The parts of a program: opened in order, readiness told truthfully, decisions audited."""

import asyncio
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from identity import (
    AgentUri,
    Code,
    Identifier,
    NamePrefix,
    NoisePublicKey,
    SidelinkError,
    VerifiedIdentity,
    VerifiedPeer,
)
from node.admin_client import admin_request
from node.admission import Admission
from node.audit import AuditLog
from node.clocks import ManualClock
from node.errors import ConfigError
from node.metrics import Metrics
from node.parts import open_parts, serve_operators
from node.settings import GatewaySettings
from node.settings_load import load_settings
from node.state_folder import read_ports
from policy import STARTER_POLICY, Denial, Party, Permit, PolicyEngine
from tests.node import audit_logs

NO_POLICY = "a policy that allows something: see policy.yaml"
EMPTY_POLICY = "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: none}\nrules: []\n"


def settings_in(tmp_path: Path, **flags: object) -> GatewaySettings:
    flags = {"state": str(tmp_path), "ops_port": "0", **flags}
    return load_settings(GatewaySettings, flags, variables={})


def identity(kind: str, name: str | None, trust_domain: str | None, number: int) -> Any:
    return VerifiedIdentity(
        identifier=Identifier(number.to_bytes(32, "big")),
        name=None if name is None else AgentUri.parse(name),
        kind=kind,  # type: ignore[arg-type]
        role_of_node="sidecar" if kind == "node" else None,
        trust_domain=trust_domain,
        issuer=None,
        attributes={},
        delegable=None,
        expires_unix_s=2_000_000_000,
        ancestors=(),
    )


def peer(kind: str, name: str | None, trust_domain: str | None, number: int = 1) -> VerifiedPeer:
    return VerifiedPeer(identity(kind, name, trust_domain, number), NoisePublicKey(bytes(32)))


OWN = Party.from_verified(identity("node", "agent://acme/gateway", "acme", 99))


async def test_a_first_start_makes_everything_closed_to_others(tmp_path: Path) -> None:
    async with open_parts(settings_in(tmp_path)) as parts:
        names = {path.name for path in parts.folder.folder.iterdir()}
        modes = {
            stat.S_IMODE(path.stat().st_mode)
            for path in parts.folder.folder.iterdir()
            if path.is_file()
        }

    assert {"master.key", "state.db", "audit.jsonl", "lock", "policy.yaml"} <= names
    assert modes == {0o600}


async def test_a_mandatory_policy_that_is_required_is_awaited(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, mandatory_policy_required="true")
    async with open_parts(settings) as parts:
        awaited = parts.awaited()
        status = parts.read_status()["mandatory_policy"]

    assert list(awaited) == ["the mandatory policy of the trust domain"]
    assert status == {"required": True, "may_publish": False, "number": None, "fault": None}


async def test_a_first_start_is_ready_with_the_policy_it_wrote(tmp_path: Path) -> None:
    async with open_parts(settings_in(tmp_path)) as parts:
        assert parts.policy.ready
        assert list(parts.awaited()) == []


async def test_a_policy_that_was_removed_denies_all_and_is_not_written_anew(
    tmp_path: Path,
) -> None:
    async with open_parts(settings_in(tmp_path)) as parts:
        parts.folder.policy.unlink()

    async with open_parts(settings_in(tmp_path)) as again:
        decision = again.admission.decide_hop(peer("node", "agent://acme/a", "acme"), "admit")

        assert isinstance(decision, Denial)
        assert decision.code is Code.POLICY_NOT_READY
        assert list(again.awaited()) == [NO_POLICY]
        assert not again.folder.policy.exists()


async def test_an_empty_policy_leaves_the_program_not_ready(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir(mode=0o700)
    (tmp_path / "gateway" / "policy.yaml").write_text(EMPTY_POLICY)

    async with open_parts(settings_in(tmp_path)) as parts:
        assert list(parts.awaited()) == [NO_POLICY]


async def test_a_malformed_policy_is_refused_and_the_next_start_is_still_the_first(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway" / "policy.yaml"
    path.parent.mkdir(mode=0o700)
    path.write_text("apiVersion: sidelink/v1\nkind: Policy\nruls: []\n")

    with pytest.raises(SidelinkError) as caught:
        async with open_parts(settings_in(tmp_path)):
            pass
    path.unlink()

    assert caught.value.code is Code.CONFIG_POLICY_INVALID
    assert f"{path}:3" in str(caught.value)
    async with open_parts(settings_in(tmp_path)) as parts:
        assert parts.policy.ready


async def test_a_master_key_that_was_lost_is_not_replaced(tmp_path: Path) -> None:
    async with open_parts(settings_in(tmp_path)) as parts:
        parts.folder.master_key.unlink()

    with pytest.raises(SidelinkError) as caught:
        async with open_parts(settings_in(tmp_path)):
            pass

    assert caught.value.code is Code.CONFIG_MASTER_KEY


async def test_a_second_program_of_one_folder_is_refused(tmp_path: Path) -> None:
    async with open_parts(settings_in(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            async with open_parts(settings_in(tmp_path)):
                pass

    assert caught.value.code is Code.CONFIG_STATE_LOCKED


async def test_status_says_what_is_awaited_and_which_ports_were_got(tmp_path: Path) -> None:
    async with open_parts(settings_in(tmp_path)) as parts:
        parts.awaiting["a credential"] = lambda: False
        parts.status["hops"] = lambda: 3
        parts.ports["udp"] = 7

        async with serve_operators(parts):
            status = await asyncio.to_thread(
                admin_request, parts.folder.admin_socket, "GET", "/v1/status"
            )
            ports = read_ports(parts.folder.folder)

    assert status["ready"] is False
    assert status["awaiting"] == ["a credential"]
    assert status["hops"] == 3
    assert status["ports"] == ports
    assert ports["udp"] == 7
    assert ports["ops"] > 0


async def test_the_end_leaves_no_socket_and_no_lock(tmp_path: Path) -> None:
    async with open_parts(settings_in(tmp_path)) as parts, serve_operators(parts):
        pass

    assert list((tmp_path / "gateway" / "run").iterdir()) == []
    async with open_parts(settings_in(tmp_path)):
        pass


@contextmanager
def admission_in(tmp_path: Path, metrics: Metrics, clock: ManualClock) -> Iterator[Admission]:
    engine = PolicyEngine.load(STARTER_POLICY, file="policy.yaml")
    with closing(AuditLog(tmp_path / "audit.jsonl", clock, lambda: audit_logs.OWN)) as audit:
        yield Admission(
            engine=lambda: engine,
            own=lambda: OWN,
            clock=clock,
            trust=SimpleNamespace(),  # type: ignore[arg-type]
            audit=audit,
            metrics=metrics,
        )


DECISIONS = {
    "a node of the trust domain is admitted": (
        lambda a: a.decide_hop(peer("node", "agent://acme/a", "acme"), "admit"),
        "hop.admit",
        "allow",
    ),
    "a node of another trust domain is not": (
        lambda a: a.decide_hop(peer("node", "agent://globex/a", "globex"), "admit"),
        "hop.admit",
        "deny",
    ),
    "an agent is no node": (
        lambda a: a.decide_hop(peer("agent", "agent://acme/a", "acme"), "admit"),
        "hop.admit",
        "deny",
    ),
    "somebody unenrolled is not admitted": (
        lambda a: a.decide_hop(peer("unenrolled", None, None), "admit"),
        "hop.admit",
        "deny",
    ),
    "somebody unenrolled may ask to enrol": (
        lambda a: a.decide_hop(peer("unenrolled", None, None), "enrol"),
        "node.enrol",
        "allow",
    ),
    "a node registers a prefix": (
        lambda a: a.decide_register(
            peer("node", "agent://acme/a", "acme"), NamePrefix.parse("agent://acme/a")
        ),
        "route.register",
        "allow",
    ),
    "a node opens a link to a name of its domain": (
        lambda a: a.decide_relay(
            peer("node", "agent://acme/a", "acme"), AgentUri.parse("agent://acme/b")
        ),
        "link.relay",
        "allow",
    ),
    "a node opens a link to another domain": (
        lambda a: a.decide_relay(
            peer("node", "agent://acme/a", "acme"), AgentUri.parse("agent://globex/b")
        ),
        "link.relay",
        "deny",
    ),
    "somebody unenrolled reaches the authority": (
        lambda a: a.decide_relay(peer("unenrolled", None, None), peer("authority", None, "acme")),
        "link.relay",
        "allow",
    ),
    "somebody unenrolled reaches nobody else": (
        lambda a: a.decide_relay(peer("unenrolled", None, None), AgentUri.parse("agent://acme/b")),
        "link.relay",
        "deny",
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_each_decision_is_right_and_leaves_a_line_and_a_count(case: str, tmp_path: Path) -> None:
    ask, action, effect = DECISIONS[case]
    metrics = Metrics("gateway", "0")
    with admission_in(tmp_path, metrics, ManualClock()) as admission:
        decision = ask(admission)

    (line,) = audit_logs.decisions_of(tmp_path / "audit.jsonl")
    assert isinstance(decision, Permit if effect == "allow" else Denial)
    assert (line["action"], line["effect"]) == (action, effect)
    assert line["decision_id"] == decision.decision_id
    assert line["rule"] == decision.rule
    assert metrics.value("decisions_total", action=action, effect=effect) == 1


def test_a_permit_ends_with_the_credential_of_its_subject(tmp_path: Path) -> None:
    clock = ManualClock(unix=1_999_999_990.0)
    with admission_in(tmp_path, Metrics("gateway", "0"), clock) as admission:
        decision = admission.decide_hop(peer("node", "agent://acme/a", "acme"), "admit")

    assert isinstance(decision, Permit)
    assert decision.expires_unix_s == 2_000_000_000
