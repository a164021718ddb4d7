"""`./dev fuzz`: which targets, which engine, for how long; and what came of it."""

import argparse
import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.fuzz.findings import WORK, Outcome, describe, replay_command
from tests.fuzz.target import Target

SECONDS: Final = 120.0
ENGINES: Final = ("atheris", "hypothesis")


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev fuzz",
        description="Feed hostile inputs to every decoder and state machine, for a bounded time.",
    )
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="default: all of them")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="N", help="in all (default: 120)"
    )
    parser.add_argument("--runs", type=int, metavar="N", help="at most so many inputs a target")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--replay", type=Path, metavar="FILE", help="one input for one target")
    parser.add_argument("--list", action="store_true", help="name the targets and end")
    parser.add_argument("--work", type=Path, default=WORK, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.replay is not None and len(options.targets) != 1:
        parser.error("--replay needs the one TARGET that the input is for")
    return options


def main(words: list[str]) -> int:
    options = parse(words)
    is_quick = options.replay is not None or options.list
    engine = None if is_quick else _load_engine(options.engine)
    targets = _chosen(_load_targets(engine), options.targets)
    if options.list:
        for target in targets:
            print(f"{target.name:32} {target.feeds}")
        return 0
    if options.replay is not None:
        return replay(targets[0], options.replay)
    assert engine is not None
    _be_quiet()
    # Text of errors, with bytes in it that are no text, must not end the report of them.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    outcomes: list[Outcome] = []
    try:
        for number, target in enumerate(targets):
            # What the targets before left over, or used beyond their share, is for the rest.
            spent_s = sum(outcome.seconds for outcome in outcomes)
            seconds = max(0.0, options.seconds - spent_s) / (len(targets) - number)
            outcome = engine.run(target, seconds=seconds, runs=options.runs, work=options.work)
            outcomes.append(outcome)
            _tell(outcome, options.work)
    except KeyboardInterrupt:
        print("interrupted")
    return _sum_up(outcomes)


def replay(target: Target, path: Path) -> int:
    """1 when the input still fails, 0 when it no longer does."""
    from tests.fuzz.guard import run_exactly

    try:
        data = path.read_bytes()
    except OSError as error:
        sys.exit(f"dev: {path}: {error.strerror}")
    try:
        taken = run_exactly(target, data)
    except Exception as error:
        print(describe(error))
        print(f"{target.name}: this input fails")
        return 1
    print(f"{target.name}: this input is {'taken' if taken else 'refused, as it may be'}")
    return 0


def _be_quiet() -> None:
    """What the project logs of hostile inputs would be most of the work, and of no use here."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _load_engine(name: str) -> ModuleType:
    if name == "atheris":
        try:
            importlib.import_module("atheris")
        except ImportError as error:
            sys.exit(f"dev: atheris cannot be used here ({error}); try --engine hypothesis")
    return importlib.import_module(f"tests.fuzz.engine_{name}")


def _load_targets(engine: ModuleType | None) -> list[Target]:
    if engine is not None and hasattr(engine, "instrumented"):
        with engine.instrumented():
            return _registered()
    return _registered()


def _registered() -> list[Target]:
    targets: list[Target] = importlib.import_module("tests.fuzz.registry").TARGETS
    return targets


def _chosen(targets: list[Target], names: list[str]) -> list[Target]:
    """By name, or by the beginning of a name: `link` is all of link's."""
    if not names:
        return targets
    chosen = []
    for name in names:
        found = [one for one in targets if one.name == name or one.name.startswith(f"{name}.")]
        if not found:
            sys.exit(f"dev: no such target: {name}; ./dev fuzz --list names them")
        chosen += [one for one in found if one not in chosen]
    return chosen


def _tell(outcome: Outcome, work: Path) -> None:
    rate = outcome.runs / max(outcome.seconds, 0.001)
    print(f"{outcome.target:32} {outcome.runs:>10} inputs  {rate:>8.0f}/s", flush=True)
    if outcome.finding is not None:
        log = work / f"{outcome.target}.log"
        if log.exists():
            print(log.read_text(encoding="utf-8", errors="backslashreplace")[-4_000:])
        print(f"FAILED: {replay_command(outcome.target, outcome.finding)}", flush=True)


def _sum_up(outcomes: list[Outcome]) -> int:
    failed = [outcome for outcome in outcomes if outcome.finding is not None]
    total = sum(outcome.runs for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"{total} inputs for {len(outcomes)} targets in {seconds:.0f} s; {len(failed)} failed")
    for outcome in failed:
        assert outcome.finding is not None
        print(replay_command(outcome.target, outcome.finding))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
