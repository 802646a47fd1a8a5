"""Leases: one holder at a time, and none that is dead."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import karyon.io.lease
from karyon.io.lease import EXPIRE_S, lease

HOLD = """
import sys
from pathlib import Path
from karyon.io.lease import lease
with lease(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Another process that holds a lease until its input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_lease_has_one_holder_and_is_free_after_it(tmp_path: Path) -> None:
    path = tmp_path / "records" / "a.lease"
    holder = hold(path)
    with lease(path) as ours:
        assert not ours
    assert path.exists()  # being refused does not end it
    holder.communicate()
    with lease(path) as ours:
        assert ours
    assert list(path.parent.iterdir()) == []


def test_a_lease_of_a_process_that_was_killed_is_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.lease"
    holder = hold(path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert path.exists()
    with lease(path) as ours:
        assert ours
        assert path.read_text() == f"{socket.gethostname()} {os.getpid()}"


@pytest.mark.parametrize(("age", "free"), [(EXPIRE_S - 60, False), (EXPIRE_S + 60, True)])
@pytest.mark.parametrize("holder", ["another-machine 1", ""])
def test_a_lease_of_another_machine_ends_when_it_is_not_renewed(
    tmp_path: Path, holder: str, age: float, free: bool
) -> None:
    path = tmp_path / "a.lease"
    path.write_text(holder)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    with lease(path) as ours:
        assert ours == free


def test_a_lease_that_is_held_long_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(karyon.io.lease, "RENEW_S", 0.001)
    renewed = threading.Event()
    touch = os.utime

    def note(path: Path) -> None:
        touch(path)
        renewed.set()

    monkeypatch.setattr(karyon.io.lease.os, "utime", note)
    with lease(tmp_path / "a.lease") as ours:
        assert ours
        assert renewed.wait(timeout=10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is always full")
def test_a_lease_that_could_not_be_written_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes) -> int:
        with Path("/dev/full").open("wb", buffering=0) as stream:
            return stream.write(content)

    monkeypatch.setattr(karyon.io.lease.os, "write", full)
    with pytest.raises(OSError, match="No space"), lease(tmp_path / "a.lease"):
        pass
    assert list(tmp_path.iterdir()) == []
