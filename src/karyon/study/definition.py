"""A study as a file: data in groups, what varies between the models, and what they are scored on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from karyon.errors import KaryonError
from karyon.training.experiment import read_yaml
from karyon.training.settings import Range, read_settings

EACH, ALL, OTHERS = "each", "all", "others"

Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, above=True)]
Count = Annotated[int, Range(0)]


@dataclass(frozen=True)
class Split:
    """Which images train, validate and test.

    Attributes:
        policy: ``patients`` draws within each group, by patient; ``given`` goes by the column ``split``.
        test: Share of a group's patients that test.
        validation: Share of the others that validate.
        seed: Of the draw.
        train_splits: Of ``given``: values of the column that train.
        validation_splits: Of ``given``.
        test_splits: Of ``given``.
    """

    policy: Literal["patients", "given"] = "patients"
    test: Share = 0.5
    validation: Share = 0.2
    seed: Count = 1
    train_splits: tuple[str, ...] = ()
    validation_splits: tuple[str, ...] = ()
    test_splits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """Annotated images, in groups.

    Attributes:
        sheets: Dataset sheets, relative to the working directory; ``$KARYON_DATA`` is expanded.
        group_by: A column of the sheets.
        groups: Other names for some of its values; of two with the same name one group is made, and
            ``null`` leaves a value out.
        split: Which images train, validate and test.
    """

    sheets: tuple[str, ...]
    group_by: Literal["organ", "stain", "patient", "split", "label_quality"] = "organ"
    groups: dict[str, str | None] = field(default_factory=dict)
    split: Split = field(default_factory=Split)


@dataclass(frozen=True)
class Variant:
    """Models that a study trains, or takes as they are.

    Attributes:
        target: Groups whose images train and validate: names, ``all`` for all together, or ``each`` for one
            model per group.
        target_share: Share of their training patients, at least one.
        target_images: How many of their training images; 0 for all.
        auxiliary: Groups whose training images are mixed in: names, or ``others`` for all but the target.
        auxiliary_share: Share of their training patients, at least one.
        gamma: Crops of the target for each crop of the auxiliary images (MICRONET's weight of the loss, as
            sampling); ``null`` draws both by their number of images.
        start: What to fine-tune: a model, or a variant of this study that trains one model.
        start_step: Of a variant's run, the snapshot of this step; 0 for its end.
        freeze: How many blocks, counted from the input, keep the weights they start from.
        model: A model to be scored as it is; nothing is trained then.
        settings: Changes to the experiment, each key replaced as a whole.
        sweep: One model for each value: a key of this variant or, with dots, of the experiment. Of several,
            one for each combination.
    """

    target: tuple[str, ...] = (ALL,)
    target_share: PositiveShare = 1.0
    target_images: Count = 0
    auxiliary: tuple[str, ...] = ()
    auxiliary_share: PositiveShare = 1.0
    gamma: Annotated[float, Range(0, above=True)] | None = None
    start: str = ""
    start_step: Count = 0
    freeze: Count = 0
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """The keys below ``study`` in a file of ``config/experiments/``.

    Attributes:
        name: Folder of the results.
        question: What it is to answer, for the report.
        data: Annotated images, in groups.
        base: Experiment file, relative to the working directory.
        variants: What is compared; the first is what others are compared with.
        settings: Changes to the base that all variants share, such as a smaller budget.
        seeds: Each variant is trained with each.
        test_groups: Groups to score on; none for all that have test images.
        radius_um: Detections at most this far from an annotation may match it.
        threads: CPU threads of a training; on a CPU the last bits of the weights depend on it.
    """

    name: str
    data: Data
    base: str
    variants: dict[str, Variant]
    question: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[Annotated[int, Range(0)], ...] = (1,)
    test_groups: tuple[str, ...] = ()
    radius_um: Annotated[float, Range(0, above=True)] = 4.0
    threads: Annotated[int, Range(1)] = 1


def read_study(path: Path) -> Study:
    """Read a study's file.

    Raises:
        KaryonError: It cannot be read, is no study, or has mistakes; the message lists all of them.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping) or "study" not in content:
        raise KaryonError(
            f"{path}: there is no key 'study'; this is no study (a single training is run by `karyon train`)"
        )
    return as_study(content["study"], str(path))


def as_study(content: object, source: str) -> Study:
    """A study from YAML's mappings, lists and plain values.

    Args:
        content: What stands below ``study``.
        source: What messages call it, such as the file's name.

    Raises:
        KaryonError: It has mistakes; the message lists all of them, one a line.
    """
    try:
        study = read_settings(Study, content)
    except ValueError as error:
        lines = str(error).splitlines()
        raise KaryonError("\n".join(f"{source}: study.{line}" for line in lines)) from error
    mistakes = list(_mistakes(study))
    if mistakes:
        raise KaryonError("\n".join(f"{source}: {mistake}" for mistake in mistakes))
    return study


def _mistakes(study: Study) -> Iterator[str]:
    """What the types do not say."""
    lists = {"variants": study.variants, "seeds": study.seeds, "data.sheets": study.data.sheets}
    for key, values in lists.items():
        if not values:
            yield f"study.{key} is empty; expected at least one."
    for name, variant in study.variants.items():
        key = f"study.variants.{name}"
        if variant.model and (variant.start or variant.sweep or variant.settings):
            yield f"{key}: model is scored as it is; leave out start, sweep and settings."
        if {EACH, ALL} & set(variant.target) and len(variant.target) > 1:
            yield f"{key}.target: '{EACH}' and '{ALL}' stand alone."
        if OTHERS in variant.auxiliary and len(variant.auxiliary) > 1:
            yield f"{key}.auxiliary: '{OTHERS}' stands alone."
        for swept, values in variant.sweep.items():
            if not values or swept in ("sweep", "settings", "model"):
                yield f"{key}.sweep.{swept}: expected values of a key of a variant or of an experiment."
