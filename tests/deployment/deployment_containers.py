"""What a container engine does with a service, done with the kernel alone: namespaces, mounts, one user, no capability.

All services share one network namespace, whose loopback answers to every service's name; their ports differ. The file
system is the machine's own, read-only, with the service's volumes below /srv, where the image has its directories.
"""

import ctypes
import fcntl
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]
_NEW_NETWORK = 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1
_libc = ctypes.CDLL(None, use_errno=True)


class Mount(NamedTuple):
    """A directory or file of the host, and where it is in the container."""

    source: Path
    target: str
    read_only: bool = False


class Network:
    """A network of its own, with nothing but its loopback."""

    def __init__(self) -> None:
        self.fd = -1
        self._listeners: list[socket.socket] = []
        _in_thread(self._make)

    def _make(self) -> None:
        _checked(_libc.unshare(_NEW_NETWORK))
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", _UP))
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def publish(self, port: int) -> int:
        """Return a port of this machine that leads to `port` in there."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()
        return listener.getsockname()[1]

    def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            try:
                outside, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(outside, port), daemon=True).start()

    def _connect(self, outside: socket.socket, port: int) -> None:
        _checked(_libc.setns(self.fd, _NEW_NETWORK))  # of this thread alone
        with outside, socket.socket() as inside:
            try:
                inside.connect(("127.0.0.1", port))
            except OSError:
                return  # nobody listens there: whoever connected sees the end at once
            back = threading.Thread(target=_pump, args=(inside, outside))
            back.start()
            _pump(outside, inside)
            back.join()

    def close(self) -> None:
        """Let go of it."""
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        os.close(self.fd)


def _in_thread(work: Callable[[], None]) -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  handed over to the thread that waits
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Container:
    """One service's process, as the head of a process group of its own."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        network: Network,
        user: tuple[int, int],
        environment: Mapping[str, str],
        mounts: Sequence[Mount],
        temporary: Sequence[str],
        hosts: Path,
        log: Path,
    ) -> None:
        self.name = name
        self.log = log
        uid, gid = user
        self._as_user = [
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
            *("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"),
            *("env", "-i", *(f"{key}={value}" for key, value in environment.items())),
        ]
        script = "\n".join(["set -e", *_mounting([*mounts, Mount(hosts, "/etc/hosts", True)], temporary), "cd /srv"])
        script += f"\nexec {shlex.join([*self._as_user, *command])}\n"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/proc/self/fd/{network.fd}"),
                    *("unshare", "--mount", "--propagation=private", "sh", "-c", script),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[network.fd],
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def execute(self, *command: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run one more command in the container, as `docker compose exec` does."""
        target = ["nsenter", f"--target={self.process.pid}", "--mount", "--net", "--wd=/srv"]
        return subprocess.run(
            [*target, *self._as_user, *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def stop(self, grace: float) -> float:
        """Ask it to end, as `docker compose stop` does. Return how long it took; after `grace` seconds it is killed."""
        began = time.monotonic()
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        took = time.monotonic() - began
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # whatever it left behind, as the end of a container does
        self.process.wait(10)
        return took


def _mounting(mounts: Sequence[Mount], temporary: Sequence[str]) -> Iterator[str]:
    """Yield the shell commands that make a container's view of the file system."""
    needed = {Path(sys.prefix), Path(sys.base_prefix), PROJECT}  # the image holds what is in these
    covers = {path for path in temporary if not path.startswith("/var/")}
    covers |= {str(hidden) for path in needed for hidden in _closed_to_others(path)}
    yield "mount -t tmpfs -o mode=755 tmpfs /srv"
    yield "mkdir /srv/.held"
    for number, mount in enumerate(mounts):
        yield from _held(mount.source, number)
    kept = sorted(path for path in needed if any(path.is_relative_to(cover) for cover in covers))
    for number, path in enumerate(kept, len(mounts)):
        yield from _held(path, number)
    for cover in sorted(covers):
        yield f"mount -t tmpfs -o mode={1777 if cover in temporary else 755} tmpfs {shlex.quote(cover)}"
    for number, path in enumerate(kept, len(mounts)):
        yield from _placed(path.is_dir(), number, str(path), read_only=False)
    for number, mount in enumerate(mounts):
        yield from _placed(mount.source.is_dir(), number, mount.target, mount.read_only)
    yield "mount -o remount,ro /srv"
    yield "mount -o remount,bind,ro /"


def _held(source: Path, number: int) -> Iterator[str]:
    """Take hold of what will be out of sight in a moment."""
    place = f"/srv/.held/{number}"
    yield f"{'mkdir' if source.is_dir() else 'touch'} {place}; mount --bind {shlex.quote(str(source))} {place}"


def _placed(is_directory: bool, number: int, target: str, read_only: bool) -> Iterator[str]:
    place = shlex.quote(target)
    yield f"mkdir -p {place if is_directory else f'$(dirname {place})'}"
    if not is_directory:
        yield f"test -e {place} || touch {place}"
    yield f"mount --move /srv/.held/{number} {place}"
    if read_only:
        yield f"mount -o remount,bind,ro {place}"


def _closed_to_others(path: Path) -> Iterator[Path]:
    """Yield the uppermost directory on the way to `path` that only its owner may enter."""
    for part in (*reversed(path.parents), path):
        if not part.stat().st_mode & 0o001:
            yield part
            return
