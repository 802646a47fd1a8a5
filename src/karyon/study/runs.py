"""The runs of a study: every variant with every group, value and seed that it stands for."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from karyon.errors import KaryonError
from karyon.io.schemas import did_you_mean
from karyon.io.splits import TEST, TRAIN, VALIDATION
from karyon.models.card import model_folder
from karyon.study.definition import ALL, EACH, OTHERS, Study, Variant
from karyon.study.groups import safe_name
from karyon.training.experiment import as_experiment
from karyon.training.settings import read_settings


@dataclass(frozen=True)
class Case:
    """One model of a study but for its seed.

    Attributes:
        name: The variant's name, with the group and the values that it stands for.
        family: The variant's name.
        variant: The variant with the values filled in.
        target: Groups that train and validate.
        auxiliary: Groups that are mixed in.
        series: What belongs on one line of a plot, or in one matrix; '' for what stands alone.
        x_name: What is swept last; '' for nothing.
        x: Its value where it is a number; NaN for none.
    """

    name: str
    family: str
    variant: Variant
    target: tuple[str, ...]
    auxiliary: tuple[str, ...]
    series: str
    x_name: str
    x: float


@dataclass(frozen=True)
class Run:
    """One model of a study.

    Attributes:
        case: Which.
        seed: Of its training.
        settings: Its experiment but for the datasets, as YAML has it; empty for a model taken as it is.
        model: Name of the model that is taken as it is, or fine-tuned; '' for none.
        parent: The run that it is fine-tuned from; '' for none.
    """

    case: Case
    seed: int
    settings: Mapping[str, Any]
    model: str = ""
    parent: str = ""

    @property
    def name(self) -> str:
        """Folder of the run; a model taken as it is has no seed."""
        return f"{self.case.name}-{self.seed}" if self.settings else self.case.name


def all_runs(study: Study, base: Mapping[str, Any], images: pd.DataFrame, source: str) -> list[Run]:
    """The runs of a study, seed by seed: an early look at the results compares all variants.

    Args:
        study: From the file.
        base: The experiment that variants change, as YAML has it.
        images: From :func:`karyon.study.groups.read_images`.
        source: What messages call the study.

    Raises:
        KaryonError: A group, model or variant is not there, or an experiment has mistakes; the message lists
            all of them.
    """
    cases, mistakes = [], []
    groups = list(dict.fromkeys(images["group"]))
    trained = list(dict.fromkeys(images.loc[images["role"] == TRAIN, "group"]))
    for family, variant in study.variants.items():
        try:
            cases += list(_cases(family, variant, trained))
        except (KaryonError, ValueError) as error:
            mistakes += [f"study.variants.{family}: {line}" for line in str(error).splitlines()]
    runs, checked = [], set()
    for seed in study.seeds:
        for case in cases:
            run = _run(study, case, seed, base, cases)
            if seed == study.seeds[0] or run.settings:
                runs.append(run)
            if seed == study.seeds[0]:
                mistakes += [f"study.variants.{case.name}: {line}" for line in _mistakes(run, images)]
            # This check builds the network: once for all runs that differ in names and data alone.
            key = repr({**run.settings, "name": "", "seed": 0})
            if run.settings and key not in checked:
                checked.add(key)
                mistakes += [f"study.variants.{case.name}: {line}" for line in _experiment_mistakes(run)]
    for group in study.test_groups:
        mistakes += _unknown("study.test_groups", group, groups)
    if len({run.name for run in runs}) < len(runs):
        mistakes.append(
            "study.variants: two of them have the same name once groups and values are filled in."
        )
    if mistakes:
        raise KaryonError("\n".join(f"{source}: {mistake}" for mistake in dict.fromkeys(mistakes)))
    return runs


def tested_groups(study: Study, images: pd.DataFrame) -> list[str]:
    """The groups that models are scored on, in the order of the images."""
    groups = dict.fromkeys(images.loc[images["role"] == TEST, "group"])
    return [group for group in groups if group in study.test_groups or not study.test_groups]


def _cases(family: str, variant: Variant, groups: Sequence[str]) -> Iterator[Case]:
    """A case for each group of ``each`` and each combination of swept values."""
    keys = list(variant.sweep)
    own = {key for key in keys if hasattr(variant, key.split(".")[0]) and key != "settings"}
    targets: list[tuple[str, ...]] = (
        [(group,) for group in groups] if variant.target == (EACH,) else [variant.target]
    )
    if variant.model:
        targets = [()]
    for target, values in itertools.product(targets, itertools.product(*variant.sweep.values())):
        swept = dict(zip(keys, values, strict=True))
        filled = read_settings(Variant, _as_mapping(variant) | {key: swept[key] for key in own})
        changes = {key: value for key, value in swept.items() if key not in own}
        filled = replace(filled, settings={**filled.settings, **changes}, sweep={})
        group = target if variant.target == (EACH,) else ()
        chosen = tuple(groups) if target == (ALL,) else target
        others = tuple(one for one in groups if one not in chosen)
        auxiliary = others if filled.auxiliary == (OTHERS,) else filled.auxiliary
        for one in (*chosen, *auxiliary):
            if mistake := _unknown("groups", one, groups):
                raise KaryonError("\n".join(mistake))
        texts = ["+".join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
        last = values[-1] if values and isinstance(values[-1], int | float) else float("nan")
        yield Case(
            name=safe_name("-".join([family, *group, *texts])),
            family=family,
            variant=filled,
            target=chosen,
            auxiliary=auxiliary,
            series=_series(family, group, texts),
            x_name=keys[-1] if keys else "",
            x=float(last),
        )


def _series(family: str, group: Sequence[str], values: Sequence[str]) -> str:
    """What belongs on one line of a plot, or in one matrix."""
    if values:
        return ", ".join([family, *group, *values[:-1]])
    return family if group else ""


def _as_mapping(variant: Variant) -> dict[str, Any]:
    """The variant as YAML has it, without its sweep."""
    listed = {"target": list(variant.target), "auxiliary": list(variant.auxiliary)}
    return {**vars(variant), **listed, "sweep": {}}


def _run(study: Study, case: Case, seed: int, base: Mapping[str, Any], cases: Sequence[Case]) -> Run:
    variant = case.variant
    if variant.model:
        return Run(case, seed, {}, model=variant.model)
    settings = copy.deepcopy({**base, **study.settings})
    for key, value in variant.settings.items():
        _set(settings, key, value)
    settings |= {"name": f"{study.name}-{case.name}", "seed": seed}
    if not variant.start:
        return Run(case, seed, settings)
    parents = [one.name for one in cases if one.name == safe_name(variant.start) and not one.variant.model]
    parent = f"{parents[0]}-{seed}" if parents else ""
    return Run(case, seed, settings, model="" if parent else variant.start, parent=parent)


def _set(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a key of nested mappings: ``loss_arguments.tau``."""
    first, _, rest = key.partition(".")
    if not rest:
        settings[first] = value
        return
    inner = dict(settings.get(first) or {})
    _set(inner, rest, value)
    settings[first] = inner


def _mistakes(run: Run, images: pd.DataFrame) -> Iterator[str]:
    """What is wrong with a run's model and images."""
    if run.model:
        try:
            model_folder(run.model)
        except KaryonError as error:
            yield str(error)
    if not run.settings:
        return
    roles = set(images.loc[images["group"].isin(run.case.target), "role"])
    for role, word in ((TRAIN, "training"), (VALIDATION, "validation")):
        if role not in roles:
            yield f"no {word} image is of {', '.join(run.case.target)}"


def _experiment_mistakes(run: Run) -> list[str]:
    placeholder = [{"sheet": "", "train_splits": [TRAIN], "validation_splits": [VALIDATION]}]
    try:
        as_experiment({**run.settings, "datasets": placeholder}, "the experiment")
    except KaryonError as error:
        return str(error).splitlines()
    return []


def _unknown(key: str, group: str, groups: Sequence[str]) -> list[str]:
    if group in groups:
        return []
    return [f"{key}: there is no group '{group}'{did_you_mean(group, groups)}; there are {', '.join(groups)}"]
