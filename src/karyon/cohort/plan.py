"""The plan of a cohort: which slide belongs to which shard, one small TSV per shard."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from karyon.io.atomic import atomic_path


@dataclass(frozen=True)
class SlideRow:
    """A slide of the plan: the sheet's columns, and what identifies the files behind them.

    ``mpp`` and ``annotation_mpp`` are 0 where the sheet gives none. Sizes are in bytes, times in nanoseconds.
    """

    slide_id: str
    path: str
    size: int
    mtime_ns: int
    mpp: float
    organ: str
    stain: str
    patient: str
    split: str
    label_quality: str
    annotations: str
    annotation_format: str
    annotation_mpp: float
    annotations_size: int
    annotations_mtime_ns: int
    region: str
    region_format: str
    region_size: int
    region_mtime_ns: int


# The number of shards, from when the cohort was first planned.
FIXED = "shards.json"
# How many times as large as wanted shards may become as slides are added: a pilot of 50 slides is one shard,
# and 10,000 slides must not be one job.
MOST_GROWTH = 2
COLUMNS = tuple(field.name for field in fields(SlideRow))


def shard_of(slide_id: str, shards: int) -> str:
    """Name of a slide's shard: its id where each slide has its own, else a stable hash.

    Args:
        slide_id: From the sheet.
        shards: Number of shards of the cohort; 0 means one per slide.
    """
    if shards == 0:
        return slide_id
    digest = hashlib.sha256(slide_id.encode()).digest()
    return f"shard-{int.from_bytes(digest[:8], 'big') % shards:05d}"


def write_plan(sheet: pd.DataFrame, folder: Path, shard_size: int) -> list[str]:
    """Write ``<shard>.tsv`` for every shard, only where its content changed.

    The number of shards is fixed when the cohort is first planned, so a slide that is added later
    touches one shard; a new ``shard_size`` plans anew.

    Args:
        sheet: A checked cohort sheet.
        folder: ``results/<cohort>/plan``.
        shard_size: Slides per shard, on average; 1 gives each slide its own.

    Returns:
        Names of the shards, sorted.
    """
    shards = number_of_shards(folder, len(sheet), shard_size)
    write_if_changed(folder / FIXED, json.dumps({"shards": shards, "shard_size": shard_size}))
    rows: dict[str, list[str]] = {}
    for record in _plan_records(sheet):
        line = "\t".join(str(record[name]) for name in COLUMNS)
        rows.setdefault(shard_of(record["slide_id"], shards), []).append(line)
    header = "\t".join(COLUMNS)
    for shard, lines in rows.items():
        write_if_changed(folder / f"{shard}.tsv", "\n".join([header, *lines, ""]))
    # A file that another run is writing has a hidden name, and is its own business.
    for stale in set(folder.glob("[!.]*.tsv")) - {folder / f"{shard}.tsv" for shard in rows}:
        stale.unlink(missing_ok=True)
    return sorted(rows)


def planned_shards(folder: Path) -> list[str]:
    """Shards of a plan that is already written, sorted; what a job on another machine sees."""
    return sorted(path.stem for path in folder.glob("[!.]*.tsv"))


def read_plan(path: Path) -> list[SlideRow]:
    """The slides of one shard."""
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)
    casts = {"int": int, "float": float, "str": str}
    return [
        SlideRow(**{field.name: casts[str(field.type)](record[field.name]) for field in fields(SlideRow)})
        for record in frame.to_dict("records")
    ]


def number_of_shards(folder: Path, slides: int, shard_size: int) -> int:
    """How many shards a cohort has, or will have once it is planned; 0 means one per slide.

    It stays as it is while slides are added, so that these start the jobs of their own shards alone, until
    the shards are more than ``MOST_GROWTH`` times as large as ``shard_size``.

    Args:
        folder: ``results/<cohort>/plan``; need not exist.
        slides: Of the sheet.
        shard_size: Slides per shard, on average.
    """
    path = folder / FIXED
    needed = 0 if shard_size == 1 else -(-slides // shard_size)
    if path.exists():
        stored = json.loads(path.read_text())
        if stored["shard_size"] == shard_size and needed <= MOST_GROWTH * stored["shards"]:
            return int(stored["shards"])
    return needed


def slides_of(sheet: pd.DataFrame) -> list[SlideRow]:
    """A checked sheet's slides with the facts of their files, in its order."""
    return [SlideRow(**{name: record[name] for name in COLUMNS}) for record in _plan_records(sheet)]


def _plan_records(sheet: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The fields of a :class:`SlideRow` for each slide, in the sheet's order."""
    columns = {str(name): sheet[name].tolist() for name in sheet}  # the quickest way to 30,000 rows
    for values in zip(*columns.values(), strict=True):
        record = dict(zip(columns, values, strict=True))
        record["size"], record["mtime_ns"] = _file_facts(record["path"])
        for name in ("mpp", "annotation_mpp"):
            record[name] = 0.0 if math.isnan(record[name]) else record[name]
        for name in ("annotations", "region"):
            record[f"{name}_size"], record[f"{name}_mtime_ns"] = _file_facts(record[name])
        yield record


def _file_facts(path: str) -> tuple[int, int]:
    """Size and time of a file; zeros where there is none, which its stage then reports."""
    try:
        facts = os.stat(path) if path else None  # noqa: PTH116 (thrice as fast)
    except OSError:
        facts = None
    return (facts.st_size, facts.st_mtime_ns) if facts else (0, 0)


def write_if_changed(path: Path, content: str) -> None:
    """Write a file of a plan unless it says so already: what depends on it is redone when it is newer."""
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
