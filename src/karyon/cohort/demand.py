"""What the jobs of a shard ask of a cluster: memory and time, after the number and size of its slides.

The rates are those of `docs/design.md`, with room for slower disks and processors. A gigabyte of
JPEG-compressed slide is some four gigapixels, about a third of them tissue.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

GIGABYTE = 1e9
# 0.4 GB of a job's memory are imports, 0.3 two Snakemakes; nuclei and thumbnails grow with the slide.
BASE_MB, MB_PER_GB = 1500, 200
# On CPUs every thread has a tile of its own in the network; on a GPU its driver takes as much.
MB_PER_THREAD = 750
# What starting up takes where the queue or the file server is slow, and opening a slide.
START_MINUTES, MINUTES_PER_SLIDE = 10.0, 0.5
# `infer` takes 1.2 minutes a gigabyte on eight threads, less on a GPU; no other stage more than 0.1.
INFER_MINUTES_PER_GB, LIGHT_MINUTES_PER_GB = 4.0, 0.5


@dataclass(frozen=True)
class Demand:
    """A shard's jobs, on their first attempt.

    Attributes:
        slides: Number of slides.
        gigabytes: Size of all their files together.
        largest: Size of the largest file, in gigabytes.
    """

    slides: int
    gigabytes: float
    largest: float

    @classmethod
    @cache
    def of_plan(cls, path: Path) -> Demand:
        """The shard of a plan, ``results/<cohort>/plan/<shard>.tsv``; a missing slide has size 0 there."""
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            sizes = [int(row["size"]) / GIGABYTE for row in rows]
        return cls(len(sizes), sum(sizes), max(sizes))

    def light_mem_mb(self) -> int:
        """Memory of every stage but `infer`."""
        return math.ceil(BASE_MB + MB_PER_GB * self.largest)

    def infer_mem_mb(self, threads: int) -> int:
        """Memory of `infer`."""
        return self.light_mem_mb() + MB_PER_THREAD * threads

    def light_minutes(self) -> int:
        """Time of every stage but `infer`."""
        return self._minutes(LIGHT_MINUTES_PER_GB)

    def infer_minutes(self) -> int:
        """Time of `infer`, on a GPU or eight CPU threads."""
        return self._minutes(INFER_MINUTES_PER_GB)

    def _minutes(self, per_gigabyte: float) -> int:
        return math.ceil(START_MINUTES + MINUTES_PER_SLIDE * self.slides + per_gigabyte * self.gigabytes)
