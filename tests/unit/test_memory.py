"""Huge pages for the activations of a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import re
from pathlib import Path
import torch
from karyon.models.memory import use_huge_pages
{call}
kept = torch.ones(16, 1024, 1024)
print(sum(map(int, re.findall(r"AnonHugePages: +([0-9]+) kB", Path("/proc/self/smaps").read_text()))))
"""


def huge_kilobytes(call: str) -> int:
    environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(
    not SETTING.is_file() or "[madvise]" not in SETTING.read_text(),
    reason="this kernel gives huge pages to nobody, or to everybody unasked",
)
def test_large_tensors_lie_in_huge_pages_once_asked_for() -> None:
    tensor = 64 * 1024
    assert huge_kilobytes("use_huge_pages()") >= huge_kilobytes("") + 0.9 * tensor
