"""What a cohort will cost before anything of it has been run: jobs, hours, disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from karyon.cohort.plan import SlideRow, number_of_shards, shard_of, slides_of
from karyon.cohort.rates import Rates, assumed_rates, earlier_runs, most_alike
from karyon.cohort.shard import STAGE_VERSION
from karyon.cohort.sizes import SlideSizes, slide_sizes
from karyon.io.sheets import read_sheet
from karyon.models.card import ModelCard, model_folder, read_card

RESULTS = Path("results")
# Threads of the rule infer, busy or not while the GPU works.
INFER_THREADS = 8
# What Snakemake and Python take on a node before a job begins, twice nested as SLURM runs it
# (`karyon bench dag` measures what of it is Karyon's).
START_SECONDS = 5.0
# Jobs that are shorter than the first waste their starting, and longer than the second lose much when killed.
SHORTEST_S, BEST_S, LONGEST_S = 3600.0, 5400.0, 7200.0


@dataclass(frozen=True)
class Forecast:
    """The cost of a cohort.

    Attributes:
        sizes: Of its slides.
        shards: Slides of each shard.
        jobs: In all, the few for the whole cohort included.
        gpu: Whether ``infer`` runs on GPUs.
        infer_hours: All jobs of ``infer`` one after the other: GPU-hours, or hours of a job on CPUs.
        cpu_hours: Core-hours of all jobs, those beside a GPU included.
        longest: The shard whose ``infer`` takes longest.
        mean_hours: A job of ``infer``, on average.
        longest_hours: The longest.
        gigabytes: Written to stay: ``maps`` and ``rest``.
        temporary_gb: At most there beside, with so many jobs at once.
        at_once: Jobs at once.
        files: Written to stay.
        advice: What ``shard_size`` would be better, or that it is good.
        time: Where the seconds of ``infer`` come from.
        disk: Where all else comes from.
    """

    sizes: SlideSizes
    shards: dict[str, int]
    jobs: int
    gpu: bool
    infer_hours: float
    cpu_hours: float
    longest: str
    mean_hours: float
    longest_hours: float
    gigabytes: dict[str, float]
    temporary_gb: float
    at_once: int
    files: int
    advice: str
    time: Rates
    disk: Rates


def forecast_of(config: dict[str, Any], gpu: bool, at_once: int, results: Path = RESULTS) -> Forecast:
    """The forecast of a configuration, whose sheet is read and some of whose slides are opened.

    Args:
        config: The complete configuration.
        gpu: Whether ``infer`` will run on GPUs.
        at_once: Jobs at once.
        results: Where the results of all cohorts lie.

    Raises:
        KaryonError: The sheet has mistakes, no slide can be opened, or there is no such model.
    """
    card = read_card(model_folder(config["model"]))
    slides = slides_of(read_sheet(Path(config["sheet"]), missing_slides=config["missing_slides"]))
    return forecast(slides, slide_sizes(slides), config, card, results, gpu, at_once)


def forecast(
    slides: Sequence[SlideRow],
    sizes: SlideSizes,
    config: dict[str, Any],
    card: ModelCard,
    results: Path,
    gpu: bool,
    at_once: int,
) -> Forecast:
    """Add up what a cohort will take.

    Args:
        slides: Its slides.
        sizes: Their sizes.
        config: The complete configuration.
        card: The model.
        results: ``results``, with earlier runs if there are any.
        gpu: Whether ``infer`` will run on GPUs.
        at_once: Jobs at once, which bounds what tile predictions take.
    """
    area = sizes.area_mm2
    mean = float(area.mean())
    # Other models have other maps, and other nuclei.
    runs = [run for run in earlier_runs(results) if run.model == card.name]
    disk = most_alike(runs, mean, assumed_rates(card, gpu=False))
    same = [run for run in runs if (run.device != "cpu") == gpu]
    time = most_alike(same, mean, assumed_rates(card, gpu))
    shards = number_of_shards(results / config["cohort"] / "plan", len(slides), config["shard_size"])
    names = [shard_of(slide.slide_id, shards) for slide in slides]
    of_shard = _sums(names, area)
    sharing = config["jobs_per_shard"]
    rate = time.seconds["infer"] / (1 if gpu else INFER_THREADS) / sharing
    infer_s = {name: mm2 * rate for name, mm2 in of_shard.items()}
    longest, whole_s = max(infer_s, key=lambda name: infer_s[name]), sum(infer_s.values()) * sharing
    # A shard that several jobs share has one more, which gathers what they did.
    jobs = len(of_shard) * (len(STAGE_VERSION) + (sharing if sharing > 1 else 0)) + 3
    other_s = float(area.sum()) * sum(rate for stage, rate in disk.seconds.items() if stage != "infer")
    kept = {part: float(area.sum()) * disk.megabytes[part] / 1000 for part in ("maps", "rest")}
    passing = disk.megabytes["tiles"]
    if not config["keep_maps"]:
        passing += disk.megabytes["maps"]
        kept["maps"] = 0.0
    return Forecast(
        sizes=sizes,
        shards=Counter(names),
        jobs=jobs,
        gpu=gpu,
        infer_hours=whole_s / 3600,
        cpu_hours=(whole_s * INFER_THREADS + other_s + jobs * START_SECONDS) / 3600,
        longest=longest,
        mean_hours=whole_s / sharing / len(of_shard) / 3600,
        longest_hours=infer_s[longest] / 3600,
        gigabytes=kept,
        temporary_gb=sum(sorted(of_shard.values())[-at_once:]) * passing / 1000,
        at_once=at_once,
        files=round(len(slides) * disk.files),
        advice=_advice(config["shard_size"], whole_s / sharing, len(of_shard), len(slides)),
        time=time,
        disk=disk,
    )


def _sums(names: Sequence[str], area: np.ndarray) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, mm2 in zip(names, area.tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + mm2
    return sums


def _advice(shard_size: int, whole_s: float, shards: int, slides: int) -> str:
    """The ``shard_size`` with which a job of ``infer`` takes one to two hours."""
    mean_s, slide_s = whole_s / shards, whole_s / slides
    if SHORTEST_S <= mean_s <= LONGEST_S:
        return f"shard_size {shard_size} is good"
    if whole_s < SHORTEST_S:
        return f"shard_size {shard_size} will do: all of infer takes less than an hour"
    better = min(max(round(BEST_S / slide_s), 1), slides)
    if better == shard_size:
        return f"shard_size {shard_size} is as good as it gets"
    return f"shard_size {better} would give jobs of {better * slide_s / 3600:.1f} hours"


def describe(cost: Forecast) -> list[tuple[str, str]]:
    """A forecast in lines of a name and a text."""
    sizes, in_shards = cost.sizes, cost.shards.values()
    count = sum(in_shards)
    whole = float(sizes.gigapixels.sum())
    drawn = f", give or take {sizes.error:,.0f}: from {sizes.opened} headers and the sizes of all files"
    lost = f"; {sizes.unreadable} of {sizes.opened} headers cannot be read" if sizes.unreadable else ""
    device = "GPU" if cost.gpu else f"job with {INFER_THREADS} threads"
    each, in_longest = _hours(cost.mean_hours), cost.shards[cost.longest]
    rest, maps = cost.gigabytes["rest"], cost.gigabytes["maps"]
    return [
        ("slides", f"{count:,}"),
        ("gigapixels", f"{whole:,.4g}{drawn if sizes.opened < count else ''}{lost}"),
        ("shards", f"{len(in_shards):,} of {min(in_shards)} to {max(in_shards)} slides"),
        ("jobs", f"{cost.jobs:,}, of the stages {', '.join(STAGE_VERSION)}"),
        ("infer", f"{_hours(cost.infer_hours)} of a {device}, {each} a job ({cost.time.source})"),
        ("longest job", f"{_hours(cost.longest_hours)}: infer of {cost.longest}, {in_longest} slides"),
        ("CPU", f"{_hours(cost.cpu_hours)} of a core, {START_SECONDS:g} s to start each job included"),
        ("disk", f"{show_size(maps + rest)} to stay, {show_size(maps)} of it maps ({cost.disk.source})"),
        (
            "disk at the peak",
            f"up to {show_size(cost.temporary_gb)} more, with {cost.at_once} jobs at once",
        ),
        ("files", f"{cost.files:,}"),
        ("advice", cost.advice),
    ]


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.3g} hours" if hours < 1000 else f"{hours:,.0f} hours"
    return f"{hours * 60:.2g} minutes" if hours >= 1 / 60 else f"{hours * 3600:.2g} seconds"


def show_size(gigabytes: float) -> str:
    """A number of gigabytes in words, to three digits."""
    if gigabytes >= 1000:
        return f"{gigabytes / 1000:,.3g} TB"
    return f"{gigabytes:.3g} GB" if gigabytes >= 1 else f"{gigabytes * 1000:.3g} MB"
