"""``python -m bench NAME …``, which is what ``./dev bench`` does."""

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.benchmark import NAMES, Findings, load_benchmark
from bench.errors import BenchError
from bench.machine import describe_machine
from bench.report import Report
from bench.show import machine_line, show
from bench.signals import EndedError, ending_by_signal

EXIT_FAILED: Final = 1
EXIT_SIGNAL: Final = 128  # plus the signal's number, as shells have it.
TEXT_WIDTH: Final = 110


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(listing(), end="")
        return 0
    options = parse(arguments)
    with ending_by_signal():
        try:
            return run(options)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return EXIT_FAILED
        except EndedError as ended:
            print("bench: interrupted; nothing is left running", file=sys.stderr)
            return EXIT_SIGNAL + int(ended.args[0])


def listing() -> str:
    """What `./dev bench` says without a name."""
    lines = ["usage: ./dev bench NAME [--json] [--out FOLDER] [--quick] …", ""]
    lines += [f"  {name:<11} {load_benchmark(name).SUMMARY}" for name in NAMES]
    return "\n".join([*lines, "", "./dev bench NAME --help shows the options of one.", ""])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=listing())
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    for name in NAMES:
        benchmark = load_benchmark(name)
        own = names.add_parser(name, help=benchmark.SUMMARY, description=benchmark.SUMMARY)
        own.add_argument("--json", action="store_true", help="print one JSON object instead")
        own.add_argument(
            "--out", type=Path, metavar="FOLDER", help="write text, JSON and SVG there too"
        )
        own.add_argument(
            "--quick", action="store_true", help="the shortest run that still shows it works"
        )
        benchmark.add_arguments(own)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Measure, and publish what was found. Targets that are not met are no failure, faults are."""
    machine = describe_machine()
    findings = load_benchmark(options.name).run(options)
    report = Report(options.name, machine, findings.rows, findings.targets)
    if options.out is not None:
        write_files(options.out, report, findings)
    if options.json:
        print(report.as_json())
    else:
        show(Console(highlight=False, width=TEXT_WIDTH), report, findings.notes)
    for fault in findings.faults:
        print(f"bench: not so: {fault}", file=sys.stderr)
    return EXIT_FAILED if findings.faults else 0


def write_files(folder: Path, report: Report, findings: Findings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{report.name}.txt").open("w", encoding="utf-8") as text:
        show(Console(file=text, width=TEXT_WIDTH), report, findings.notes)
    (folder / f"{report.name}.json").write_text(report.as_json() + "\n", encoding="utf-8")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    foot = f"{today}. {machine_line(report.machine)}"
    for chart in findings.charts:
        (folder / f"{chart.name}.svg").write_text(chart.as_svg(foot), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
