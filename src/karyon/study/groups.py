"""The images of a study: which group each belongs to, and whether it trains, validates or tests."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from karyon.errors import KaryonError
from karyon.io.schemas import did_you_mean
from karyon.io.sheets import read_sheet
from karyon.io.splits import TEST, TRAIN, VALIDATION
from karyon.study.definition import Data, Split
from karyon.training.experiment import expand_data


def read_images(data: Data) -> pd.DataFrame:
    """All images of a study.

    The draw of a group depends on its own patients and the seed alone: another group changes nothing in it.

    Args:
        data: The study's.

    Returns:
        The sheets' rows as of :func:`karyon.io.sheets.read_sheet`, in the order of the groups and in each in
        that of the draw, with ``group``, ``role`` (``train``, ``validation`` or ``test``), ``person`` (the
        patient, or the image's id where the sheet names none) and ``rank``: the share of its group's persons
        of this role that stand before.

    Raises:
        KaryonError: A sheet has mistakes, an image is in two sheets or not annotated, a value to be renamed
            does not occur, a group has too few patients, or a patient would be on two sides.
    """
    sheets = [read_sheet(expand_data(sheet)) for sheet in data.sheets]
    images = pd.concat(sheets, ignore_index=True)
    _check_rows(images, data)
    names = images[data.group_by].map(lambda value: data.groups.get(value, value))
    person = images["patient"].where(images["patient"] != "", images["slide_id"])
    images = images.assign(group=names.map(safe_name, na_action="ignore"), person=person)[names.notna()]
    roles = _given_roles if data.split.policy == "given" else _drawn_roles
    images = images.assign(role=roles(images, data.split)).dropna(subset="role")
    _check_sides(images)
    keys = zip(images["group"], images["person"], strict=True)
    turns = [_turn(group, person, data.split.seed) for group, person in keys]
    places = images["group"].map({group: place for place, group in enumerate(images["group"].unique())})
    images = images.assign(turn=turns, place=places)
    images = images.sort_values(["place", "turn", "slide_id"], ignore_index=True)
    persons = images.groupby(["group", "role"], sort=False)["person"]
    before = persons.transform(lambda ids: pd.factorize(ids)[0])
    return images.drop(columns=["place", "turn"]).assign(rank=before / persons.transform("nunique"))


def safe_name(name: str) -> str:
    """A name that may be a file's, and a wildcard's: ``Head and neck`` is ``Head_and_neck``."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name)


def _turn(group: str, person: str, seed: int) -> str:
    """What persons of a group are sorted by: as good as random, and nobody else's affair."""
    return hashlib.sha256(f"{seed}\t{group}\t{person}".encode()).hexdigest()


def _given_roles(images: pd.DataFrame, split: Split) -> pd.Series:
    """A role for each image by its ``split``; none for those of other splits."""
    roles = {TRAIN: split.train_splits, VALIDATION: split.validation_splits, TEST: split.test_splits}
    return images["split"].map({name: role for role, names in roles.items() for name in names})


def _drawn_roles(images: pd.DataFrame, split: Split) -> pd.Series:
    """A role for each image by drawing persons: the first test, the next validate, the others train."""
    roles: dict[tuple[str, str], str] = {}
    for group, part in images.groupby("group", sort=False):
        persons = sorted(set(part["person"]), key=lambda person: _turn(str(group), person, split.seed))
        if len(persons) < 3:
            raise KaryonError(
                f"group {group}: {len(persons)} patients; 3 or more are needed, to train, validate and test: "
                "join it to another group, or leave it out (study.data.groups)"
            )
        tests = min(max(1, round(split.test * len(persons))), len(persons) - 2)
        validations = min(max(1, round(split.validation * (len(persons) - tests))), len(persons) - tests - 1)
        for number, person in enumerate(persons):
            later = VALIDATION if number < tests + validations else TRAIN
            roles[str(group), person] = TEST if number < tests else later
    keys = zip(images["group"], images["person"], strict=True)
    return pd.Series([roles[key] for key in keys], index=images.index)


def _check_rows(images: pd.DataFrame, data: Data) -> None:
    """Ids are of one image each, all are annotated, and renamed values occur."""
    twice = images.loc[images["slide_id"].duplicated(), "slide_id"]
    mistakes = [f"image {image}: it is in two sheets of the study; keep one of them" for image in twice]
    bare = images.loc[images["annotations"] == "", "slide_id"]
    mistakes += [f"image {image}: its sheet names no annotations; a study needs them" for image in bare]
    empty = images.loc[images[data.group_by] == "", "slide_id"]
    mistakes += [f"image {image}: its {data.group_by} is empty, so it has no group" for image in empty]
    values = sorted(set(images[data.group_by]))
    mistakes += [
        f"study.data.groups: no image has the {data.group_by} '{value}'{did_you_mean(value, values)}; "
        f"there are {', '.join(values)}"
        for value in data.groups
        if value not in values
    ]
    if mistakes:
        raise KaryonError("\n".join(mistakes))


def _check_sides(images: pd.DataFrame) -> None:
    """No patient is on two sides, in whichever groups."""
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for person, role in zip(images["person"], images["role"], strict=True):
        sides[person].add(role)
    mixed = {person: roles for person, roles in sides.items() if len(roles) > 1}
    if mixed:
        raise KaryonError(
            "\n".join(
                f"patient {person} would {' and '.join(sorted(roles))}: keep a patient's images in one group"
                for person, roles in sorted(mixed.items())
            )
        )


def training_images(
    images: pd.DataFrame, groups: Sequence[str], share: float = 1.0, count: int = 0
) -> pd.DataFrame:
    """Training images of some groups, or the first of them: a smaller share lies within a larger one.

    Args:
        images: From :func:`read_images`.
        groups: Whose.
        share: Of the patients of each group, rounded up.
        count: How many images, taken from the groups in turn; 0 for all.
    """
    # A hair less: 0.1 of 30 is three patients, whatever floats make of it.
    within = images["rank"] < share - 1e-9
    chosen = images[images["group"].isin(groups) & (images["role"] == TRAIN) & within]
    if not count:
        return chosen
    turns = chosen.groupby("group", sort=False).cumcount()
    return chosen.iloc[turns.argsort(kind="stable")[:count]]
