"""Plays the Dockerfile without an engine: each step in an empty folder and an empty venv.

The image's file system is a folder; every absolute path of the Dockerfile is read as a path in
it, and the base image `python:…` is an empty virtual environment. What this cannot play is an
error, never skipped. It ends by running the image's entry point and its health check.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STEP_DEADLINE_S = 600
HEALTHY_DEADLINE_S = 20

# What the image is tried with: a program that needs no other one.
PROGRAM = ["authority", "up"]
FREE_PORTS = {"SIDELINK_OPS_PORT": "0"}

# A step may use these programs of the machine; every other absolute path belongs to the image.
HOST_PATHS = ("/bin/", "/usr/bin/", "/dev/null")
# A step with one of these would change the machine that plays it, so it is refused.
MACHINE_CHANGERS = {"addgroup", "adduser", "apk", "apt", "apt-get", "dpkg", "groupadd", "useradd"}
ABSOLUTE_PATH = re.compile(r"(?<![\w./$}-])/[A-Za-z][\w./@+-]*")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class StepError(Exception):
    """A step of the Dockerfile is broken, or is one that this script cannot play."""


@dataclass(frozen=True, slots=True)
class Instruction:
    line: int
    name: str
    value: str
    flags: Mapping[str, str]


@dataclass(slots=True)
class Stage:
    """What the instructions of a stage have set so far; its files are in the image's folder."""

    name: str
    environment: dict[str, str]
    workdir: str = "/"
    user: int = 0
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    stop_signal: signal.Signals = signal.SIGTERM


def instructions_of(text: str) -> Iterator[Instruction]:
    logical, first_line = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first_line = first_line if logical else number
        logical += line.strip()
        if logical.endswith("\\"):
            logical = logical[:-1]
            continue
        name, _, value = logical.partition(" ")
        flags: dict[str, str] = {}
        while match := re.match(r"--([\w-]+)=(\S+)\s+", value.lstrip()):
            flags[match[1]] = match[2]
            value = value.lstrip()[match.end() :]
        yield Instruction(first_line, name.upper(), value.strip(), flags)
        logical = ""


def exec_form(value: str) -> list[str]:
    """Only the exec form is allowed where a program is named: a shell would swallow signals."""
    try:
        words = json.loads(value)
    except ValueError as error:
        raise StepError(f"the exec form is wanted, a JSON list: {value}") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise StepError(f"a list of strings is wanted: {value}")
    return words


def is_ignored(path: str, patterns: list[str]) -> bool:
    """The rules of .dockerignore: the last pattern that matches the path or a parent decides."""
    ignored = False
    for pattern in patterns:
        expression = re.escape(pattern.removeprefix("!").strip("/"))
        expression = expression.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{expression}(?:/.*)?", path):
            ignored = not pattern.startswith("!")
    return ignored


def make_context(folder: Path) -> None:
    """Copies what .dockerignore lets through, as an engine would be sent it."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for parent, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in {".git", ".venv"}]
        for name in files:
            source = Path(parent, name)
            relative = source.relative_to(ROOT)
            if not is_ignored(relative.as_posix(), patterns):
                (folder / relative.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, folder / relative)


def python_for_everyone() -> str:
    """An interpreter that the image's user may run too: root's own Python is hidden from it."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for candidate in [str(base), "/usr/bin/python3", "/usr/local/bin/python3"]:
        try:
            proof = subprocess.run(
                [candidate, "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"],
                check=False,
                capture_output=True,
                cwd="/",
                **as_user(65532),
            )
        except OSError:
            continue
        if proof.returncode == 0:
            return candidate
    raise StepError(
        "no Python ≥ 3.11 with venv is open to other users: apt-get install python3-venv"
    )


def as_user(user: int) -> dict[str, Any]:
    """A step runs as the image's user when this script may change user, else as who started it."""
    if os.geteuid() != 0 or user == 0:
        return {}
    return {"user": user, "group": user, "extra_groups": []}


