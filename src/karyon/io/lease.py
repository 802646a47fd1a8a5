"""A claim on a piece of work that ends with its holder: released, or not renewed any more."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from karyon.io.atomic import atomic_path, is_running

# A holder that has not renewed its lease for so long is taken for dead. File servers may show another
# machine's renewal a minute late.
RENEW_S, EXPIRE_S = 30.0, 180.0


@contextmanager
def lease(path: Path) -> Iterator[bool]:
    """Claim a piece of work while the block runs.

    This spares work and is no lock: in rare moments two may both hold it, so what is written must bear
    two writers, as :func:`~karyon.io.atomic.atomic_path` does.

    Args:
        path: Stands for the work; its folder is made if need be.

    Yields:
        Whether the lease is ours; if not, someone else is at work.
    """
    if not _take(path):
        yield False
        return
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, ended), daemon=True)
    renewal.start()
    try:
        yield True
    finally:
        ended.set()
        renewal.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = f"{socket.gethostname()} {os.getpid()}"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        if not _is_over(path):
            return False
        with atomic_path(path) as temporary:
            temporary.write_text(holder)
        return True
    try:
        os.write(descriptor, holder.encode())
    except OSError:  # the disk is full: a lease without a holder would have to expire
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return True


def _is_over(path: Path) -> bool:
    """Whether nobody holds a lease any more."""
    try:
        age = _now_in(path.parent) - path.stat().st_mtime
        host, _, process = path.read_text().partition(" ")
    except FileNotFoundError:  # released a moment ago
        return True
    ended_here = host == socket.gethostname() and process.isdecimal() and not is_running(int(process))
    return ended_here or age > EXPIRE_S


def _now_in(folder: Path) -> float:
    """Time by the clock that stamps the folder's files: a file server's may differ from ours."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"now")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def _renew(path: Path, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        with suppress(OSError):  # it may have been taken from us, which is no reason to stop working
            os.utime(path)
