"""How sure a pooled or mean figure is: bootstrap over patients, of one model or of two on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import pandas as pd

# A figure of each row of a table of counts, NaN where it is undefined: ``lambda t: t.tp / (t.tp + t.fn)``.
Figure: TypeAlias = Callable[[pd.DataFrame], pd.Series | np.ndarray]

LOW, HIGH = 0.025, 0.975  # the percentiles that bound a 95 % interval
BLOCK_WEIGHTS = 4_000_000  # bounds the memory of the weights (64 MB); results do not depend on it


def bootstrap(
    counts: pd.DataFrame, figures: Mapping[str, Figure], n_bootstrap: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Each figure pooled (micro) and as the mean of the images' (macro), with 95 % percentile intervals.

    A resample draws as many patients as there are, with replacement, and takes all images of each as often as
    it was drawn: images of one patient are not independent. The interval runs from the 2.5th to the 97.5th
    percentile of the resamples (percentile method; Efron & Tibshirani 1993, chapter 13). With few patients it
    is too narrow, as every bootstrap is.

    ``micro`` is the figure of the added counts. ``macro`` is the mean over the images, not the patients, in
    which the figure is defined. A resample in which an average is undefined is left out of its interval.

    Args:
        counts: One row per image, its id as the unique index: the column ``patient``, and columns that add up
            over images, such as ``tp``, ``fp`` and ``fn``. An image without a patient ('' or missing) is a
            patient of its own. The order of the rows does not matter.
        figures: Functions of a table with the additive columns; they give one number per row. One that is not
            finite counts as undefined.
        n_bootstrap: Number of resamples.
        seed: The same seed gives the same interval.

    Returns:
        Two rows per figure, in their order, first ``micro``. Columns ``figure``, ``average`` (``micro`` or
        ``macro``), ``value``, ``low``, ``high``, ``images`` (in which the figure is defined; for ``micro``,
        all) and ``patients``. Undefined values are NaN, and so is the interval of a single patient.

    Raises:
        ValueError: The table is empty, lacks ``patient`` or any other column, names an image twice, holds a
            count that is not a finite number, or a figure does not give one number per row.
    """
    _check(counts)
    columns = counts.columns.drop("patient")
    sums = _patient_sums(counts, figures)
    averages = _averages(_resample(sums, n_bootstrap, seed), columns, figures)
    low, high = _interval(averages[1:], len(sums))
    defined = sums[:, len(columns) + len(figures) :].sum(axis=0)
    return _labelled(figures).assign(
        value=averages[0],
        low=low,
        high=high,
        images=np.stack([np.full(len(figures), len(counts)), defined], axis=1).ravel().astype(np.int64),
        patients=len(sums),
    )


