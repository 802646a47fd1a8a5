"""The divisions of a protocol: who trains, who validates and who tests, by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pandas as pd

from karyon.errors import SheetError
from karyon.io.schemas import did_you_mean

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def random_splits(
    sheet: pd.DataFrame, count: int, train: int, validation: int, seed: int, organs: Sequence[str] = ()
) -> Iterator[pd.DataFrame]:
    """Divisions drawn at random, each independent of the others (NB: five, of 16 and 14 images).

    Args:
        sheet: As of :func:`karyon.io.sheets.read_sheet`; where it names no patient, an image is its own.
        count: How many divisions.
        train: Patients drawn to learn from.
        validation: How many of these validate.
        seed: Of the draws. Whether a patient is drawn before another depends on nobody else.
        organs: Only patients of these organs are drawn, all others test; none for every organ.

    Yields:
        The sheet with its column ``split`` filled anew: ``train``, ``validation`` and ``test``.

    Raises:
        SheetError: An organ does not occur, nobody would be left to test or to train, or no division is
            wanted.
    """
    if count < 1:
        raise SheetError(f"{count} random divisions; expected 1 or more")
    known = sorted(set(sheet["organ"]))
    for organ in organs:
        if organ not in known:
            raise SheetError(
                f"no image has the organ '{organ}'{did_you_mean(organ, known)}; there are {', '.join(known)}"
            )
    persons = _persons(sheet)
    drawn_from = set(persons)
    if organs:  # a patient with an image of another organ tests
        drawn_from -= set(persons[~sheet["organ"].isin(organs)])
    if not 0 < train <= min(len(drawn_from), persons.nunique() - 1):
        raise SheetError(
            f"{train} patients to learn from, of {len(drawn_from)} that may be drawn and {persons.nunique()} "
            "in all; expected 1 or more, with somebody left to test"
        )
    for number in range(1, count + 1):
        order = _shuffled(drawn_from, seed, number)
        yield _divided(sheet, set(persons) - set(order[:train]), order[:train], validation)


def folds(sheet: pd.DataFrame, count: int | None, validation: int, seed: int) -> Iterator[pd.DataFrame]:
    """Cross-validation: every patient tests once.

    Patients are dealt to the folds organ by organ, so that organs are spread as evenly as can be.

    Args:
        sheet: As of :func:`karyon.io.sheets.read_sheet`; where it names no patient, an image is its own.
        count: How many folds; ``None`` for one for each patient, who alone tests (leave-one-patient-out).
        validation: How many of the patients that do not test validate; the others train.
        seed: Of the draws.

    Yields:
        The sheet with its column ``split`` filled anew: ``train``, ``validation`` and ``test``.

    Raises:
        SheetError: There are more folds than patients, or nobody would be left to train.
    """
    persons = _persons(sheet)
    organ = dict(zip(persons, sheet["organ"], strict=True))
    dealt = sorted(_shuffled(set(persons), seed, 0), key=organ.__getitem__)
    count = len(dealt) if count is None else count
    if not 2 <= count <= len(dealt):
        raise SheetError(f"{count} folds of {len(dealt)} patients; expected 2 or more, at most one for each")
    for number in range(count):
        tests = set(dealt[number::count])
        yield _divided(sheet, tests, _shuffled(set(dealt) - tests, seed, number + 1), validation)


def _persons(sheet: pd.DataFrame) -> pd.Series:
    """The patient of each row, or the image's id where the sheet names none."""
    return sheet["patient"].where(sheet["patient"] != "", sheet["slide_id"])


def _shuffled(persons: set[str], seed: int, number: int) -> list[str]:
    """Persons in an order as good as random, whatever order they come in."""
    return sorted(
        persons, key=lambda person: hashlib.sha256(f"{seed}\t{number}\t{person}".encode()).hexdigest()
    )


def _divided(sheet: pd.DataFrame, tests: set[str], order: Sequence[str], validation: int) -> pd.DataFrame:
    """The sheet with its splits: of those in order the first validate and the others train."""
    if not 0 <= validation < len(order):
        raise SheetError(
            f"{validation} patients to validate, of {len(order)} to learn from; expected 0 or more, with "
            "somebody left to train"
        )
    roles = dict.fromkeys(tests, TEST) | dict.fromkeys(order, TRAIN)
    roles |= dict.fromkeys(order[:validation], VALIDATION)
    return sheet.assign(split=_persons(sheet).map(roles))
