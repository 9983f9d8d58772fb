"""Scripts in Linux namespaces of their own: mounts, a network, a resolver."""

import fcntl
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.needs import lacking

__all__ = ("ENTER_AS_ROOT", "in_namespaces", "mount", "raise_loopback")

ROOT = Path(__file__).parents[2]
ENTER = ("unshare", "--map-root-user", "--mount", "--net")
ENTER_AS_ROOT = ("unshare", "--mount")  # with all users of the machine, and its network


def in_namespaces(module: str, *arguments: str, enter: tuple[str, ...] = ENTER) -> str:
    """Run a module in its own namespaces, where it may mount; return its last line."""
    if shutil.which("unshare") is None:
        lacking("unshare is not installed: apt-get install util-linux")
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
        lacking("this machine does not allow namespaces: " + " ".join(enter))
    command = [*enter, sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def mount(*arguments: str | Path) -> None:
    """Run `mount` with these arguments."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def raise_loopback() -> None:
    """Bring up the loopback interface, which is down in a new namespace (netdevice(7))."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