def compare(
    one: pd.DataFrame,
    other: pd.DataFrame,
    figures: Mapping[str, Figure],
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The difference between two models on the same images, by a paired bootstrap over patients.

    Every resample takes the same patients for both models, so what makes an image hard for both cancels.
    The two-sided p-value is twice the smaller share of resamples on either side of no difference, with one
    added to both counts: ``min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (1 + n))``. It is the level at which
    the percentile interval would just reach 0, never below ``2 / (1 + n)``, and 1 for equal models.

    Each model's average is the one that :func:`bootstrap` gives for it; where an image's figure is undefined
    for one model only, the macro averages are means over different images.

    Args:
        one: Counts of the first model, as in :func:`bootstrap`.
        other: Counts of the second, of the same images and patients and with the same columns.
        figures: As in :func:`bootstrap`.
        n_bootstrap: Number of resamples.
        seed: The same seed gives the same result, and the same resamples as in :func:`bootstrap`.

    Returns:
        Two rows per figure, in their order, first ``micro``. Columns ``figure``, ``average``, ``difference``
        (``one`` minus ``other``), ``low``, ``high``, ``p_value``, ``images`` and ``patients``. Of a single
        patient interval and p-value are NaN.

    Raises:
        ValueError: As in :func:`bootstrap`, or the two tables differ in images, in an image's patient or in
            columns.
    """
    _check_pair(one, other)
    columns = one.columns.drop("patient")
    first, second = _patient_sums(one, figures), _patient_sums(other[one.columns], figures)
    both = _resample(np.hstack([first, second]), n_bootstrap, seed)
    left, right = (_averages(half, columns, figures) for half in np.hsplit(both, 2))
    # Sums of fractions round; what differs by that alone is a tie, and the p-value counts ties.
    difference = np.where(np.isclose(left, right, rtol=1e-12, atol=0.0), 0.0, left - right)
    low, high = _interval(difference[1:], len(first))
    return _labelled(figures).assign(
        difference=difference[0],
        low=low,
        high=high,
        p_value=_p_value(difference[1:], len(first)),
        images=len(one),
        patients=len(first),
    )


def _patient_sums(counts: pd.DataFrame, figures: Mapping[str, Figure]) -> np.ndarray:
    """All that adds up, summed per patient: one product with a resample's weights gives both averages.

    Returns:
        float64, a row per patient, ordered by patient and image so that the order of the rows does not
        matter. First the columns of counts; then each figure's sum over images; then the number of images
        that define each.
    """
    image, patient = counts.index.astype(str).to_numpy(object), _patients(counts).to_numpy(object)
    order = np.lexsort((image, patient))
    additive = counts.drop(columns="patient").astype(np.float64).iloc[order]
    values = _evaluate(additive, figures)
    patient = patient[order]
    starts = np.flatnonzero((patient == "") | np.r_[True, patient[1:] != patient[:-1]])
    rows = np.hstack([additive, np.nan_to_num(values), ~np.isnan(values)])
    return np.add.reduceat(rows, starts, axis=0)


def _patients(counts: pd.DataFrame) -> pd.Series:
    patient = counts["patient"]
    return patient.astype(str).where(patient.notna(), "")


def _check(counts: pd.DataFrame) -> None:
    if "patient" not in counts or counts.shape[1] < 2 or counts.empty:
        raise ValueError(
            f"the table of counts has {len(counts)} rows and the columns {list(counts.columns)}; expected a "
            "row per image, 'patient' and at least one column of counts."
        )
    if not counts.index.is_unique:
        twice = counts.index[counts.index.duplicated()]
        raise ValueError(f"image {twice[0]!r} has several rows; expected one row per image.")
    for column in counts.columns.drop("patient"):
        wrong = ~np.isfinite(
            pd.to_numeric(counts[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        )
        if wrong.any():
            raise ValueError(
                f"{column!r} of image {counts.index[wrong][0]!r} is {counts[column][wrong].iloc[0]!r}; "
                "expected a finite number, 0 where there is nothing to count."
            )


def _check_pair(one: pd.DataFrame, other: pd.DataFrame) -> None:
    for counts in (one, other):
        _check(counts)
    for name, left, right in (("image", one.index, other.index), ("column", one.columns, other.columns)):
        for side, extra in (("first", left.difference(right)), ("second", right.difference(left))):
            if len(extra):
                listed = ", ".join(map(str, extra[:5])) + ", ..." * (len(extra) > 5)
                raise ValueError(
                    f"{len(extra)} {name}s are only in the {side} table: {listed}. Models are compared on "
                    "the same images."
                )
    moved = one.index[(_patients(one) != _patients(other).reindex(one.index)).to_numpy()]
    if len(moved):
        raise ValueError(f"image {moved[0]!r} belongs to different patients in the two tables.")


def _evaluate(table: pd.DataFrame, figures: Mapping[str, Figure]) -> np.ndarray:
    """Every figure of every row, NaN where it is not finite, ``(rows, figures)``."""
    values = np.full((len(table), len(figures)), np.nan)
    for column, (name, figure) in enumerate(figures.items()):
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.asarray(figure(table), dtype=np.float64)
        if value.shape != (len(table),):
            raise ValueError(f"figure {name!r} gave shape {value.shape}; expected one number per row.")
        values[:, column] = np.where(np.isfinite(value), value, np.nan)
    return values


def _resample(sums: np.ndarray, n_bootstrap: int, seed: int) -> np.ndarray:
    """Sums over the sample itself, then over each resample.

    Args:
        sums: Of each patient, float64, ``(patients, columns)``.
        n_bootstrap: Number of resamples.
        seed: Of the generator.

    Returns:
        float64, ``(1 + n_bootstrap, columns)``.
    """
    patients = len(sums)
    random = np.random.default_rng(seed)
    share = np.full(patients, 1 / patients)
    rows = max(1, BLOCK_WEIGHTS // patients)
    drawn = [sums.sum(axis=0, keepdims=True)]
    for start in range(0, n_bootstrap, rows):
        weights = random.multinomial(patients, share, size=min(rows, n_bootstrap - start))
        drawn.append(weights.astype(np.float64) @ sums)
    return np.concatenate(drawn)


def _averages(drawn: np.ndarray, columns: pd.Index, figures: Mapping[str, Figure]) -> np.ndarray:
    """Micro and macro average of each figure in turn, ``(rows of drawn, 2 * figures)``."""
    counts, total, defined = np.split(drawn, [len(columns), len(columns) + len(figures)], axis=1)
    micro = _evaluate(pd.DataFrame(counts, columns=columns), figures)
    with np.errstate(invalid="ignore"):
        macro = total / defined
    return np.stack([micro, macro], axis=2).reshape(len(drawn), -1)


def _interval(resamples: np.ndarray, patients: int) -> np.ndarray:
    """Low and high percentile of each column over the rows that are defined, ``(2, columns)``."""
    bounds = np.full((2, resamples.shape[1]), np.nan)
    for column, values in enumerate(resamples.T):
        defined = values[~np.isnan(values)]
        if defined.size and patients > 1:
            bounds[:, column] = np.quantile(defined, [LOW, HIGH])
    return bounds


def _p_value(differences: np.ndarray, patients: int) -> np.ndarray:
    if patients == 1:
        return np.full(differences.shape[1], np.nan)
    defined = (~np.isnan(differences)).sum(axis=0)
    tail = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.where(defined > 0, np.minimum(2 * (1 + tail) / (1 + defined), 1.0), np.nan)


def _labelled(figures: Mapping[str, Figure]) -> pd.DataFrame:
    return pd.DataFrame(
        {"figure": np.repeat(list(figures), 2), "average": np.tile(["micro", "macro"], len(figures))}
    )
