"""Files that are whole or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = re.compile(r"\.(?P<host>[^@]*)@(?P<process>[0-9]+)\.(?P<name>.+)")
# Whether a process of another machine lives cannot be asked. One that does adds to its file every few
# seconds; an hour also covers file servers that show it late and clocks that differ.
ABANDONED_S = 3600.0


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well.

    A process that dies inside the block leaves only a hidden temporary file behind. Two writers do
    not meet: the name holds machine and process, and the last rename wins with a whole file.

    Args:
        path: The final path; its folder is made if need be.

    Yields:
        The path to write to, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{socket.gethostname()}@{os.getpid()}.{path.name}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files of writers that were killed, or whose machine went down.

    Those of this machine go once their process is gone, those of others when they have not changed for
    an hour.

    Args:
        paths: The final paths that nobody else should be writing now.
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for leftover in folder.glob(".*"):
            match = TEMPORARY.fullmatch(leftover.name)
            if match and match["name"] in wanted and _is_abandoned(leftover, *match.group("host", "process")):
                leftover.unlink(missing_ok=True)


def _is_abandoned(temporary: Path, host: str, process: str) -> bool:
    if host == socket.gethostname():
        return not is_running(int(process))
    with suppress(FileNotFoundError):  # renamed a moment ago
        return time.time() - temporary.stat().st_mtime > ABANDONED_S
    return False


def is_running(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
