"""What a square millimetre of slide costs: time and disk, from the records of earlier runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karyon.models.card import CENTRE, ModelCard

STAGES = ("tissue", "stain", "infer", "stitch", "nuclei")
# Slides read of each earlier cohort.
RECORDS = 200
# A cohort of much smaller or larger slides tells little: what every slide costs, however small, weighs more.
MAX_UNLIKE = 10.0


@dataclass(frozen=True)
class Rates:
    """What a cohort's slides took.

    Attributes:
        source: The cohort's folder and number of slides, or what was assumed.
        device: ``cpu``, or the GPU's name, that ``infer`` ran on.
        model: Whose card was used.
        mean_mm2: Mean area of its slides.
        seconds: Of each stage per square millimetre of slide: CPU-core-seconds, and for ``infer`` on a GPU
            the GPU's seconds.
        megabytes: Of ``tiles``, ``maps`` and ``rest`` (all else that is written) per square millimetre.
        files: Written for each slide.
    """

    source: str
    device: str
    model: str
    mean_mm2: float
    seconds: dict[str, float]
    megabytes: dict[str, float]
    files: float


# Where nothing has been run yet, of slides of which a third is tissue. Centres: the measurements in
# docs/design.md on a synthetic slide. The GPU's seconds are no measurement: three times what eight reading
# threads and one that writes would take.
MEGABYTES = {"tiles": 0.27, "maps": 0.12, "rest": 0.14}
SECONDS = {"tissue": 0.01, "stain": 0.01, "infer": 2.3, "stitch": 0.012, "nuclei": 0.0075}
GPU_SECONDS = 0.1
# Outlines, as karyon_outline took on a slide of the demo: each map, for whole nuclei are packed less well
# than their hearts; what the table takes more; and `nuclei`, from docs/design.md's time for a million.
OUTLINE_MAP = {"tiles": 1.0, "maps": 0.35}
OUTLINE_REST, OUTLINE_SECONDS = 0.3, 0.2
MPP, FILES = 0.5, 13


def assumed_rates(card: ModelCard, gpu: bool) -> Rates:
    """What a model takes where nothing like it has been run: by the number of its maps and their pixels.

    Args:
        card: The model.
        gpu: Whether ``infer`` runs on a GPU.
    """
    like, megabytes = "switch_unet", dict(MEGABYTES)
    seconds = SECONDS | ({"infer": GPU_SECONDS} if gpu else {})
    if card.maps != CENTRE:
        like = "karyon_outline"
        megabytes = {part: size * len(card.maps) for part, size in OUTLINE_MAP.items()}
        megabytes["rest"] = MEGABYTES["rest"] + OUTLINE_REST
        seconds["nuclei"] = OUTLINE_SECONDS
    pixels = (MPP / card.mpp) ** 2
    megabytes |= {part: megabytes[part] * pixels for part in ("tiles", "maps")}
    seconds |= {stage: seconds[stage] * pixels for stage in ("stitch", "nuclei")}
    source = f"assumed, as of {like}: nothing like it has been run here"
    return Rates(source, "GPU" if gpu else "cpu", card.name, 0.0, seconds, megabytes, FILES)


def earlier_runs(results: Path) -> list[Rates]:
    """Rates of every cohort under ``results/``, by the model and the device that were used.

    Only slides count that all stages up to ``nuclei`` have finished.
    """
    runs = []
    for cohort in sorted(path.parent for path in results.glob("*/records")):
        names = sorted(path.name for path in (cohort / "records" / "nuclei").glob("[!.]*.json"))
        groups: dict[tuple[str, str], list[dict[str, dict[str, Any]]]] = {}
        for name in names[:: max(1, len(names) // RECORDS)]:
            records = _read_records(cohort, name)
            if records:
                inferred = records["infer"]["row"]
                groups.setdefault((inferred["device"], inferred["model"]), []).append(records)
        runs += [_rates(cohort, *key, slides) for key, slides in groups.items()]
    return runs


def most_alike(runs: Iterable[Rates], mean_mm2: float, otherwise: Rates) -> Rates:
    """The run whose slides are nearest in area; ``otherwise`` where none is within a factor of ten."""
    alike = {abs(math.log(run.mean_mm2 / mean_mm2)): run for run in runs}
    nearest = min(alike, default=math.inf)
    return alike[nearest] if nearest <= math.log(MAX_UNLIKE) else otherwise


def _read_records(cohort: Path, name: str) -> dict[str, dict[str, Any]]:
    """A slide's records by stage; nothing where one is missing or was written before devices were noted."""
    try:
        records = {
            stage: json.loads((cohort / "records" / stage / name).read_text(encoding="utf-8"))
            for stage in STAGES
        }
    except (OSError, ValueError):
        return {}
    return records if "device" in records["infer"]["row"] else {}


def _rates(cohort: Path, device: str, model: str, slides: list[dict[str, dict[str, Any]]]) -> Rates:
    area, files = 0.0, 0
    seconds = dict.fromkeys(STAGES, 0.0)
    megabytes = dict.fromkeys(MEGABYTES, 0.0)
    for records in slides:
        facts = records["tissue"]["row"]
        area += facts["width"] * facts["height"] * (facts["mpp"] / 1000) ** 2
        for stage, record in records.items():
            cores = record["row"]["threads"] if stage == "infer" and device == "cpu" else 1
            seconds[stage] += record["row"]["seconds"] * cores
            files += 1 + len(record["outputs"])
            for name, size in record["outputs"].items():
                folder = name.partition("/")[0]
                megabytes[folder if folder in megabytes else "rest"] += size / 1e6
    return Rates(
        source=f"as {len(slides)} slides of {cohort} took on {device}",
        device=device,
        model=model,
        mean_mm2=area / len(slides),
        seconds={stage: spent / area for stage, spent in seconds.items()},
        megabytes={folder: size / area for folder, size in megabytes.items()},
        files=files / len(slides),
    )
