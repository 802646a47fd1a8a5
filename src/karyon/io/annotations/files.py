"""What can be said of an annotation file before its format matters."""

from __future__ import annotations

from pathlib import Path

from karyon.errors import SlideError


def check_readable(path: Path) -> None:
    """Refuse a file that is missing, a folder, unreadable or empty.

    Raises:
        SlideError: It is one of these.
    """
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise SlideError(
            f"{path}: the annotation file cannot be read ({error.strerror}); check its path."
        ) from error
    if empty:
        raise SlideError(f"{path}: the annotation file is empty (0 bytes); copy it again.")
