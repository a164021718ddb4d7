"""Runs one command where it can neither read the sidecar's state nor speak for an agent.

Started as `python -I -S confine.py OPTIONS -- COMMAND …` before the command exists; it needs the
standard library only. Landlock hides folders and makes the rest read-only, seccomp refuses the
system calls that lead round it (Unix sockets, io_uring, tracing, mounts, user namespaces).
Nothing here is undone by the command or by what it starts.
"""

import argparse
import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NoReturn

EXIT_UNAVAILABLE: Final = 125
EXIT_NOT_STARTED: Final = 127

_libc = ctypes.CDLL(None, use_errno=True)

# --- Landlock (linux/landlock.h) ---------------------------------------------------------------

_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_ADD_RULE: Final = 445
_LANDLOCK_RESTRICT_SELF: Final = 446
_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_MAKE_CHAR: Final = 1 << 6
_MAKE_BLOCK: Final = 1 << 11

READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
WRITE: Final = 0xFFFF & ~(_MAKE_CHAR | _MAKE_BLOCK)
DEVICE: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
_OF_FILES: Final = _EXECUTE | _READ_FILE | DEVICE

# The rights that each version of the interface knows: an unknown one is an error.
_RIGHTS_BY_ABI: Final = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_RIGHTS_NEWEST: Final = 0xFFFF
_SCOPE_ABI: Final = 6
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 3

# A whole /dev would hand over raw disks, terminals' input and hardware.
DEVICES: Final = ("full", "null", "random", "urandom", "zero")

SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - what multiprocessing's locks are made in

Rule = tuple[str, int]


class UnavailableError(Exception):
    """The kernel cannot confine the command; it must not run."""


def landlock_abi() -> int:
    """0 when the kernel has no Landlock or it is switched off."""
    found = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    return max(0, int(found))


def plan_rules(
    hidden: Sequence[str], writable: Sequence[str], private: Sequence[str] = ()
) -> Iterator[Rule]:
    """The folders to allow, so that what is left out is exactly `hidden` and its ancestors' own
    entries: Landlock can only allow, so every sibling on the way from / is named.

    `private` folders are this command's own, also where they lie in a hidden one.
    """
    for path in private:
        yield os.path.realpath(path), READ | WRITE
    concealed = {os.path.realpath(path) for path in hidden}
    for path in writable:
        real = os.path.realpath(path)
        if any(_is_within(real, one) or _is_within(one, real) for one in concealed):
            raise UnavailableError(f"a writable folder overlaps a hidden one: {path}")
        yield real, READ | WRITE
    yield from _walk("/", concealed)
    for name in DEVICES:
        yield f"/dev/{name}", DEVICE
    yield SHARED_MEMORY, READ | WRITE


def _walk(folder: str, concealed: set[str]) -> Iterator[Rule]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        path = os.path.join(folder, name)
        if path in concealed or path == "/dev" or os.path.islink(path):
            # A link needs no rule: Landlock judges where it leads.
            continue
        if any(_is_within(one, path) for one in concealed):
            yield from _walk(path, concealed)
        else:
            yield path, READ


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def restrict_files(rules: Iterable[Rule]) -> None:
    abi = landlock_abi()
    if abi < 1:
        raise UnavailableError("this kernel has no Landlock")
    known = _RIGHTS_BY_ABI.get(abi, _RIGHTS_NEWEST)
    scoped = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= _SCOPE_ABI else 0
    attributes = struct.pack("=QQQ", known, 0, scoped)[: 24 if scoped else 8]
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise UnavailableError(f"Landlock refused the rule set: {_errno_text()}")
    for path, rights in rules:
        _allow(ruleset, path, rights & known)
    if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise UnavailableError(f"Landlock refused to restrict: {_errno_text()}")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        # Gone, or not ours to look at: without a rule it stays closed.
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        beneath = struct.pack("=Qi", rights, opened)
        if _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, beneath, 0) != 0:
            raise UnavailableError(f"Landlock refused a rule for {path}: {_errno_text()}")
    finally:
        os.close(opened)


# --- seccomp (linux/seccomp.h, linux/filter.h) -------------------------------------------------

