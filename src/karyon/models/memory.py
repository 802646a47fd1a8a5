"""How the system gives memory to a network on CPUs."""

from __future__ import annotations

import os


def use_huge_pages() -> None:
    """Have torch ask for pages of 2 MB where a tensor is as large, from now on in this process.

    A layer's output is tens of megabytes, comes from the system anew and goes back after use. In pages of
    4 kB, faulting them in and clearing them costs half as much time as the arithmetic (docs/design.md). Torch
    looks the variable up once, at its first tensor, so call this before; a setting of the user stands. Where
    the kernel knows no huge pages nothing changes.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
