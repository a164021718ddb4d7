"""The commands: quick help, data on standard output, stable JSON, failures in one paragraph."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.main import COMMANDS, main
from cli.options import parse_attributes
from cli.output import cell_text, print_fields
from cli.tickets import parse_allowed, parse_lifetime
from node.http_servers import AdminHandler, AdminServer
from node.state_folder import StateFolder

HEAVY = {"aiohttp", "aioquic", "identity", "pydantic", "qh3", "policy", "node", "rich", "asyncio"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))


@contextmanager
def program_in(
    state: Path,
    program: str,
    status: Mapping[str, Any],
    routes: Mapping[str, AdminHandler] | None = None,
) -> Iterator[None]:
    """A real admin server in a real state folder, on a loop of its own."""
    started, stop = Event(), Event()

    async def serve(folder: StateFolder) -> None:
        server = AdminServer(folder.admin_socket, status=lambda: status)
        for path, handler in (routes or {}).items():
            server.add("GET", path, handler)
            server.add("POST", path, handler)
        await server.start()
        started.set()
        await asyncio.to_thread(stop.wait)
        await server.close()

    with StateFolder.open(state / program) as folder:
        thread = Thread(target=lambda: asyncio.run(serve(folder)))
        thread.start()
        assert started.wait(5)
        try:
            yield
        finally:
            stop.set()
            thread.join()


def test_the_help_page_imports_nothing_heavy() -> None:
    script = (
        "import sys; from cli.main import main; code = main(['--help']); "
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert HEAVY & set(done.stderr.split()) == set()
    assert done.stdout.startswith("Usage: sidelink")


def test_the_help_page_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])

    page = capsys.readouterr().out
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", page, re.MULTILINE)] == []


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"demo"}))
def test_every_command_has_a_help_page_of_its_own(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: sidelink {name}" in capsys.readouterr().out


WRONG_USE = {
    "an unknown command": ["fly"],
    "an unknown flag": ["up", "--fly"],
    "a missing argument": ["ask", "agent://acme/b"],
    "nobody to revoke": ["revoke"],
    "somebody to revoke, and a list": ["revoke", "laptop", "--list"],
    "a ticket for half a node": ["ticket", "create", "--name", "a", "--uses", "0.5"],
    "an attribute without a value": ["ticket", "create", "--name", "a", "--attribute", "role"],
    "a lifetime in fortnights": ["ticket", "create", "--name", "a", "--expires", "1f"],
    "a body that is no JSON": ["send", "agent://acme/b", "{", "--body-json", "--as", "a"],
}


@pytest.mark.parametrize("case", WRONG_USE)
def test_wrong_use_exits_with_2_and_talks_on_standard_error(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(WRONG_USE[case])

    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    assert "Error" in told.err


def test_status_shows_a_program_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with program_in(tmp_path, "gateway", {"ready": True, "awaiting": [], "hops": 3}):
        code = main(["status", "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out) == {
        "programs": [
            {"program": "gateway", "running": True, "ready": True, "awaiting": [], "hops": 3}
        ]
    }


@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 1)])
def test_a_check_fails_until_the_program_is_ready(ready: bool, code: int, tmp_path: Path) -> None:
    with program_in(tmp_path, "gateway", {"ready": ready, "awaiting": [] if ready else ["x"]}):
        assert main(["status", "gateway", "--check"]) == code


def test_a_check_fails_for_a_program_that_does_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status", "gateway", "--check", "--json"]) == 1

    (gateway,) = json.loads(capsys.readouterr().out)["programs"]
    assert gateway["running"] is False
    assert gateway["fault"].startswith("local.unavailable")


def test_status_of_an_empty_folder_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 1
    assert "no program" in capsys.readouterr().err


def test_a_ticket_is_the_only_thing_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wishes: list[Mapping[str, Any]] = []

    async def create(body: Mapping[str, Any]) -> object:
        wishes.append(body)
        return {"ticket": "slt1abc", "id": "a1", "expires_unix_s": 1, "held_by": None}

    words = ["ticket", "create", "--name", "finance", "--prefix", "finance", "--expires", "2h"]
    words += ["--attribute", "site=berlin", "--allow", "role=planner,clerk", "--allow", "team"]
    with program_in(tmp_path, "authority", {}, {"/v1/tickets": create}):
        assert main(words) == 0

    assert capsys.readouterr().out == "slt1abc\n"
    assert wishes == [
        {
            "role": "sidecar",
            "name": "finance",
            "name_prefix": None,
            "uses": 1,
            "replace": False,
            "prefixes": ["finance"],
            "attributes": {"site": "berlin"},
            "allowed_attributes": {"role": ["planner", "clerk"], "team": None},
            "expires_in_s": 7200,
        }
    ]


def test_who_asks_for_a_ticket_is_told_on_standard_error_that_its_name_is_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def create(_: Mapping[str, Any]) -> object:
        return {"ticket": "slt1abc", "id": "a1", "expires_unix_s": 1, "held_by": "sl1holder"}

    with program_in(tmp_path, "authority", {}, {"/v1/tickets": create}):
        assert main(["ticket", "create", "--name", "finance"]) == 0

    told = capsys.readouterr()
    assert told.out == "slt1abc\n"
    assert "sl1holder" in told.err
    assert "--replace" in told.err


def test_a_ticket_for_many_says_so_to_the_authority(tmp_path: Path) -> None:
    wishes: list[Mapping[str, Any]] = []

    async def create(body: Mapping[str, Any]) -> object:
        wishes.append(body)
        return {"ticket": "slt1abc", "id": "a1", "expires_unix_s": 1, "held_by": None}

    words = ["ticket", "create", "--name-prefix", "workers", "--uses", "50", "--replace"]
    with program_in(tmp_path, "authority", {}, {"/v1/tickets": create}):
        assert main(words) == 0

    assert [(one["name_prefix"], one["uses"], one["replace"]) for one in wishes] == [
        ("workers", 50, True)
    ]


TICKET = {
    "id": "0123456789ab",
    "role": "sidecar",
    "name": "agent://acme/workers/*",
    "uses_left": 2,
    "created_unix_s": 1_800_000_000,
    "expires_unix_s": 1_800_003_600,
    "state": "open",
}


def test_tickets_are_a_table_or_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def tickets(_: Mapping[str, Any]) -> object:
        return {"tickets": [TICKET]}

    with program_in(tmp_path, "authority", {}, {"/v1/tickets": tickets}):
        assert main(["ticket", "list"]) == 0
        table = capsys.readouterr().out.splitlines()
        assert main(["ticket", "list", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)

    assert table[0].split() == ["id", "role", "name", "uses_left", "created", "expires", "state"]
    assert table[1].split()[:4] == ["0123456789ab", "sidecar", "agent://acme/workers/*", "2"]
    assert document == {"tickets": [TICKET]}


def test_a_ticket_is_revoked_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Mapping[str, Any]] = []

    async def revoke(body: Mapping[str, Any]) -> object:
        asked.append(body)
        return {"id": body["id"], "used": 3}

    with program_in(tmp_path, "authority", {}, {"/v1/tickets/revoke": revoke}):
        assert main(["ticket", "revoke", "0123456789ab"]) == 0

    assert asked == [{"id": "0123456789ab"}]
    told = capsys.readouterr()
    assert (told.out, "3" in told.err) == ("", True)


def test_an_invitation_is_the_only_thing_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def invitation(_: Mapping[str, Any]) -> object:
        return {"invitation": "sli1abc"}

    with program_in(tmp_path, "authority", {}, {"/v1/invitation": invitation}):
        assert main(["ticket", "invitation"]) == 0

    assert capsys.readouterr().out == "sli1abc\n"


REVOKED = {"identifier": "sl1abc", "revoked_unix_s": 1_800_000_000, "reason": "lost laptop"}


def test_an_identity_is_revoked_with_its_reason_and_then_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Mapping[str, Any]] = []

    async def revocations(body: Mapping[str, Any]) -> object:
        if body:
            asked.append(body)
            return {"identifier": "sl1abc", "revoked_before": False}
        return {"number": 7, "revocations": [REVOKED]}

    with program_in(tmp_path, "authority", {}, {"/v1/revocations": revocations}):
        assert main(["revoke", "laptop", "--reason", "lost laptop"]) == 0
        told = capsys.readouterr()
        assert main(["revoke", "--list"]) == 0
        table = capsys.readouterr().out.splitlines()

    assert asked == [{"who": "laptop", "reason": "lost laptop"}]
    assert (told.out, told.err) == ("", "sidelink: sl1abc is revoked\n")
    assert table[1].split()[0] == "sl1abc"
    assert table[1].endswith("lost laptop")


def test_without_an_authority_there_is_no_ticket(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ticket", "create", "--name", "a"]) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("sidelink: local.unavailable")
    assert len(told.err.splitlines()) == 1


def test_without_a_sidecar_nothing_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "agent://acme/b", "hello", "--as", "a"]) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("sidelink: local.unavailable")
    assert "sidelink up" in told.err


AGENTS = [
    {"uri": "agent://acme/a", "identifier": None, "awake": True, "waiting": 2},
    {"uri": "agent://acme/a-longer-name", "identifier": None, "awake": False, "waiting": 0},
]


async def agents_one_by_one(request: Mapping[str, Any]) -> object:
    """A page for each agent, and an empty one behind the last."""
    page = [agent for agent in AGENTS if agent["uri"] > request["after"]][:1]
    return {"agents": page, "next": page[0]["uri"] if page else None}


def test_agents_are_a_table_that_comes_in_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with program_in(tmp_path, "sidecar", {}, {"/v1/agents": agents_one_by_one}):
        assert main(["agent", "list"]) == 0

    headings, *rows = capsys.readouterr().out.splitlines()
    assert headings.split() == ["URI", "IDENTIFIER", "AWAKE", "LISTENING", "WAITING"]
    assert [row.split() for row in rows] == [
        ["agent://acme/a", "-", "yes", "-", "2"],
        ["agent://acme/a-longer-name", "-", "no", "-", "0"],
    ]


@pytest.mark.parametrize("agents", [AGENTS, []])
def test_agents_are_one_json_document_however_many_pages_they_come_in(
    agents: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "AGENTS", agents)
    with program_in(tmp_path, "sidecar", {}, {"/v1/agents": agents_one_by_one}):
        assert main(["agent", "list", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == {"agents": agents}


def test_without_a_sidecar_no_part_of_a_list_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["agent", "list", "--json"]) == 1

    assert capsys.readouterr().out == ""


POLICY = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: a}
rules:
  - {name: all ask, effect: allow, actions: [message.ask], from: {kind: agent}, to: {kind: agent}}
tests:
  - name: one may ask
    action: message.ask
    from: {name: agent://acme/a}
    to: {name: agent://acme/b}
    expect: EXPECTED
"""