_EPERM: Final = 1
_ENOSYS: Final = 38
_RET_KILL_PROCESS: Final = 0x80000000
_RET_ERRNO: Final = 0x00050000
_RET_ALLOW: Final = 0x7FFF0000
_LD_WORD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_AND: Final = 0x54
_RETURN: Final = 0x06
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_ARGUMENT_OFFSETS: Final = (16, 24)

_AF_UNIX: Final = 1
_SOCK_TYPE_MASK: Final = 0xF
_SOCK_STREAM: Final = 1
_SOCK_SEQPACKET: Final = 5
_CLONE_NEWUSER: Final = 0x10000000
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_X32_BIT: Final = 0x40000000

# The same numbers on every architecture that is younger than they are.
_REFUSED_EVERYWHERE: Final = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "open_tree_attr": 467,
}
_CLONE3: Final = 435
_FCHMODAT2: Final = 452


class Architecture:
    """What differs between processors; `refused` and `modes` are system call numbers: those of
    `modes` change by path whom a file is open to, which Landlock does not judge."""

    def __init__(
        self,
        audit: int,
        calls: dict[str, int],
        refused: dict[str, int],
        modes: dict[str, int],
        *,
        has_x32: bool,
    ) -> None:
        self.audit = audit
        self.calls = calls
        self.refused = refused | _REFUSED_EVERYWHERE
        self.modes = modes | {"fchmodat2": _FCHMODAT2}
        self.has_x32 = has_x32


# fmt: off
ARCHITECTURES: Final = {
    "x86_64": Architecture(
        0xC000003E,
        {
            "socket": 41, "socketpair": 53, "clone": 56, "unshare": 272, "ioctl": 16,
            "capset": 126, "prlimit64": 302,
        },
        {
            "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
            "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248,
            "request_key": 249, "keyctl": 250, "open_by_handle_at": 304, "mount": 165,
            "umount2": 166, "pivot_root": 155, "chroot": 161, "setns": 308, "init_module": 175,
            "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320,
        },
        {"chmod": 90, "fchmodat": 268, "chown": 92, "lchown": 94, "fchownat": 260},
        has_x32=True,
    ),
    "aarch64": Architecture(
        0xC00000B7,
        {
            "socket": 198, "socketpair": 199, "clone": 220, "unshare": 97, "ioctl": 29,
            "capset": 91, "prlimit64": 261,
        },
        {
            "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
            "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217,
            "request_key": 218, "keyctl": 219, "open_by_handle_at": 265, "mount": 40,
            "umount2": 39, "pivot_root": 41, "chroot": 51, "setns": 268, "init_module": 105,
            "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294,
        },
        {"fchmodat": 53, "fchownat": 54},
        has_x32=False,
    ),
}
# fmt: on

Instruction = tuple[int, int, int, int]


def filter_program(architecture: Architecture, *, may_set_modes: bool) -> list[Instruction]:
    """Classic BPF over `struct seccomp_data`. Each test falls through to the next one."""
    refused = [*architecture.refused.values()]
    if not may_set_modes:
        refused += architecture.modes.values()
    program: list[Instruction] = [
        (_LD_WORD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_EQUAL, 1, 0, architecture.audit),
        # 32-bit calls have other numbers and one call for all of sockets: no filter, no entry.
        (_RETURN, 0, 0, _RET_KILL_PROCESS),
        (_LD_WORD, 0, 0, _NUMBER_OFFSET),
    ]
    if architecture.has_x32:
        program += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _RET_ERRNO | _ENOSYS)]
    for number in sorted(refused):
        program += _when(number, [(_RETURN, 0, 0, _RET_ERRNO | _EPERM)])
    # Its flags are in memory, out of a filter's sight; libraries fall back to clone.
    program += _when(_CLONE3, [(_RETURN, 0, 0, _RET_ERRNO | _ENOSYS)])
    calls = architecture.calls
    program += _when(calls["socket"], _refuse_if(0, _JUMP_EQUAL, _AF_UNIX))
    for name in ("clone", "unshare"):
        program += _when(calls[name], _refuse_if(0, _JUMP_ANY_BIT, _CLONE_NEWUSER))
    for request in (_TIOCSTI, _TIOCLINUX):
        program += _when(calls["ioctl"], _refuse_if(1, _JUMP_EQUAL, request))
    # Of itself, which is process 0, but not of the sidecar: without descriptors it is dead.
    program += _when(calls["prlimit64"], _refuse_unless(0, 0))
    # Event loops wake themselves through a connected pair, which cannot be connected again. A
    # datagram pair can.
    program += _when(
        calls["socketpair"],
        [
            (_LD_WORD, 0, 0, _ARGUMENT_OFFSETS[1]),
            (_AND, 0, 0, _SOCK_TYPE_MASK),
            (_JUMP_EQUAL, 2, 0, _SOCK_STREAM),
            (_JUMP_EQUAL, 1, 0, _SOCK_SEQPACKET),
            (_RETURN, 0, 0, _RET_ERRNO | _EPERM),
        ],
    )
    program.append((_RETURN, 0, 0, _RET_ALLOW))
    return program


