"""A stdio child that tries to leave its confinement. Prints one JSON object: attempt -> outcome.

"refused: …" is what a test wants to see; anything else is what the attempt obtained. Attempts may
be chosen by name: some would harm the machine where nothing stops them.
"""

import ctypes
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
STATE, SOCKET, OUTSIDE = sys.argv[1:4]
CHOSEN = sys.argv[4:]
SECRET = f"{STATE}/master.key"
PARENT = os.getppid()


def system_call(number: int, *arguments: object) -> str:
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "it worked"


def read(path: str) -> str:
    with open(path, "rb") as file:
        return repr(file.read(64))


def write(path: str) -> str:
    with open(path, "ab") as file:
        file.write(b"x")
    return "written"


def in_new_user_namespace() -> str:
    system_call({"x86_64": 272, "aarch64": 97}[os.uname().machine], 0x10000000)
    return "it worked"


def clone_user_namespace() -> str:
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    pid = libc.syscall(number, 0x10000000 | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "it worked"


def bind_mount() -> str:
    if libc.mount(STATE.encode(), b"/tmp", None, 4096, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "it worked"


def connect(kind: int = socket.SOCK_STREAM) -> str:
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(SOCKET)
    return "connected"


def connect_a_pair(kind: int) -> str:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        ours.connect(SOCKET)
    return "connected"


def reconnect_an_orphan() -> str:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        ours.shutdown(socket.SHUT_RDWR)
        ours.connect(SOCKET)
    return "connected"


def connect_by_32_bit_call() -> str:
    """socket(AF_UNIX) by the x32 numbers, which a filter of 64-bit numbers would not know."""
    return system_call(41 | 0x40000000, 1, 1, 0)


def io_uring() -> str:
    return system_call(425, 8, ctypes.create_string_buffer(120))


def ptrace() -> str:
    if libc.ptrace(16, PARENT, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "attached"


def read_memory_of_parent() -> str:
    local = ctypes.create_string_buffer(8)
    vector = struct.pack("=QQ", ctypes.addressof(local), 8)
    number = {"x86_64": 310, "aarch64": 270}[os.uname().machine]
    return system_call(number, PARENT, vector, 1, vector, 1, 0)


def steal_a_descriptor() -> str:
    opened = os.pidfd_open(PARENT)
    try:
        return system_call(438, opened, 0, 0)
    finally:
        os.close(opened)


def descriptors_of_parent() -> str:
    """Their numbers may be seen; what they lead to may not."""
    refusal = OSError(0, "there are none")
    for number in os.listdir(f"/proc/{PARENT}/fd"):
        try:
            return os.readlink(f"/proc/{PARENT}/fd/{number}")
        except OSError as error:
            refusal = error
    raise refusal


def inherited() -> str:
    found = [name for name in os.listdir("/proc/self/fd") if int(name) > 2 and is_open(int(name))]
    if found:
        return str(found)
    raise OSError(0, "there is none")


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def environment() -> str:
    found = {name for name, value in os.environ.items() if "hunter2" in value}
    if found:
        return str(found)
    raise OSError(0, "there is none")


def capabilities() -> str:
    with open("/proc/self/status") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status)
    # Only root can shrink the bounding set; for others no_new_privs makes it useless.
    names = ("CapPrm", "CapEff", "CapAmb", "CapBnd" if os.getuid() == 0 else "CapInh")
    sets = {name: fields[name] for name in names}
    if any(int(value, 16) for value in sets.values()):
        return str(sets)
    raise OSError(0, "there are none")


def raw_disk() -> str:
    for name in sorted(os.listdir("/sys/class/block")):
        try:
            return f"{name}: {read('/dev/' + name)}"
        except OSError as error:
            refusal = error
    raise refusal


def type_into_terminal() -> str:
    primary = os.open("/dev/ptmx", os.O_RDWR)
    return str(primary)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open the state": lambda: read(SECRET),
    "list the state": lambda: os.listdir(STATE),
    "write into the state": lambda: write(f"{STATE}/new"),
    "truncate the state": lambda: os.truncate(SECRET, 0),
    "open the state to other users": lambda: os.chmod(STATE, 0o777),
    "open a file of the state to other users": lambda: os.chmod(SECRET, 0o666),
    "give the state away": lambda: os.chown(STATE, -1, os.getgid()),
    "the sidecar's own limits": lambda: resource.prlimit(PARENT, resource.RLIMIT_NOFILE),
    "by a link": lambda: (os.symlink(SECRET, "link"), read("link")),
    "by its own root": lambda: read(f"/proc/self/root{SECRET}"),
    "by a thread's root": lambda: read(f"/proc/thread-self/root{SECRET}"),
    "by the parent's root": lambda: read(f"/proc/{PARENT}/root{SECRET}"),
    "by the parent's working folder": lambda: os.listdir(f"/proc/{PARENT}/cwd"),
    "by the parent's descriptors": descriptors_of_parent,
    "the parent's memory": lambda: read(f"/proc/{PARENT}/mem"),
    "the parent's environment": lambda: read(f"/proc/{PARENT}/environ"),
    "the parent's memory by call": read_memory_of_parent,
    "trace the parent": ptrace,
    "a descriptor of the parent": steal_a_descriptor,
    "a hard link": lambda: os.link(SECRET, "hard"),
    "rename the state": lambda: os.rename(STATE, STATE + "-moved"),
    "rename into reach": lambda: os.rename(SECRET, "renamed"),
    "bind mount": bind_mount,
    "change root": lambda: os.chroot(STATE),
    "a user namespace": in_new_user_namespace,
    "a user namespace by clone": clone_user_namespace,
    "connect to the agents' socket": connect,
    "a datagram to the agents' socket": lambda: connect(socket.SOCK_DGRAM),
    "connect a stream pair": lambda: connect_a_pair(socket.SOCK_STREAM),
    "connect a datagram pair": lambda: connect_a_pair(socket.SOCK_DGRAM),
    "connect a raw pair": lambda: connect_a_pair(socket.SOCK_RAW),
    "reconnect an orphan of a pair": reconnect_an_orphan,
    "io_uring": io_uring,
    "inherited descriptors": inherited,
    "secrets in the environment": environment,
    "capabilities": capabilities,
    "signal the sidecar": lambda: os.kill(PARENT, 0) or "it is there",
    "stop the sidecar's group": lambda: os.killpg(os.getpgid(PARENT), 0) or "it is there",
    "write beside its own folders": lambda: write(f"{OUTSIDE}/planted.py"),
    "change a setting of the kernel": lambda: write("/proc/sys/kernel/core_pattern"),
    "read a raw disk": raw_disk,
    "a terminal": type_into_terminal,
}
if os.uname().machine == "x86_64":
    ATTEMPTS["the x32 system calls"] = connect_by_32_bit_call


def outcome_of(attempt: Callable[[], object]) -> str:
    try:
        return str(attempt())
    except OSError as error:
        return f"refused: {error.strerror}"


def main() -> None:
    os.chdir(os.environ["TMPDIR"])
    chosen = CHOSEN or list(ATTEMPTS)
    print(json.dumps({name: outcome_of(ATTEMPTS[name]) for name in chosen}))


if __name__ == "__main__":
    main()
