"""Whether a machine is ready for a large run: one check each, with what to do."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from karyon.cohort.forecast import Forecast, show_size
from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path
from karyon.models.card import model_folder

OK, WARN, FAIL = "ok", "warn", "fail"
# Less than this beside what is needed is cutting it fine, for the estimate is rough.
SPARE = 1.5
# A file of nothing takes a few milliseconds, over a network some ten; there are a dozen a slide.
SLOW_WRITE_S = 0.5


@dataclass(frozen=True)
class Check:
    """The outcome of a check.

    Attributes:
        name: What was looked at.
        state: ``ok``, ``warn`` or ``fail``.
        text: What was found, and where that is not well, what to do.
    """

    name: str
    state: str
    text: str


def check_machine(results: Path, model: str, cost: Forecast | None, cluster: bool) -> Iterator[Check]:
    """Everything but SLURM.

    Args:
        results: Where results will lie.
        model: The configuration's.
        cost: What the run will take; nothing where no configuration is known.
        cluster: Jobs run on other machines than this.
    """
    yield _openslide()
    yield _model(model)
    yield _gpu(cluster)
    writing = _writing(results)
    yield writing
    if writing.state != FAIL:
        yield from _space(results, cost)
    yield _lock(Path(".snakemake", "locks"))


def _openslide() -> Check:
    try:
        import openslide
    except (ImportError, OSError) as error:
        return Check("OpenSlide", FAIL, f"cannot be loaded ({error}); `make install` sets it up")
    return Check("OpenSlide", OK, openslide.__library_version__)


def _model(model: str) -> Check:
    from karyon.models.weights import load_model

    try:
        _, card = load_model(model_folder(model))
    except KaryonError as error:
        return Check("model", FAIL, str(error))
    return Check("model", OK, f"{card.name}, weights as on its card, sha256 {card.sha256[:12]}")


def _gpu(cluster: bool) -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("GPU", OK, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    if cluster:
        return Check("GPU", OK, "none on this machine, and none is needed: jobs run on others")
    return Check("GPU", WARN, "torch sees none: infer will run on CPUs; with a GPU here, see to its driver")


def _writing(results: Path) -> Check:
    """Write, sync and rename, as every result is written, once to a new name and once over a file."""
    path, where = results / f".doctor-{os.getpid()}", results.resolve()
    start = time.perf_counter()
    try:
        for _ in range(2):
            with atomic_path(path) as temporary:
                temporary.write_bytes(b"a result")
        path.unlink()
    except OSError as error:
        text = f"{where}: {error.strerror}; results must lie where files can be written and renamed"
        return Check("writing", FAIL, text)
    seconds = (time.perf_counter() - start) / 2
    if seconds > SLOW_WRITE_S:
        text = f"{seconds:.1f} s for a tiny file, of which there are a dozen a slide; use a faster disk"
        return Check("writing", WARN, text)
    return Check("writing", OK, f"{seconds * 1000:.0f} ms to write, sync and rename a file in {where}")


def _space(results: Path, cost: Forecast | None) -> Iterator[Check]:
    """Free bytes and files against the forecast."""
    free = shutil.disk_usage(results).free / 1e9
    files = os.statvfs(results).f_favail
    if cost is None:
        yield Check(
            "disk", OK, f"{show_size(free)} free; name the configuration to see whether that is enough"
        )
        return
    needed = sum(cost.gigabytes.values()) + cost.temporary_gb
    text = f"{show_size(free)} free, {show_size(needed)} needed for the whole run ({cost.disk.source})"
    remedy = "; free space, or set keep_maps: false" if cost.gigabytes["maps"] else "; free space"
    yield _enough("disk", free, needed, text, remedy)
    if files:  # file systems without a fixed number say 0
        text = f"{files:,} more can be made, {cost.files:,} will be"
        yield _enough("files", files, cost.files, text, "; ask for a larger quota")


def _enough(name: str, free: float, needed: float, text: str, remedy: str) -> Check:
    state = FAIL if free < needed else WARN if free < SPARE * needed else OK
    return Check(name, state, text + (remedy if state != OK else ""))


def _lock(locks: Path) -> Check:
    if locks.is_dir() and any(locks.iterdir()):
        text = (
            "this directory is locked: a run is under way or was killed; if no Snakemake runs here, --unlock"
        )
        return Check("lock", WARN, text)
    return Check("lock", OK, "no other run in this directory")
