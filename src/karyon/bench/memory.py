"""Peak memory of each stage on a slide, and on one of sixteen times its area."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import synthetic_slide, trivial_model
from karyon.bench.measurement import Measurement
from karyon.errors import KaryonError

MAX_RATIO = 1.2
MAX_MB = 2000.0


def measure_memory(cache: Path, side: int) -> Iterator[Measurement]:
    """Every stage on a slide of ``side`` and on one of a quarter of it, each in a process of its own.

    Args:
        cache: Where slides and results lie.
        side: Of the larger slide in level-0 pixels.
    """
    model = trivial_model(cache)
    small, large = (synthetic_slide(cache, length) for length in (side // 4, side))
    for stage, process in STAGES.items():
        before, after = (
            process_peak_mb(process, stage_task(stage, slide, model, cache / "memory"))
            for slide in (small, large)
        )
        yield Measurement(
            name=f"memory.{stage}",
            value=after,
            unit="MB at the peak",
            peer=f"the same stage on a slide of {side // 4} x {side // 4}",
            peer_value=before,
            ratio=after / before,
            goal=f"ratio <= {MAX_RATIO} and value < {MAX_MB:g}",
            met=after / before <= MAX_RATIO and after < MAX_MB,
        )


def process_peak_mb(work: Callable[..., object], *arguments: object) -> float:
    """Peak resident memory in MB of a new process that does some work, imports included.

    Args:
        work: A function of a module, so that the new process can import it.
        arguments: Its arguments.

    Raises:
        KaryonError: The work failed.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_report, args=(sender, work, *arguments))
    process.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError as error:
        raise KaryonError(f"{work.__name__} failed in its process; its message is above") from error
    finally:
        process.join()


def _work_and_report(sender: Connection, work: Callable[..., object], *arguments: object) -> None:
    work(*arguments)
    sender.send(peak_mb())


def peak_mb() -> float:
    """Peak resident memory of this process in MB.

    From ``/proc`` and not from ``getrusage``, whose maximum lives on from the parent process through
    fork and exec.

    Raises:
        KaryonError: There is no ``/proc``.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError as error:
        raise KaryonError("peak memory is read from /proc/self/status, which only Linux has") from error
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6