def _when(number: int, then: list[Instruction]) -> list[Instruction]:
    """Run `then` for that call only; the number is loaded again, as `then` may load over it."""
    return [(_LD_WORD, 0, 0, _NUMBER_OFFSET), (_JUMP_EQUAL, 0, len(then), number), *then]


def _refuse_if(argument: int, test: int, value: int) -> list[Instruction]:
    return [
        (_LD_WORD, 0, 0, _ARGUMENT_OFFSETS[argument]),
        (test, 0, 1, value),
        (_RETURN, 0, 0, _RET_ERRNO | _EPERM),
    ]


def _refuse_unless(argument: int, value: int) -> list[Instruction]:
    return [
        (_LD_WORD, 0, 0, _ARGUMENT_OFFSETS[argument]),
        (_JUMP_EQUAL, 1, 0, value),
        (_RETURN, 0, 0, _RET_ERRNO | _EPERM),
    ]


_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def restrict_calls(architecture: Architecture, *, may_set_modes: bool) -> None:
    program = filter_program(architecture, may_set_modes=may_set_modes)
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    described = _Program(len(program), packed)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0) != 0:
        raise UnavailableError(f"seccomp refused the filter: {_errno_text()}")


# --- the process itself ------------------------------------------------------------------------

_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPABILITIES_MAX: Final = 64
_SIGKILL: Final = 9


def drop_privileges(architecture: Architecture) -> None:
    """No capability now, none at exec: without this, root passes file modes and writes sysctls."""
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_CAPABILITIES_MAX):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.syscall(architecture.calls["capset"], header, bytes(24)) != 0:
        raise UnavailableError(f"capabilities cannot be dropped: {_errno_text()}")


def forbid_new_privileges() -> None:
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise UnavailableError(f"no_new_privs cannot be set: {_errno_text()}")


def die_with(parent: int) -> None:
    """Killed when the parent ends, also by a crash; checked afterwards, as it may be gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise UnavailableError("the sidecar is gone")


def _errno_text() -> str:
    return os.strerror(ctypes.get_errno())


def _fail(status: int, text: str) -> NoReturn:
    os.write(2, f"sidelink confine: {text}\n".encode(errors="replace"))
    os._exit(status)


def main(arguments: Sequence[str]) -> NoReturn:
    parser = argparse.ArgumentParser(prog="confine")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--hide", action="append", default=[])
    parser.add_argument("--writable", action="append", default=[])
    parser.add_argument("--private", action="append", default=[])
    parser.add_argument("--unsafe-same-uid", action="store_true")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args(arguments)
    is_linux = os.uname().sysname == "Linux"
    try:
        if is_linux:
            forbid_new_privileges()
        elif not chosen.unsafe_same_uid:
            raise UnavailableError("only Linux can confine a command")
        if not chosen.unsafe_same_uid:
            architecture = ARCHITECTURES.get(os.uname().machine)
            if architecture is None:
                raise UnavailableError(f"no filter is known for {os.uname().machine}")
            restrict_files(plan_rules(chosen.hide, chosen.writable, chosen.private))
            drop_privileges(architecture)
            # Whoever unpacks into a folder of its own sets modes there. The others have no need
            # to, and could open the state to other users of the machine.
            restrict_calls(architecture, may_set_modes=bool(chosen.writable))
        if is_linux:
            die_with(chosen.parent)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    except (UnavailableError, OSError) as error:
        _fail(EXIT_UNAVAILABLE, str(error))
    try:
        os.execvpe(chosen.command[0], chosen.command, os.environ)  # noqa: S606
    except OSError as error:
        _fail(EXIT_NOT_STARTED, f"{chosen.command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
