"""Settings on who may act as an agent: what is read, and each way to get them wrong."""

from pathlib import Path

import pytest

from identity import Code, SidelinkError
from node.errors import error_paragraph
from node.settings import SidecarSettings
from node.settings_load import load_settings

RULE = "agents:\n  rules:\n  - "
INVALID, UNKNOWN = Code.CONFIG_INVALID, Code.CONFIG_UNKNOWN_KEY


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTS", "AGENT_SOCKET", "AGENT_PORT", "AGENT_HOST", "STATE", "CONFIG"):
        monkeypatch.delenv(f"SIDELINK_{name}", raising=False)


def load(folder: Path, text: str) -> SidecarSettings:
    file = folder / "config.yaml"
    file.write_text(text)
    return load_settings(SidecarSettings, {"state": str(folder), "config": str(file)})


def test_a_rule_names_users_and_groups_by_number_or_by_name(tmp_path: Path) -> None:
    text = f"{RULE}{{names: [finance/*, billing/**], uid: planner, gid: 1000, exe: /usr/bin/agent}}"

    (rule,) = load(tmp_path, text).agents.rules

    assert rule.names == ("finance/*", "billing/**")
    assert (rule.uid, rule.gid, rule.exe) == ("planner", 1000, Path("/usr/bin/agent"))


def test_without_settings_the_own_user_alone_is_let_in_and_nobody_by_tcp(tmp_path: Path) -> None:
    settings = load(tmp_path, "")

    assert settings.agents.rules == ()
    assert settings.agents.own_user
    assert settings.agents.socket_group is None
    assert settings.agent_port is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1"])
def test_agents_connect_by_tcp_on_loopback(host: str, tmp_path: Path) -> None:
    settings = load(tmp_path, f"agent_port: 7450\nagent_host: '{host}'\n")

    assert (settings.agent_host, settings.agent_port) == (host, 7450)


MALFORMED = {
    "a rule for everybody": (f"{RULE}names: [a]\n", INVALID, 3, "uid or gid"),
    "a rule for a file alone": (
        f"{RULE}{{names: [a], exe: /usr/bin/agent}}\n",
        INVALID,
        3,
        "exe alone",
    ),
    "a file that is looked for": (f"{RULE}{{names: [a], uid: 1, exe: bin/x}}\n", INVALID, 3, "exe"),
    "a rule for no agent": (f"{RULE}{{names: [], uid: 1}}\n", INVALID, 3, "names"),
    "a rule that does not say which agents": (f"{RULE}uid: 1\n", INVALID, 3, "names"),
    "a name that is none": (f"{RULE}{{names: [../a], uid: 1}}\n", INVALID, 3, "'../a'"),
    "a whole URI": (f"{RULE}{{names: ['agent://a/b'], uid: 1}}\n", INVALID, 3, "segment"),
    "a star for a part of a segment": (f"{RULE}{{names: [a*], uid: 1}}\n", INVALID, 3, "segment"),
    "the rest in the middle": (f"{RULE}{{names: ['**/a'], uid: 1}}\n", INVALID, 3, "last"),
    "a user who is a boolean": (f"{RULE}{{names: [a], uid: true}}\n", INVALID, 3, "uid"),
    "a negative user": (f"{RULE}{{names: [a], uid: -1}}\n", INVALID, 3, "uid"),
    "the number that is nobody's": (f"{RULE}{{names: [a], uid: 4294967295}}\n", INVALID, 3, "uid"),
    "a user with a space": (f"{RULE}{{names: [a], uid: 'a b'}}\n", INVALID, 3, "uid"),
    "a misspelt key": (f"{RULE}{{names: [a], user: 1}}\n", UNKNOWN, 3, "user"),
    "a group, and a socket where it cannot reach": (
        "agents: {socket_group: 5}\n",
        INVALID,
        1,
        "agent_socket outside",
    ),
    "an address where a socket belongs": (
        "agent_socket: tcp://127.0.0.1:7450\n",
        INVALID,
        1,
        "agent_port",
    ),
    "an address that others reach": ("agent_host: 0.0.0.0\n", INVALID, 1, "loopback"),
    "an address of the network": ("agent_host: 192.168.1.2\n", INVALID, 1, "loopback"),
    "a name, which may lead anywhere": ("agent_host: localhost\n", INVALID, 1, "loopback"),
    "a port that is too large": ("agent_port: 70000\n", INVALID, 1, "65535"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_settings_for_agents_are_refused_with_their_line(case: str, tmp_path: Path) -> None:
    text, code, line, word = MALFORMED[case]

    with pytest.raises(SidelinkError) as caught:
        load(tmp_path, text)

    assert caught.value.code is code
    paragraph = error_paragraph(caught.value)
    assert f"config.yaml:{line}: " in paragraph
    assert word in paragraph


def test_a_socket_for_a_group_lies_outside_the_state_folder(tmp_path: Path) -> None:
    inside = f"agent_socket: {tmp_path}/sidecar/x/s\nagents: {{socket_group: 5}}\n"
    outside = "agent_socket: /run/sidelink/agent.sock\nagents: {socket_group: agents}\n"

    with pytest.raises(SidelinkError, match="outside the state folder"):
        load(tmp_path, inside)
    settings = load(tmp_path, outside)

    assert settings.agents.socket_group == "agents"


def test_the_tokens_of_agents_are_no_settings_of_a_sidecar_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the SDK reads may stand in an environment that a sidecar shares."""
    monkeypatch.setenv("SIDELINK_AGENT_TOKEN", "slk1")
    monkeypatch.setenv("SIDELINK_AGENT_TOKEN_FILE", "/run/secrets/agent")

    assert load(tmp_path, "").token_file is None