@pytest.mark.parametrize(("expected", "code"), [("allow", 0), ("deny", 1)])
def test_a_policy_is_checked_with_its_own_tests(
    expected: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("EXPECTED", expected))

    assert main(["policy", "check", str(path), "--json"]) == code

    answer = json.loads(capsys.readouterr().out)
    (test,) = answer["tests"]
    assert test["passed"] is (code == 0)
    assert (test["decided"], test["rule"], test["line"]) == ("allow", "all ask", 7)


def test_a_failed_policy_test_is_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("EXPECTED", "deny"))

    main(["policy", "check", str(path)])

    told = capsys.readouterr()
    assert told.out.splitlines()[1].startswith("FAILED")
    assert "1 tests, 1 failed" in told.err


def test_a_malformed_policy_exits_with_2_and_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("apiVersion: sidelink/v1\nkind: Policy\nruls: []\n")

    assert main(["policy", "check", str(path)]) == 2
    assert f"{path}:3" in capsys.readouterr().err


def test_attributes_are_typed_as_they_look() -> None:
    given_texts = ("role=planner", "level=-3", "active=true", "tags=[a, b]", 'zip="00501"', "e=")

    assert parse_attributes(given_texts) == {
        "role": "planner",
        "level": -3,
        "active": True,
        "tags": ["a", "b"],
        "zip": "00501",
        "e": "",
    }


