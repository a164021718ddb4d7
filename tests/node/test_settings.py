"""Settings: three sources in rising precedence, and one sentence for each way to get them wrong."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code, GatewayAddress, Identifier, SidelinkError
from node.addresses import SocketAddress
from node.errors import ConfigError, error_paragraph
from node.settings import (
    DATAGRAM_BYTES_MAX,
    DATAGRAM_BYTES_MIN,
    AuthoritySettings,
    GatewaySettings,
    ProgramSettings,
    SidecarSettings,
)
from node.settings_load import check_variable_names, load_settings
from transport import limits as transport


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SIDELINK_"):
            monkeypatch.delenv(name)


def write_config(state: Path, program: str, text: str) -> Path:
    folder = state / program
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def load_sidecar(state: Path, text: str = "", **flags: object) -> SidecarSettings:
    write_config(state, "sidecar", text)
    return load_settings(SidecarSettings, {"state": str(state), **flags})


def refusal(model: type[ProgramSettings], **flags: object) -> SidelinkError:
    with pytest.raises(SidelinkError) as caught:
        load_settings(model, flags)
    return caught.value


@pytest.mark.parametrize("model", [AuthoritySettings, GatewaySettings, SidecarSettings])
def test_a_program_needs_no_configuration(model: type[ProgramSettings], tmp_path: Path) -> None:
    settings = load_settings(model, {"state": str(tmp_path)})

    assert settings.state_path == tmp_path / model.program
    assert settings.ops_host == "127.0.0.1"


def test_the_ports_are_those_of_the_documents(tmp_path: Path) -> None:
    flags = {"state": str(tmp_path)}

    assert load_settings(AuthoritySettings, flags).ops_port == 7462
    assert load_settings(GatewaySettings, flags).ops_port == 7460
    assert str(load_settings(GatewaySettings, flags).listen) == "0.0.0.0:7440"
    assert load_settings(SidecarSettings, flags).ops_port == 7461
    assert load_settings(SidecarSettings, flags).mcp_port == 7451


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELINK_OPS_PORT", "2")

    assert load_sidecar(tmp_path, "ops_port: 1\n").ops_port == 2


def test_a_flag_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDELINK_OPS_PORT", "2")

    assert load_sidecar(tmp_path, "ops_port: 1\n", ops_port="3").ops_port == 3


def test_a_flag_that_was_not_given_decides_nothing(tmp_path: Path) -> None:
    assert load_sidecar(tmp_path, "ops_port: 1\n", ops_port=None).ops_port == 1


def test_the_variable_for_the_state_folder_finds_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))
    write_config(tmp_path, "sidecar", "ops_port: 1\n")

    assert load_settings(SidecarSettings, {}).ops_port == 1


def test_a_file_named_by_flag_is_read_instead(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("ops_port: 9\n")

    assert load_sidecar(tmp_path, "ops_port: 1\n", config=str(other)).ops_port == 9


@pytest.mark.parametrize("model", [AuthoritySettings, GatewaySettings, SidecarSettings])
def test_the_size_of_datagrams_is_found_out_unless_it_is_given(
    model: type[ProgramSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_out = load_settings(model, {"state": str(tmp_path)})
    write_config(tmp_path, model.program, "datagram_bytes: 1280\n")
    in_the_file = load_settings(model, {"state": str(tmp_path)})
    monkeypatch.setenv("SIDELINK_DATAGRAM_BYTES", "1300")
    in_the_environment = load_settings(model, {"state": str(tmp_path)})
    as_flag = load_settings(model, {"state": str(tmp_path), "datagram_bytes": "1400"})

    sizes = [s.datagram_bytes for s in (found_out, in_the_file, in_the_environment, as_flag)]
    assert sizes == [None, 1280, 1300, 1400]


def test_the_size_of_datagrams_has_the_bounds_of_the_transport() -> None:
    assert (DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_MAX) == (
        transport.DATAGRAM_BYTES_MIN,
        transport.DATAGRAM_BYTES_MAX,
    )


def test_lists_of_addresses_may_be_one_text_with_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELINK_GATEWAYS", "gw.example:7440,[::1]:7441")

    settings = load_settings(AuthoritySettings, {"state": str(tmp_path)})

    assert settings.gateways == (SocketAddress("gw.example", 7440), SocketAddress("::1", 7441))


def test_gateways_of_other_companies_are_named_with_who_must_answer_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = Identifier(bytes(range(32)))
    text = f"{identifier}@gw.globex.example:7440"
    by_file = load_sidecar(tmp_path, f"further_gateways: [{text}]\n")
    monkeypatch.setenv("SIDELINK_FURTHER_GATEWAYS", f"{text},{identifier}@[::1]:1")
    by_variable = load_settings(SidecarSettings, {"state": str(tmp_path / "other")})

    assert by_file.further_gateways == (GatewayAddress("gw.globex.example", 7440, identifier),)
    hosts = [gateway.host for gateway in by_variable.further_gateways]
    assert hosts == ["gw.globex.example", "::1"]


@pytest.mark.parametrize(
    "text",
    ["gw.globex.example:7440", "sl1qqq@gw:7440", f"{Identifier(bytes(32))}@gw", "7", "@"],
)
def test_a_gateway_without_its_identifier_or_its_port_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sidecar(tmp_path, f"further_gateways: ['{text}']\n")

    assert "further_gateways" in caught.value.detail


def test_mcp_servers_and_ingresses_are_read(tmp_path: Path) -> None:
    settings = load_sidecar(
        tmp_path,
        "mcp:\n"
        "  ingress:\n"
        "  - {service: time, agent: tools/a, to: agent://acme/tools/b, token_file: /x/token}\n"
        "  servers:\n"
        "  - {service: time, agent: tools/b, command: [mcp-server-time], env: {TZ: UTC}}\n",
    )

    assert settings.mcp.ingress[0].token_file == Path("/x/token")
    assert settings.mcp.servers[0].command == ("mcp-server-time",)
    assert not settings.mcp.servers[0].unsafe_same_uid


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load_sidecar(tmp_path)

    with pytest.raises(ValueError, match="frozen"):
        settings.ops_port = 1  # type: ignore[misc]


def test_a_ticket_is_not_shown(tmp_path: Path) -> None:
    settings = load_sidecar(tmp_path, ticket="slt1secret")

    assert "slt1secret" not in repr(settings)


MALFORMED_FILES = {
    "an unknown key": ("ops_port: 0\nops_prt: 1\n", Code.CONFIG_UNKNOWN_KEY, 2, "ops_port"),
    "an unknown key of a server": (
        "mcp:\n  servers:\n  - service: a\n    agent: t/x\n    comand: [x]\n",
        Code.CONFIG_UNKNOWN_KEY,
        5,
        "command",
    ),
    "a key that only a flag may set": ("state: /x\n", Code.CONFIG_UNKNOWN_KEY, 1, "--state"),
    "a key given twice": ("ops_port: 1\nops_port: 2\n", Code.CONFIG_INVALID, 2, "ops_port"),
    "a port that is too large": ("\n\nops_port: 70000\n", Code.CONFIG_INVALID, 3, "65535"),
    "a port that is a word": ("ops_port: http\n", Code.CONFIG_INVALID, 1, "ops_port"),
    "a number that is a boolean": ("ops_port: true\n", Code.CONFIG_INVALID, 1, "ops_port"),
    "an address without a port": ("listen: localhost\n", Code.CONFIG_INVALID, 1, "host:port"),
    "a list where an address belongs": ("listen: [1]\n", Code.CONFIG_INVALID, 1, "host:port"),
    "an engine that does not exist": ("quic_engine: curl\n", Code.CONFIG_INVALID, 1, "qh3"),
    "datagrams below what QUIC needs": (
        "datagram_bytes: 1199\n",
        Code.CONFIG_INVALID,
        1,
        "1200",
    ),
    "datagrams beyond what an engine writes": (
        "datagram_bytes: 16001\n",
        Code.CONFIG_INVALID,
        1,
        "16000",
    ),
    "an ingress without a guard": (
        "mcp:\n  ingress:\n  - {service: a, agent: t/x, to: 'agent://a/b'}\n",
        Code.CONFIG_INVALID,
        3,
        "token_file",
    ),
    "an agent that is no name": (
        "mcp:\n  servers:\n  - {service: a, agent: '../x', command: [x]}\n",
        Code.CONFIG_INVALID,
        3,
        "agent",
    ),
    "one service offered twice": (
        "mcp:\n  servers:\n  - {service: a, agent: x, command: [x]}\n"
        "  - {service: a, agent: x, command: [x]}\n",
        Code.CONFIG_INVALID,
        1,
        "more than once",
    ),
    "a server without a command": (
        "mcp:\n  servers:\n  - {service: a, agent: x, command: []}\n",
        Code.CONFIG_INVALID,
        3,
        "command",
    ),
    "a list instead of a mapping": ("- 1\n", Code.CONFIG_INVALID, 1, "mapping"),
    "text that is not YAML": ("ops_port: [1\n", Code.CONFIG_INVALID, None, "config.yaml"),
    "a ticket and a ticket file": (
        "ticket: a\nticket_file: b\n",
        Code.CONFIG_INVALID,
        2,
        "not both",
    ),
}


@pytest.mark.parametrize("case", MALFORMED_FILES)
def test_a_malformed_file_is_refused_with_its_line(case: str, tmp_path: Path) -> None:
    text, code, line, word = MALFORMED_FILES[case]
    path = write_config(tmp_path, "sidecar", text)

    error = refusal(SidecarSettings, state=str(tmp_path))

    assert error.code is code
    paragraph = error_paragraph(error)
    assert re.search(re.escape(str(path)) + (f":{line}[: ]" if line else ""), paragraph)
    assert word in paragraph
    assert "\n" not in paragraph


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write_config(tmp_path, "sidecar", "")
    path.write_bytes(b"ops_port: 1\n# \xff\n")

    error = refusal(SidecarSettings, state=str(tmp_path))

    assert f"{path}:2:" in str(error)


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, "sidecar", "#" * (1 << 20) + "\n")

    assert refusal(SidecarSettings, state=str(tmp_path)).code is Code.CONFIG_INVALID


def test_a_file_named_by_flag_must_exist(tmp_path: Path) -> None:
    error = refusal(SidecarSettings, config=str(tmp_path / "absent.yaml"))

    assert error.code is Code.CONFIG_INVALID
    assert "absent.yaml" in str(error)


MALFORMED_VARIABLES = {
    "a misspelt name": ("SIDELINK_OPS_PRT", "1", Code.CONFIG_UNKNOWN_KEY),
    "a misspelt name in lower case": ("sidelink_ops_prt", "1", Code.CONFIG_UNKNOWN_KEY),
    "a word for a number": ("SIDELINK_OPS_PORT", "http", Code.CONFIG_INVALID),
    "a mapping that is not JSON": ("SIDELINK_MCP", "{", Code.CONFIG_INVALID),
    "an unknown key in JSON": ("SIDELINK_MCP", '{"x": 1}', Code.CONFIG_UNKNOWN_KEY),
    "an address without a port": ("SIDELINK_LISTEN", "localhost", Code.CONFIG_INVALID),
}


@pytest.mark.parametrize("case", MALFORMED_VARIABLES)
def test_a_malformed_variable_is_refused_by_name(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value, code = MALFORMED_VARIABLES[case]
    monkeypatch.setenv(name, value)

    error = refusal(SidecarSettings, state=str(tmp_path))

    assert error.code is code
    assert name.upper() in str(error).upper()


def test_a_variable_of_another_program_is_no_error() -> None:
    check_variable_names(["SIDELINK_TRUST_DOMAIN", "SIDELINK_MASTER_KEY", "PATH"])


def test_a_malformed_flag_is_named_as_a_flag(tmp_path: Path) -> None:
    error = refusal(SidecarSettings, state=str(tmp_path), ops_port="http")

    assert str(error).startswith("config.invalid: --ops-port:")


def test_an_error_cannot_write_to_the_terminal() -> None:
    error = ConfigError(Code.CONFIG_INVALID, "a\x1b[2Jb\nTraceback c")

    assert error_paragraph(error).isprintable()


ADDRESSES = {
    "127.0.0.1:0": SocketAddress("127.0.0.1", 0),
    "[::1]:7440": SocketAddress("::1", 7440),
    "Gateway.Example:65535": SocketAddress("gateway.example", 65535),
}
NO_ADDRESSES = {
    "no port": "host",
    "no host": ":1",
    "a port that is too large": "host:65536",
    "a port with a sign": "host:+1",
    "a port in another script": "host:\u0661",
    "IPv6 without brackets": "::1:7440",
    "an empty label": "a..b:1",
    "four numbers that are no address": "1.2.3.400:1",
    "a label that begins with a dash": "-a:1",
    "a path": "a/b:1",
    "a long label": "a" * 64 + ":1",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_read(text: str) -> None:
    assert SocketAddress.parse(text) == ADDRESSES[text]


@pytest.mark.parametrize("case", NO_ADDRESSES)
def test_what_is_no_address_is_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        SocketAddress.parse(NO_ADDRESSES[case])


@given(st.text(max_size=40))
def test_any_text_is_an_address_that_prints_itself_or_a_value_error(text: str) -> None:
    try:
        address = SocketAddress.parse(text)
    except ValueError:
        return
    assert SocketAddress.parse(str(address)) == address