class Player:
    """Plays the instructions one by one. As in an image, every stage has the same path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / "image"
        self.context = folder / "context"
        self.stages: dict[str, Path] = {}
        self.stage: Stage | None = None
        self.context.mkdir()
        make_context(self.context)
        subprocess.run([python_for_everyone(), "-m", "venv", folder / "python"], check=True)

    def play(self, instruction: Instruction) -> None:
        if instruction.name == "FROM":
            self.begin_stage(instruction)
            return
        step = getattr(self, f"play_{instruction.name.lower()}", None)
        if step is None:
            raise StepError(f"unknown instruction: {instruction.name}")
        if self.stage is None:
            raise StepError("an instruction before the first FROM")
        step(self.stage, instruction)

    def begin_stage(self, instruction: Instruction) -> None:
        match = re.fullmatch(r"python:3\.\d+-slim(?: AS (\w+))?", instruction.value)
        if match is None:
            raise StepError(f"the base image is not a slim Python: {instruction.value}")
        self.end_stage()
        self.image.mkdir()
        (self.image / "tmp").mkdir(mode=0o1777)
        passed_on = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("PIP_") or name.lower().endswith("_proxy") or name == "SSL_CERT_FILE"
        }
        path = f"{self.folder}/python/bin:/usr/bin:/bin"
        self.stage = Stage(match[1] or "final", {**passed_on, "PATH": path})

    def end_stage(self) -> None:
        if self.stage is not None:
            self.stages[self.stage.name] = self.image.rename(
                self.folder / f"stage-{self.stage.name}"
            )

    def in_image(self, text: str) -> str:
        def moved(match: re.Match[str]) -> str:
            path = match[0]
            return path if path.startswith(HOST_PATHS) else f"{self.image}{path}"

        return ABSOLUTE_PATH.sub(moved, text)

    def expanded(self, stage: Stage, text: str) -> str:
        """The image's paths moved, then the variables that the stage has set put in."""

        def value_of(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in stage.environment:
                raise StepError(f"the variable {name} is not set here")
            return stage.environment[name]

        return VARIABLE.sub(value_of, self.in_image(text))

    def run(self, stage: Stage, words: list[str], deadline_s: float) -> tuple[int, str]:
        try:
            done = subprocess.run(
                words,
                check=False,
                cwd=self.image / stage.workdir.strip("/"),
                env={"HOME": str(self.image), **stage.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=deadline_s,
                text=True,
                **as_user(stage.user),
            )
        except subprocess.TimeoutExpired as error:
            raise StepError(f"not done after {deadline_s} s: {shlex.join(words)}") from error
        except OSError as error:
            raise StepError(f"cannot be started: {shlex.join(words)}: {error}") from error
        return done.returncode, done.stdout

    def play_run(self, stage: Stage, instruction: Instruction) -> None:
        changers = MACHINE_CHANGERS.intersection(re.split(r"[\s;&|()/]+", instruction.value))
        if changers or instruction.flags:
            raise StepError(f"cannot be played here: {instruction.value}")
        command = self.in_image(instruction.value)
        status, output = self.run(stage, ["/bin/sh", "-c", command], STEP_DEADLINE_S)
        if status != 0:
            raise StepError(f"exit status {status}\n{output}")

    def play_copy(self, stage: Stage, instruction: Instruction) -> None:
        *sources, target = instruction.value.split()
        from_stage = instruction.flags.get("from")
        if set(instruction.flags) - {"from"} or (from_stage and from_stage not in self.stages):
            raise StepError(f"unknown flag or stage: {dict(instruction.flags)}")
        origin = self.stages[from_stage] if from_stage else self.context
        inside = Path("/", stage.workdir, target)
        place = self.image / inside.relative_to("/")
        for source in sources:
            found = (origin / source.lstrip("/")).resolve()
            if found.is_dir():
                shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
            elif found.is_file():
                name = found.name if target.endswith("/") or len(sources) > 1 else ""
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, place / name)
            else:
                raise StepError(f"{source} is not there; does .dockerignore leave it out?")

    def play_workdir(self, stage: Stage, instruction: Instruction) -> None:
        stage.workdir = str(Path("/", stage.workdir, instruction.value))
        (self.image / stage.workdir.strip("/")).mkdir(parents=True, exist_ok=True)

    def play_env(self, stage: Stage, instruction: Instruction) -> None:
        settings = dict(self.assignments(stage, instruction))
        stage.environment.update(settings)

    def assignments(self, stage: Stage, instruction: Instruction) -> Iterator[tuple[str, str]]:
        for word in shlex.split(instruction.value):
            name, equals, value = word.partition("=")
            if not equals:
                raise StepError(f"NAME=VALUE is wanted: {word}")
            yield name, self.expanded(stage, value)

    def play_label(self, stage: Stage, instruction: Instruction) -> None:
        list(self.assignments(stage, instruction))

    def play_user(self, stage: Stage, instruction: Instruction) -> None:
        user, _, group = instruction.value.partition(":")
        if not user.isdecimal() or group != user:
            raise StepError("the user is to be a number, and its group the same number")
        stage.user = int(user)

    def play_volume(self, stage: Stage, instruction: Instruction) -> None:
        if not (self.image / instruction.value.lstrip("/")).is_dir():
            raise StepError(
                f"{instruction.value} must exist, with its owner, before it is a volume"
            )
        stage.volumes.append(instruction.value)

    def play_expose(self, stage: Stage, instruction: Instruction) -> None:
        for port in instruction.value.split():
            if not re.fullmatch(r"\d{1,5}/(?:tcp|udp)", port):
                raise StepError(f"not a port: {port}")

    def play_stopsignal(self, stage: Stage, instruction: Instruction) -> None:
        stage.stop_signal = signal.Signals[instruction.value]

    def play_healthcheck(self, stage: Stage, instruction: Instruction) -> None:
        unknown = set(instruction.flags) - {"interval", "timeout", "start-period", "retries"}
        keyword, _, words = instruction.value.partition(" ")
        if unknown or keyword != "CMD":
            raise StepError(f"unknown health check: {instruction.value} {unknown or ''}")
        stage.health = exec_form(words)

    def play_entrypoint(self, stage: Stage, instruction: Instruction) -> None:
        stage.entrypoint = exec_form(instruction.value)

    def play_cmd(self, stage: Stage, instruction: Instruction) -> None:
        stage.command = exec_form(instruction.value)


def files_outside(image: Path, volumes: list[str]) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the image that is not in a volume."""
    kept = {}
    inside = tuple(str(image / volume.lstrip("/")) for volume in volumes)
    for parent, _, names in os.walk(image):
        if not parent.startswith(inside):
            for name in names:
                facts = os.lstat(os.path.join(parent, name))
                kept[os.path.join(parent, name)] = (facts.st_size, facts.st_mtime_ns)
    return kept


def try_image(player: Player, stage: Stage) -> None:
    """Runs the image as a container would: its help, its health, one program up and down again."""
    if stage.user == 0 or not stage.health or not stage.volumes or not stage.entrypoint:
        raise StepError("the image needs a user, a health check, a volume and an entry point")
    before = files_outside(player.image, stage.volumes)
    status, output = player.run(stage, [*stage.entrypoint, *stage.command], STEP_DEADLINE_S)
    if status != 0:
        raise StepError(f"the image's own command ends with {status}\n{output}")
    status, output = player.run(stage, stage.health, HEALTHY_DEADLINE_S)
    if status == 0 or "Traceback" in output:
        raise StepError(f"healthy while nothing runs, or a traceback ({status})\n{output}")
    program = subprocess.Popen(
        [*stage.entrypoint, *PROGRAM],
        cwd=player.image / stage.workdir.strip("/"),
        env={"HOME": str(player.image), **stage.environment, **FREE_PORTS},
        stdin=subprocess.DEVNULL,
        **as_user(stage.user),
    )
    try:
        await_health(player, stage, program)
        program.send_signal(stage.stop_signal)
        if (status := program.wait(HEALTHY_DEADLINE_S)) != 0:
            raise StepError(f"the program ends with {status} after {stage.stop_signal.name}")
    finally:
        program.kill()
        program.wait()
    if changed := before.items() ^ files_outside(player.image, stage.volumes).items():
        raise StepError(f"written outside the volume: {sorted({path for path, _ in changed})}")


def await_health(player: Player, stage: Stage, program: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + HEALTHY_DEADLINE_S
    while True:
        status, output = player.run(stage, stage.health, HEALTHY_DEADLINE_S)
        if status == 0:
            return
        if program.poll() is not None or time.monotonic() > deadline_s:
            raise StepError(f"the program never became healthy ({status})\n{output}")
        time.sleep(0.2)


def main() -> int:
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="sidelink-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        line = 0
        try:
            player = Player(folder)
            for step in instructions_of((ROOT / "Dockerfile").read_text(encoding="utf-8")):
                line = step.line
                player.play(step)
                print(f"Dockerfile:{line}: {step.name} {step.value}", flush=True)
            if player.stage is None:
                raise StepError("there is no stage")
            try_image(player, player.stage)
        except StepError as error:
            print(f"Dockerfile:{line}: {error}", file=sys.stderr)
            return 1
    print("the image's help, health and stop work as its user, and write to its volume only")
    return 0


if __name__ == "__main__":
    sys.exit(main())
