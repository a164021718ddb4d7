"""Whole runs, as short as they can be: the report, its files, and nothing left behind."""

import json
import signal
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.helpers import Watched

RUN_S_MAX = 60
# A whole mesh that is started more than once.
LONG_RUN_S_MAX = 150
MESSAGES = ("-m", "bench", "messages", "--quick", "--systems", "ours-gateway")

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(RUN_S_MAX + 30)]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short, as Unix sockets need it."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


def test_a_quick_run_of_ours_reports_every_figure_and_leaves_nothing_behind(
    temporary: Path, tmp_path: Path
) -> None:
    bench = Watched(temporary, *MESSAGES, "--seconds", "0.2", "--json", "--out", str(tmp_path))

    said, errors = bench.process.communicate(timeout=RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    report = json.loads(said)
    assert list(report) == ["name", "machine", "rows", "targets"]
    metrics = {row["metric"] for row in report["rows"] if row["case"] == "1 KiB"}
    assert metrics >= {
        "one-way rate",
        "CPU time for 100,000 one-way messages",
        "ask p50, 1 in flight",
        "ask p50, 64 in flight",
    }
    assert {row["system"] for row in report["rows"]} == {"ours-gateway"}
    assert all(row["value"] > 0 for row in report["rows"] if row["unit"] != "s")
    watched = {row["case"] for row in report["rows"] if row["metric"] == "peak resident memory"}
    assert watched == {"authority", "gateway", "sidecar a", "sidecar b", "sender", "receiver"}
    assert json.loads((tmp_path / "messages.json").read_text()) == report
    assert "one-way rate" in (tmp_path / "messages.txt").read_text()
    assert ET.parse(tmp_path / "messages-one-way.svg").getroot().tag.endswith("svg")
    assert bench.processes() == []
    assert bench.files() == []


def test_a_run_that_is_interrupted_ends_all_that_it_started(temporary: Path) -> None:
    bench = Watched(temporary, *MESSAGES, "--rounds", "100")
    assert bench.process.stderr is not None
    while b"round 1" not in bench.process.stderr.readline():
        pass
    assert len(bench.processes()) == 7

    bench.process.send_signal(signal.SIGINT)
    said, errors = bench.process.communicate(timeout=RUN_S_MAX)

    assert bench.process.returncode == 128 + signal.SIGINT
    assert said == b""
    assert b"nothing is left running" in errors
    assert bench.processes() == []
    assert bench.files() == []


def test_a_gateway_relays_on_one_core_and_its_idle_links_are_weighed(temporary: Path) -> None:
    bench = Watched(
        temporary,
        *("-m", "bench", "relay", "--quick", "--seconds", "0.2", "--json"),
        *("--hops", "8", "--links", "200"),
    )

    said, errors = bench.process.communicate(timeout=RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    figures = {(row["case"], row["metric"]): row["value"] for row in json.loads(said)["rows"]}
    assert figures["1 KiB", "records relayed"] > 0
    assert ("idle link", "resident memory") in figures
    assert ("idle hop", "resident memory") in figures
    assert bench.processes() == []
    assert bench.files() == []


@pytest.mark.timeout(LONG_RUN_S_MAX + 30)
def test_a_short_soak_loses_nothing_while_gateways_and_a_sidecar_go_and_come(
    temporary: Path,
) -> None:
    bench = Watched(temporary, "-m", "bench", "soak", "--quick", "--json")

    said, errors = bench.process.communicate(timeout=LONG_RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    report = json.loads(said)
    happened = {row["case"] for row in report["rows"] if row["metric"] == "what happened meanwhile"}
    assert len(happened) == 5
    assert all(target["met"] for target in report["targets"])
    watched = {row["system"] for row in report["rows"] if row["metric"] == "descriptors"}
    assert watched >= {"authority", "gateway", "sidecar a", "sidecar b", "agents of c"}
    assert bench.processes() == []
    assert bench.files() == []


@pytest.mark.timeout(LONG_RUN_S_MAX + 30)
def test_idle_agents_and_channels_of_a_sidecar_are_weighed(temporary: Path) -> None:
    bench = Watched(temporary, "-m", "bench", "soak", "--idle", "--quick", "--json")

    said, errors = bench.process.communicate(timeout=LONG_RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    weighed = {row["case"] for row in json.loads(said)["rows"]}
    assert weighed >= {
        "agent, connected",
        "agent that has left",
        "open channel, at its initiator",
        "open channel, at its responder",
        "channel that was put away",
        "idle link",
        "idle hop",
    }
    assert bench.processes() == []
    assert bench.files() == []


@pytest.mark.parametrize(
    "line", ["handshakes", "fairness", "hop --engine qh3 --datagram-bytes 1452"]
)
def test_a_quick_run_reports_rows_and_leaves_nothing_behind(line: str, temporary: Path) -> None:
    bench = Watched(temporary, "-m", "bench", *line.split(), "--quick", "--json")

    said, errors = bench.process.communicate(timeout=RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    assert all(row["value"] > 0 for row in json.loads(said)["rows"])
    assert bench.processes() == []
    assert bench.files() == []


def test_a_quick_run_of_identity_mints_verifies_and_restarts(temporary: Path) -> None:
    bench = Watched(temporary, "-m", "bench", "identity", "--quick", "--json")

    said, errors = bench.process.communicate(timeout=RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    report = json.loads(said)
    figures = {(row["system"], row["case"], row["metric"]): row["value"] for row in report["rows"]}
    rate = "for each second of one core"
    assert figures["agent", "with identity, Noise key, credential and row", rate] > 0
    assert (
        figures["proof of depth 4", "a peer seen before", rate]
        > (figures["proof of depth 4", "a new peer, its issuers known", rate])
    )
    assert figures["sidecar", "with 500 idle agents", "from its start to ready"] > 0
    assert 0 < figures["sidecar", "with 500 idle agents", "on disk for each agent"] <= 1.5
    assert len(report["targets"]) == 6
    assert bench.processes() == []
    assert bench.files() == []


def test_a_quick_run_of_policy_asks_every_system_the_same(temporary: Path) -> None:
    # The others are installed where benchmarks are run, and not where tests are.
    systems = "ours,ours-cached,python"
    bench = Watched(temporary, *f"-m bench policy --quick --systems {systems} --json".split())

    said, errors = bench.process.communicate(timeout=RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    report = json.loads(said)
    asked = {(row["system"], row["case"]) for row in report["rows"] if row["metric"] == "p99"}
    assert {case for _, case in asked} == {"1 rule", "100 rules"}
    assert len(asked) == 2 * 3
    assert all(row["value"] > 0 for row in report["rows"])
    assert len(report["targets"]) == 3
    assert bench.processes() == []
    assert bench.files() == []


def test_a_quick_run_under_one_sin_reports_it_beside_a_busy_core(temporary: Path) -> None:
    bench = Watched(temporary, "-m", "bench", "hostile", "--quick", "--sins", "garbage", "--json")

    said, errors = bench.process.communicate(timeout=RUN_S_MAX)

    assert bench.process.returncode == 0, errors.decode()
    report = json.loads(said)
    figures = {(row["system"], row["metric"]): row["value"] for row in report["rows"]}
    assert figures["ask meanwhile", "p99"] > 0
    assert figures["gateway", "counted"] > 0
    assert figures["gateway", "peak resident memory"] > 0
    assert len({row["case"] for row in report["rows"]}) == 2
    assert [target["target"] for target in report["targets"]] == [10]
    assert bench.processes() == []
    assert bench.files() == []
