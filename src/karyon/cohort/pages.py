"""A cohort's tables as pages of their own, in columns that read well."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

QUARTILES = {0.25: "share in a slide, 1st quartile", 0.5: "median", 0.75: "3rd quartile"}
AREA_TITLES = {
    "aji": "AJI",
    "aji_plus": "AJI+",
    "dq": "DQ",
    "sq": "SQ",
    "pq": "PQ",
    "dice": "Dice",
    "object_dice": "object Dice",
    "nb_f1": "F1 (Dice ≥ 0.2)",
    "nb_dice": "Dice of its pairs",
    "mdr": "MDR, missed",
    "fdr": "FDR, false",
    "usr": "USR, under-segmented",
    "osr": "OSR, over-segmented",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body {{font: 14px sans-serif; margin: 1em}} table {{border-collapse: collapse}}
th, td {{padding: 3px 10px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap}}
thead th {{position: sticky; top: 0; background: white; border-bottom: 2px solid #888}}
{left} {{text-align: left}}
</style><h1 style="font-size: 18px">{title}</h1><p>{note}</p>{rows}</html>"""


def score_columns(scores: pd.DataFrame) -> pd.DataFrame:
    """The score table as text, averages with their interval: ``0.872 (0.851 to 0.890)``.

    Args:
        scores: The cohort's scores.
    """
    table = pd.DataFrame(
        {
            "grouping": scores["grouping"].str.replace("_", " "),
            "group": scores["group"],
            "model": scores["model"],
            "radius (µm)": scores["radius_um"].map("{:g}".format),
            "slides": _whole(scores["slides"]),
            "patients": _whole(scores["patients"]),
            "annotated": _whole(scores["annotated"]),
            "TP": _whole(scores["tp"]),
            "FP": _whole(scores["fp"]),
            "FN": _whole(scores["fn"]),
        }
    )
    for title, name in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
        table[title] = _with_interval(scores, name, f"{name}_low", f"{name}_high")
    table["distance (µm), mean ± SD"] = [
        f"{mean:.2f} ± {deviation:.2f}" if np.isfinite(mean) else ""
        for mean, deviation in zip(scores["distance_mean_um"], scores["distance_sd_um"], strict=True)
    ]
    for title in ("precision", "recall", "F1"):
        name = f"mean_slide_{title.lower()}"
        table[f"mean slide {title}"] = _with_interval(scores, name, f"{name}_low", f"{name}_high")
    return table.assign(
        **{
            "average precision": _decimal(scores["average_precision"], 3),
            "best threshold": _decimal(scores["best_threshold"], 3),
        }
    )


def segmentation_columns(segmentation: pd.DataFrame) -> pd.DataFrame:
    """The figures of areas as text, the mean over slides beside the pooled one.

    Args:
        segmentation: The cohort's figures of areas.
    """
    means, pooled = (segmentation[segmentation["average"] == average] for average in ("macro", "micro"))
    return pd.DataFrame(
        {
            "grouping": means["grouping"].str.replace("_", " "),
            "group": means["group"],
            "figure": means["figure"].map(AREA_TITLES),
            "slides": _whole(means["slides"]),
            "patients": _whole(means["patients"]),
            "mean slide": _with_interval(means, "value", "low", "high"),
            "pooled": _with_interval(pooled, "value", "low", "high"),
        }
    )


