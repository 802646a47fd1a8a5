"""What every job of the workflow that is not a cohort's shard does with words and errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from karyon.errors import KaryonError


@contextmanager
def job_log(path: str, name: str) -> Iterator[None]:
    """Append what is said on stderr to a job's log, and end the job with a user's error in one line.

    Args:
        path: The log.
        name: Of the job, for the message.

    Raises:
        SystemExit: There was a KaryonError.
    """
    with Path(path).open("a", encoding="utf-8") as words, redirect_stderr(words):
        try:
            yield
        except KaryonError as error:
            print(error, file=words)
            sys.exit(f"{name}: {error}")
