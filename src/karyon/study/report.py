"""The report of a study: one HTML file that needs no other, with its figures and tables beside it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from karyon.cohort.figures import STYLE
from karyon.io.atomic import atomic_path
from karyon.io.job import job_log
from karyon.study import pages
from karyon.study.cells import cell_table, compare_variants, with_all
from karyon.study.figures import draw_clusters, draw_heatmap, draw_same_different, draw_seed_spread
from karyon.study.panels import draw_curves, draw_sweep, draw_variants
from karyon.study.same_different import (
    FEWEST_PATIENTS,
    find_matrices,
    group_table,
    reference_pairs,
    same_model,
    sweep_lines,
)
from karyon.study.verdict import comparison_verdict, matrix_verdict, reference_verdict, sweep_verdict

SCREEN_DPI = 88  # an inch of a figure on the page, so that its letters are as large as the page's
ABOUT_TESTS = (
    "The reference is the model trained on the tested group alone; in a study that has none, the first "
    "variant. Tests are paired bootstraps over patients. P-values are adjusted by Holm for the variants "
    f"compared with one reference on one test group, and left out with fewer than {FEWEST_PATIENTS} patients."
)


@dataclass(frozen=True)
class Findings:
    """The tables of a study.

    Attributes:
        variants: One row per variant, as :func:`read_variants` gives them.
        test_groups: Their names.
        curves: Counts over the threshold, a row per run, test group and threshold.
        cells: From :func:`karyon.study.cells.cell_table`; of several test groups, ``all`` comes first.
        tests: From :func:`karyon.study.cells.compare_variants`; likewise.
        matrices: From :func:`karyon.study.same_different.find_matrices`.
    """

    variants: pd.DataFrame
    test_groups: list[str]
    curves: pd.DataFrame
    cells: pd.DataFrame
    tests: pd.DataFrame
    matrices: Mapping[str, pd.DataFrame]

    @property
    def group_cells(self) -> pd.DataFrame:
        """Cells of the test groups, without ``all``."""
        return self.cells[self.cells["test_group"].isin(self.test_groups)]

    @property
    def compared(self) -> pd.DataFrame:
        """Variants that are in no matrix, and on no line of a sweep."""
        names = [name for part in self.matrices.values() for name in part["variant"]]
        return self.variants[self.variants["x"].isna() & ~self.variants["variant"].isin(names)]


def write_study_report(
    matrix: str, curves: str, variants: str, provenance: str, report: str, log: str
) -> None:
    """Write the report, and beside it ``figures/*.png``, ``cells.parquet`` and ``tests.parquet``.

    Args:
        matrix: Parquet with one row per run and test image.
        curves: Parquet with one row per run, test group and threshold.
        variants: TSV with one row per variant, in the order of the study.
        provenance: JSON: what was run, with what, on what, and where.
        report: HTML file to write.
        log: File for what is said.
    """
    with job_log(log, "report"), mpl.rc_context(STYLE):
        start = time.monotonic()
        found = find_out(pd.read_parquet(matrix), pd.read_parquet(curves), read_variants(Path(variants)))
        seconds = time.monotonic() - start
        print(f"{len(found.cells)} cells and {len(found.tests)} tests in {seconds:.1f} s", file=sys.stderr)
        folder = Path(report).parent
        cells = found.cells.merge(found.variants[["variant", "train_groups"]], on="variant", how="left")
        for name, table in (("cells", cells), ("tests", found.tests)):
            with atomic_path(folder / f"{name}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        facts = json.loads(Path(provenance).read_text(encoding="utf-8"))
        pictures = Pictures(folder / "figures")
        parts = [
            pages.sentences(_what_was_run(facts, found)),
            pages.study_file(facts["study"]),
            *_matrix_parts(found, pictures),
            *_sweep_parts(found, pictures),
            *_comparison_parts(found, pictures),
            *_table_parts(found),
            *pages.provenance(facts),
        ]
        with atomic_path(Path(report)) as temporary:
            temporary.write_text(pages.page(str(facts["study"]["name"]), parts), encoding="utf-8")
        print(f"report after {time.monotonic() - start:.1f} s", file=sys.stderr)


def read_variants(path: Path) -> pd.DataFrame:
    """The variants of a study; text as it stands, '' where there is none, ``x`` as a number or NaN."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    return table.assign(x=pd.to_numeric(table["x"].replace("", None)))


def find_out(matrix: pd.DataFrame, curves: pd.DataFrame, variants: pd.DataFrame) -> Findings:
    """All cells and tests of a study.

    Args:
        matrix: One row per run and test image.
        curves: One row per run, test group and threshold.
        variants: From :func:`read_variants`.
    """
    groups = [str(group) for group in matrix["test_group"].unique()]
    matrices = find_matrices(variants, groups)
    images = with_all(matrix)
    cells = cell_table(images)
    pairs = reference_pairs(variants, matrices, list(cells["test_group"].unique()))
    return Findings(variants, groups, curves, cells, compare_variants(images, pairs), matrices)


class Pictures:
    """Figures as files of a folder, and as parts of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def show(self, name: str, figure: Figure | None, caption: str) -> str:
        """Save a figure and embed it; nothing where there is none."""
        if figure is None:
            return ""
        path = self.folder / f"{name}.png"
        figure.savefig(path)
        return pages.picture(path, round(figure.get_figwidth() * SCREEN_DPI), caption)


def _what_was_run(facts: dict[str, Any], found: Findings) -> Iterator[str]:
    runs = pd.DataFrame(facts["runs"])
    if question := facts["study"].get("question"):
        yield str(question)
    yield (
        f"Variants: {len(found.variants)}; seeds: {', '.join(str(seed) for seed in facts['seeds'])}; "
        f"models: {len(runs)}, each scored on the test groups {', '.join(found.test_groups)}."
    )
    yield f"Training took {runs['seconds'].astype(float).sum() / 3600:.1f} hours in all."


def _matrix_parts(found: Findings, pictures: Pictures) -> Iterator[str]:
    cells = found.group_cells
    for number, (series, matrix) in enumerate(found.matrices.items(), 1):
        groups = group_table(matrix, cells, found.tests)
        own = {group: model for group in found.test_groups if (model := same_model(matrix, group))}
        suffix = f"-{number}" if len(found.matrices) > 1 else ""
        yield pages.heading("Every model on every group" + (f": {series}" if series else ""))
        yield pages.sentences(matrix_verdict(matrix, groups, cells, found.tests))
        yield pictures.show(
            f"heatmap{suffix}",
            draw_heatmap(matrix, cells),
            "F1 of the images of a test group pooled, over all seeds; means of rows and columns.",
        )
        yield pictures.show(
            f"clusters{suffix}",
            draw_clusters(matrix, cells),
            "The same, with groups side by side whose models can stand in for each other. The tree joins two "
            "groups at the F1 lost on average by testing each with the other's model (average linkage).",
        )
        yield pictures.show(
            f"same_different{suffix}",
            draw_same_different(matrix, cells, groups),
            "Each test group under its own model and under those of other groups. Intervals: 95 %, bootstrap "
            "over patients; with few patients they are too narrow.",
        )
        yield pages.table(pages.group_columns(groups), "Own model and others, by test group", words=3)
        yield pictures.show(
            f"precision_recall{suffix}",
            draw_curves(found.curves, cells, list(matrix["variant"]), own),
            "Precision and recall over the threshold of the detections, counts of all images and seeds.",
        )
        yield pictures.show(
            f"seeds{suffix}",
            draw_seed_spread(matrix, cells),
            "How much F1 depends on the seed: differences between models that are smaller mean little.",
        )


def _sweep_parts(found: Findings, pictures: Pictures) -> Iterator[str]:
    names = list(found.variants.loc[found.variants["x"].notna(), "x_name"].unique())
    for number, name in enumerate(names, 1):
        suffix = f"-{number}" if len(names) > 1 else ""
        yield pages.heading(f"Sweep of {name}")
        swept = found.variants[found.variants["x_name"] == name]
        verdict = sweep_verdict(found.cells, found.variants, name)
        yield pages.sentences([*verdict, *reference_verdict(found.cells, swept, found.tests)])
        yield pictures.show(
            f"sweep{suffix}",
            draw_sweep(found.cells, found.variants, name),
            "Bands: 95 % intervals, bootstrap over patients. Bold: trained on the tested group.",
        )
        for count, (line, part) in enumerate(sweep_lines(found.variants, name).items(), 1):
            yield pictures.show(
                f"sweep_precision_recall{suffix}-{count}",
                draw_curves(found.curves, found.group_cells, list(part["variant"]), {}),
                f"Precision and recall over the threshold{', ' if line else ''}{line}.",
            )


def _comparison_parts(found: Findings, pictures: Pictures) -> Iterator[str]:
    names = list(found.compared["variant"])
    if names:
        yield pages.heading("Variants compared")
        verdict = comparison_verdict(found.cells, found.compared)
        yield pages.sentences([*verdict, *reference_verdict(found.cells, found.compared, found.tests)])
        yield pictures.show(
            "variants", draw_variants(found.cells, names), "Intervals are of a bootstrap over patients."
        )
        yield pictures.show(
            "precision_recall_variants",
            draw_curves(found.curves, found.group_cells, names, {}),
            "Precision and recall over the threshold of the detections, counts of all images and seeds.",
        )


def _table_parts(found: Findings) -> Iterator[str]:
    cells = pages.cell_columns(found.cells, found.variants)
    first = found.cells["test_group"] == found.cells["test_group"].iloc[0]
    yield pages.heading("Tables")
    yield pages.table(cells[first], "By variant, all test images", words=3)
    if len(found.test_groups) > 1:
        yield pages.table(cells[~first], "Every test group and variant", words=3)
    if len(found.tests):
        yield pages.table(
            pages.comparison_columns(found.tests), "Paired tests against the reference", words=3
        )
        yield pages.sentences([ABOUT_TESTS])
