"""What a command costs: CPU time and memory of its process and of all that it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from karyon.errors import KaryonError

# The command's parent is a small process of its own: the kernel counts the memory of the process that
# forked as the new one's until it has loaded its program.
MEASURE = """
import json, resource, subprocess, sys
result = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
output = result.stdout + result.stderr
print(json.dumps([result.returncode, output, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


@dataclass(frozen=True)
class Cost:
    """What a command used.

    Attributes:
        seconds: CPU-seconds, user and system, of its process and all below it.
        peak_mb: Resident memory of the largest of these processes at its peak.
        output: What it printed, standard error last.
    """

    seconds: float
    peak_mb: float
    output: str


def run_measured(command: list[str], folder: Path) -> Cost:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        folder: Working directory.

    Raises:
        KaryonError: It failed; the message holds what it printed.
    """
    measure = [sys.executable, "-c", MEASURE, *command]
    result = subprocess.run(measure, cwd=folder, capture_output=True, text=True, check=True)  # noqa: S603
    status, output, seconds, peak_kb = json.loads(result.stdout)
    if status:
        raise KaryonError(f"`{' '.join(command)}` failed in {folder}:\n{output}")
    return Cost(seconds, peak_kb * 1024 / 1e6, output)