@given(st.lists(st.text(max_size=20), max_size=3))
def test_any_attributes_are_read_or_refused_as_wrong_use(texts: list[str]) -> None:
    try:
        attributes = parse_attributes(tuple(texts))
    except click.BadParameter:
        return
    assert len(attributes) == len(texts)


def test_lifetimes_and_allowed_values_are_read() -> None:
    assert [parse_lifetime(text) for text in ("90", "90s", "2m", "1h", "7d")] == [
        90,
        90,
        120,
        3600,
        604_800,
    ]
    assert parse_allowed(("level=1,2", "role")) == {"level": [1, 2], "role": None}


@given(st.text())
def test_a_cell_is_one_line_that_no_terminal_obeys(text: str) -> None:
    assert cell_text(text) == "" or cell_text(text).isprintable()


def test_status_shows_times_as_dates_and_lists_of_objects_as_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_fields(
        {
            "ready": True,
            "credential_expires_unix_s": 1_800_000_000,
            "hops": [
                {"peer": "sl1a", "engine": "qh3"},
                {"peer": "sl1bb", "fault": "hop.timeout"},
            ],
            "routes": [],
        }
    )

    assert capsys.readouterr().out == (
        "ready               yes\n"
        "credential_expires  2027-01-15 08:00 UTC\n"
        "routes              -\n"
        "\n"
        "hops:\n"
        "peer   engine  fault\n"
        "sl1a   qh3     -\n"
        "sl1bb  -       hop.timeout\n"
    )
