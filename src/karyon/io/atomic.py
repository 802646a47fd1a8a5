"""Files that are whole or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = re.compile(r"\.(?P<process>[0-9]+)\.(?P<name>.+)")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well.

    A process that dies inside the block leaves only a hidden temporary file behind. Two writers do
    not meet: the name holds the process id, and the last rename wins with a whole file.

    Args:
        path: The final path; its folder is made if need be.

    Yields:
        The path to write to, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files of writers that were killed, or whose machine went down.

    Args:
        paths: The final paths that nobody else should be writing now.
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for leftover in folder.glob(".*"):
            match = TEMPORARY.fullmatch(leftover.name)
            if match and match["name"] in wanted and not is_running(int(match["process"])):
                leftover.unlink(missing_ok=True)


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