def class_score_columns(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of each class as text.

    Args:
        scores: The cohort's scores of each class.
    """
    table = pd.DataFrame(
        {
            "grouping": scores["grouping"].str.replace("_", " "),
            "group": scores["group"],
            "rule": scores["rule"].str.replace("_", " "),
            "class": scores["class_name"],
            "slides": _whole(scores["slides"]),
            **{name.upper(): _whole(scores[name]) for name in ("tp", "fp", "fn")},
        }
    )
    for title, name in (
        ("precision", "precision"),
        ("recall", "recall"),
        ("F1", "f1"),
        ("mean slide F1", "mean_slide_f1"),
        ("class accuracy", "accuracy"),
    ):
        table[title] = _with_interval(scores, name, f"{name}_low", f"{name}_high")
    return table


def slide_columns(slides: pd.DataFrame, radius_um: float | None) -> pd.DataFrame:
    """The slide table as text: how each slide ended, what was found, and its scores at one radius.

    Args:
        slides: The cohort's slide table.
        radius_um: The main radius; None where no slide is annotated.
    """
    table = slides[["slide_id", "organ", "split", "status"]].rename(columns={"slide_id": "slide"})
    numbers: list[tuple[str, str, int]] = [
        ("µm per pixel", "mpp", 4),
        ("tissue (mm²)", "tissue_mm2", 2),
        ("nuclei", "nuclei", 0),
        ("nuclei per mm²", "nuclei_per_mm2", 0),
    ]
    if radius_um is not None:
        numbers.append(("annotated", "annotated", 0))
        at = f"{radius_um:g}um"
        numbers += [(name.upper(), f"{name}_{at}", 0) for name in ("tp", "fp", "fn")]
        numbers += [("precision", f"precision_{at}", 3), ("recall", f"recall_{at}", 3), ("F1", f"f1_{at}", 3)]
        numbers.append(("average precision", "average_precision", 3))
        numbers.append(("mean distance (µm)", f"distance_mean_um_{at}", 2))
        numbers += [(AREA_TITLES[name], name, 3) for name in ("aji", "pq", "dice")]
    numbers.append(("Gpx per min", "gpx_per_min", 2))
    for title, column, decimals in numbers:
        if column in slides:  # a column is absent where no slide came as far as its stage
            table[title] = _decimal(slides[column], decimals)
    if "stain_source" in slides:
        table["stain"] = slides["stain_source"].fillna("")
    return table.assign(error=slides["error"], warning=slides["warning"])


def class_columns(counts: pd.DataFrame, slides: pd.DataFrame) -> pd.DataFrame:
    """What of a cohort's nuclei is of which class, as text: of all slides, and of each organ of several.

    Args:
        counts: From :func:`karyon.cohort.questions.count_nuclei`.
        slides: The slides that were counted.
    """
    known = counts.merge(slides[["slide_id", "organ", "tissue_mm2"]], on="slide_id")
    groups = [("all slides", known)]
    if known["organ"].nunique() > 1:
        groups += [(str(organ), some) for organ, some in known.groupby("organ")]
    rows = []
    for group, some in groups:
        whole = some["nuclei"].sum()
        for name, nuclei in some.groupby("class_name"):
            share = nuclei["fraction"].dropna()
            rows.append(
                {
                    "group": group,
                    "class": name,
                    "slides": len(nuclei),
                    "nuclei": nuclei["nuclei"].sum(),
                    "share of all nuclei": nuclei["nuclei"].sum() / whole,
                    "nuclei per mm²": nuclei["nuclei"].sum() / nuclei["tissue_mm2"].sum(),
                    **{title: share.quantile(part) for part, title in QUARTILES.items()},
                }
            )
    table = pd.DataFrame(rows)
    decimals = {"slides": 0, "nuclei": 0, "share of all nuclei": 3, "nuclei per mm²": 0}
    for title, number in (decimals | dict.fromkeys(QUARTILES.values(), 3)).items():
        table[title] = _decimal(table[title], number)
    return table


def page(table: pd.DataFrame, title: str, note: str, text: Sequence[str]) -> str:
    """A table as an HTML page; every name in it is escaped.

    Args:
        table: Cells as they are to be shown.
        title: Title and heading.
        note: A sentence above the table.
        text: Columns that hold words and are set flush left.
    """
    numbers = [list(table.columns).index(column) + 1 for column in text]
    left = ", ".join(f"th:nth-child({number}), td:nth-child({number})" for number in numbers)
    rows = table.to_html(index=False, border=0, na_rep="")
    return PAGE.format(title=html.escape(title), note=html.escape(note), left=left, rows=rows)


def _with_interval(scores: pd.DataFrame, *columns: str) -> list[str]:
    return [
        _text(value, 3) + (f" ({low:.3f} to {high:.3f})" if np.isfinite([low, high]).all() else "")
        for value, low, high in scores[list(columns)].itertuples(index=False, name=None)
    ]


def _whole(column: pd.Series) -> list[str]:
    return _decimal(column, 0)


def _decimal(column: pd.Series, decimals: int) -> list[str]:
    return [_text(value, decimals) for value in column.astype(np.float64)]


def _text(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if np.isfinite(value) else ""
