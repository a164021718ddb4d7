"""Enrolment by real processes: by a platform's token, and by one ticket that two nodes bring."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.admin_client import admin_request
from node.clocks import SystemClock
from tests.authority.tokens import CLUSTER, ISSUER, claims, jwks, token
from tests.mesh.meshes import Mesh
from tests.mesh.programs import Program

pytestmark = pytest.mark.mesh

WORKLOADS = f"""\
workloads:
  - issuer: {ISSUER}
    jwks_file: KEYS
    match: {{/{CLUSTER}/namespace: shop}}
    name: k8s/{{/{CLUSTER}/namespace}}/{{/{CLUSTER}/pod/name}}
    attributes: {{tier: gold}}
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Mesh]:
    """An authority that takes tokens, and its gateway."""
    with Mesh() as mesh:
        keys = mesh.folder / "keys.json"
        keys.write_bytes(jwks())
        mesh.authority.write_state_file("config.yaml", WORKLOADS.replace("KEYS", str(keys)))
        mesh.authority.start()
        mesh.authority.wait_status(bool, "its admin socket")
        mesh.gateway.start("--ticket", mesh.ticket(role="gateway"))
        mesh.gateway.wait_ready()
        yield mesh


@pytest.fixture
def newcomers(hub: Mesh) -> Iterator[list[Program]]:
    """Two sidecars on empty folders."""
    made = [hub.sidecar(f"new-{len(hub.programs) + number}") for number in range(2)]
    yield made
    for program in made:
        program.kill()


def invitation(hub: Mesh) -> str:
    socket = hub.authority.paths.admin_socket
    return str(admin_request(socket, "GET", "/v1/invitation")["invitation"])


def projected_token(hub: Mesh, pod: str) -> str:
    now = int(SystemClock().unix_s())
    made: dict[str, Any] = claims(iat=now - 5, nbf=now - 5, exp=now + 600)
    made["aud"] = [f"sidelink:{hub.authority.status()['identifier']}"]
    made[CLUSTER] = {"namespace": "shop", "pod": {"name": pod}}
    return token(made, by="rsa")


def start_with(program: Program, hub: Mesh, text: str) -> Path:
    path = program.base / "token"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    program.start("--ticket", invitation(hub), "--token-file", str(path))
    return path


def test_a_pod_enrols_by_its_token_and_nobody_else_by_the_same(
    hub: Mesh, newcomers: list[Program]
) -> None:
    first, second = newcomers
    text = projected_token(hub, "billing-7f9c")
    start_with(first, hub, text)
    status = first.wait_ready()
    start_with(second, hub, text)
    code = second.wait_end()

    assert status["name"] == "agent://acme/k8s/shop/billing-7f9c"
    assert status["attributes"] == {"tier": "gold"}
    assert code == 1
    assert "enrol.token_used" in second.log_text()
    assert text not in second.log_text() + first.log_text() + hub.authority.log_text()


def test_a_pod_is_refused_whose_token_is_for_somebody_else(
    hub: Mesh, newcomers: list[Program]
) -> None:
    text = token(claims(aud=["https://kubernetes.default.svc"]))
    start_with(newcomers[0], hub, text)

    assert newcomers[0].wait_end() == 1
    assert "enrol.token_invalid" in newcomers[0].log_text()


def test_one_use_that_two_nodes_want_at_once_is_won_by_one(
    hub: Mesh, newcomers: list[Program]
) -> None:
    ticket = hub.ticket(name_prefix="workers")
    for number, program in enumerate(newcomers):
        program.start("--ticket", ticket, "--node-name", f"pod-{number}")
    names, ends = [], []
    for program in newcomers:
        try:
            names.append(program.wait_ready()["name"])
        except AssertionError:
            ends.append(program.wait_end())

    assert names in (["agent://acme/workers/pod-0"], ["agent://acme/workers/pod-1"])
    assert ends == [1]
    assert "enrol.ticket_used" in "".join(program.log_text() for program in newcomers)
