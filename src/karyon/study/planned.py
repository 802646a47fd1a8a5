"""A study's plan as the workflow's jobs read it, without what it takes to make one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = Path("plan", "plan.json")


@dataclass(frozen=True)
class PlannedRun:
    """What the workflow knows of a run.

    Attributes:
        run: Its name.
        variant: Name of what it trains, without the seed.
        family: Name of the variant in the study's file.
        seed: Of the training.
        train_groups: What it learns from, joined by ``+``; '' for a model taken as it is.
        series: What belongs on one line of a plot.
        x_name: What is swept; '' for nothing.
        x: Its value; ``None`` for none.
        model: Folder or name of the model.
        parent: The run it is fine-tuned from; '' for none.
        trains: Whether the model is made by this study.
    """

    run: str
    variant: str
    family: str
    seed: int
    train_groups: str
    series: str
    x_name: str
    x: float | None
    model: str
    parent: str
    trains: bool


@dataclass(frozen=True)
class PlannedStudy:
    """A study with its runs.

    Attributes:
        name: Folder below ``results/studies``.
        radius_um: Of matches.
        threads: CPU threads of a training and of an inference.
        groups: Those that models are scored on, in order.
        runs: In the study's order.
    """

    name: str
    radius_um: float
    threads: int
    groups: tuple[str, ...]
    runs: tuple[PlannedRun, ...]

    def run(self, name: str) -> PlannedRun:
        """The run of this name."""
        return next(run for run in self.runs if run.run == name)

    def to_json(self) -> str:
        """The plan's file."""
        return json.dumps(asdict(self), indent=1)


def read_planned(folder: Path) -> PlannedStudy:
    """The plan of a study.

    Args:
        folder: ``results/studies/<name>``.
    """
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    runs = tuple(PlannedRun(**run) for run in content["runs"])
    return PlannedStudy(**{**content, "groups": tuple(content["groups"]), "runs": runs})
