"""A host of one's own for programs that insist on real names, ports and addresses, without a change to the machine.

Inside, the calling thread and all its children see loopback and one interface at 10.66.0.1 with a default route that
leads nowhere, an /etc/hosts and /etc/resolv.conf of their own, and an authority of ours among the trusted ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDRESS = "10.66.0.1"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

_OWN_FOLDERS, _NEW_MOUNTS, _NEW_NETWORK = 0x200, 0x20000, 0x40000000  # <linux/sched.h>
_libc = ctypes.CDLL(None, use_errno=True)


def _may_unshare() -> bool:
    """Whether this user may have namespaces of its own; tried in a child."""
    try:
        tried = subprocess.run(["unshare", "-n", "-m", "true"], check=False, capture_output=True)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


needs_private_host = pytest.mark.skipif(not _may_unshare(), reason="namespaces need root (CAP_SYS_ADMIN)")


@contextlib.contextmanager
def private_host(folder: Path, names: list[str], authority: Path) -> Iterator[str]:
    """Be on a host of one's own until the end; yields its address.

    Only the calling thread moves, with the threads and processes that it makes inside. What was opened before stays
    where it was.

    Args:
        folder: for the files that take the place of those in /etc.
        names: domains that are found at the address.
        authority: PEM file of a certification authority to trust.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {' '.join(names)}\n")
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (folder / "bundle.crt").write_bytes(BUNDLE.read_bytes() + authority.read_bytes())
    home = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]
    where = Path.cwd()
    try:
        _checked(_libc.unshare(_NEW_NETWORK | _NEW_MOUNTS))
        _run("mount", "--make-rprivate", "/")
        for name, place in (("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("bundle.crt", str(BUNDLE))):
            _run("mount", "--bind", str(folder / name), place)
        _run("ip", "link", "set", "lo", "up")
        # ICE and GLib's network monitor want an interface that is no loopback, and a way out.
        _run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        _run("ip", "address", "add", f"{ADDRESS}/24", "dev", "v0")
        for link in ("v0", "v1"):
            _run("ip", "link", "set", link, "up")
        _run("ip", "route", "add", "default", "via", "10.66.0.2")
        yield ADDRESS
    finally:
        _checked(_libc.unshare(_OWN_FOLDERS))  # threads made inside share them, which setns(2) does not allow
        for namespace, kind in zip(home, (_NEW_NETWORK, _NEW_MOUNTS), strict=True):
            _checked(_libc.setns(namespace, kind))
            os.close(namespace)
        os.chdir(where)  # entering other mounts leads to their root


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
