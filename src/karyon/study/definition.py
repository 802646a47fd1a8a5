"""A study as a file: one experiment, what varies, and how often each variant is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from karyon.errors import KaryonError
from karyon.io.schemas import did_you_mean
from karyon.training.experiment import Experiment, as_experiment, read_yaml
from karyon.training.settings import Range, read_settings


@dataclass(frozen=True)
class Study:
    """Training runs that differ in what is compared alone; the keys of a file in ``config/studies/``.

    Attributes:
        name: Folder of the results.
        base: Experiment file, relative to the study's folder.
        variants: What each changes in the base: keys of an experiment, each replaced as a whole. The first
            variant is the one that others are compared with.
        test_splits: Values of the sheets' column ``split`` that variants are scored on.
        seeds: Each variant is run with each.
        settings: Changes to the base that all variants share, such as a smaller budget.
    """

    name: str
    base: str
    variants: dict[str, dict[str, Any]]
    test_splits: tuple[str, ...]
    seeds: tuple[Annotated[int, Range(0)], ...] = (1,)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        variant: Name of the variant.
        seed: Of the training.
        experiment: What is trained.
    """

    variant: str
    seed: int
    experiment: Experiment

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.variant}-{self.seed}"


def read_study(path: Path) -> tuple[Study, list[Run]]:
    """Read a study and all its runs, seed by seed: an early look at the table compares all variants.

    Raises:
        KaryonError: Study or base cannot be read, or they or a variant have mistakes; the message lists all.
    """
    content = read_yaml(path)
    try:
        study = read_settings(Study, content)
    except ValueError as error:
        raise KaryonError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error
    base = read_yaml(path.parent / study.base)
    mistakes = [f"{path}: {mistake}" for mistake in _mistakes(study)]
    runs = []
    for seed in study.seeds:
        for variant, changes in study.variants.items():
            settings = base | study.settings | changes | {"name": f"{study.name}-{variant}", "seed": seed}
            try:
                runs.append(Run(variant, seed, as_experiment(settings, f"{path}: variant {variant}")))
            except KaryonError as error:
                mistakes += str(error).splitlines()
    if mistakes:
        raise KaryonError("\n".join(dict.fromkeys(mistakes)))
    return study, runs


def chosen_runs(runs: list[Run], variants: list[str] | None) -> list[Run]:
    """The runs of some variants, or of all.

    Raises:
        KaryonError: A variant is not of this study.
    """
    known = list(dict.fromkeys(run.variant for run in runs))
    for variant in variants or ():
        if variant not in known:
            raise KaryonError(
                f"variant '{variant}' is not of this study{did_you_mean(variant, known)}; it has "
                f"{', '.join(known)}"
            )
    return [run for run in runs if variants is None or run.variant in variants]


def _mistakes(study: Study) -> Iterator[str]:
    """What the types do not say."""
    for key in ("variants", "seeds", "test_splits"):
        if not getattr(study, key):
            yield f"{key} is empty; expected at least one."
