"""The parts of a study's report as HTML: sentences, pictures inside the page, tables, provenance."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from karyon.study.same_different import FEWEST_PATIENTS

LONG_TABLE = 30  # rows; a longer one is folded

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body {{font: 15px/1.45 sans-serif; color: #222; max-width: 1200px; margin: 2em auto; padding: 0 1em}}
h1 {{font-size: 24px}} h2 {{font-size: 19px; margin-top: 2em; border-bottom: 1px solid #bbb}}
figure {{margin: 1.5em 0}} figcaption {{color: #555; font-size: 13px}} img {{max-width: 100%; height: auto}}
.table {{overflow-x: auto; margin: 0.5em 0 1.5em}} table {{border-collapse: collapse; font-size: 13px}}
th, td {{padding: 3px 9px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap}}
thead th {{border-bottom: 2px solid #888}} summary {{cursor: pointer; font-weight: bold}}
.words1 :is(th, td):nth-child(-n+1), .words2 :is(th, td):nth-child(-n+2),
.words3 :is(th, td):nth-child(-n+3) {{text-align: left}}
pre {{background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 12px}}
</style><h1>{title}</h1>{body}</html>"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: Title and heading; escaped here.
        parts: HTML, from the other functions of this module.
    """
    return PAGE.format(title=html.escape(title), body="\n".join(parts))


def heading(text: str) -> str:
    """A section's heading."""
    return f"<h2>{html.escape(text)}</h2>"


def sentences(texts: Iterable[str]) -> str:
    """A list of findings."""
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"


def picture(path: Path, width_px: int, caption: str) -> str:
    """A PNG, held in the page itself.

    Args:
        path: The file.
        width_px: At which it is shown where the window is wide enough.
        caption: Below it.
    """
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    words = html.escape(caption)
    image = f'<img width="{width_px}" alt="{words}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def table(rows: pd.DataFrame, title: str, words: int) -> str:
    """A table, folded if it is long.

    Args:
        rows: Cells as they are to be shown.
        title: Above it.
        words: How many columns, the first ones, hold words and are set flush left.
    """
    cells = rows.to_html(index=False, border=0, na_rep="", classes=f"words{words}")
    shown = "" if len(rows) > LONG_TABLE else " open"
    summary = f"<summary>{html.escape(title)}</summary>"
    return f'<details{shown}>{summary}<div class="table">{cells}</div></details>'


def cell_columns(cells: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """The cell table as text.

    Args:
        cells: From :func:`karyon.study.cells.cell_table`.
        variants: The study's.
    """
    trained_on = variants.set_index("variant")["train_groups"]
    return pd.DataFrame(
        {
            "tested on": cells["test_group"],
            "variant": cells["variant"],
            "trained on": cells["variant"].map(trained_on),
            "images": cells["images"],
            "patients": cells["patients"],
            "F1 (95 % interval)": _with_interval(cells, "f1", "f1_low", "f1_high", ".3f"),
            "F1 of each seed": [" ".join(f"{f1:.3f}" for f1 in seeds) for seeds in cells["f1_seeds"]],
            "precision": _decimal(cells["precision"]),
            "recall": _decimal(cells["recall"]),
            "mean image F1": _decimal(cells["mean_image_f1"]),
            "mean distance (µm)": _decimal(cells["distance_um"], ".2f"),
        }
    )


def comparison_columns(tests: pd.DataFrame) -> pd.DataFrame:
    """The tests as text; without p-values where there are too few patients for them.

    Args:
        tests: From :func:`karyon.study.cells.compare_variants`.
    """
    enough = tests["patients"] >= FEWEST_PATIENTS
    return pd.DataFrame(
        {
            "tested on": tests["test_group"],
            "reference": tests["reference"],
            "variant": tests["variant"],
            "F1 of the reference": _decimal(tests["f1_reference"]),
            "F1": _decimal(tests["f1"]),
            "difference (95 % interval)": _with_interval(tests, "difference", "low", "high", "+.3f"),
            "p": _decimal(tests["p_value"].where(enough)),
            "p, adjusted": _decimal(tests["p_adjusted"].where(enough)),
            "images": tests["images"],
            "patients": tests["patients"],
        }
    )


def group_columns(groups: pd.DataFrame) -> pd.DataFrame:
    """The comparison of same and different groups as text.

    Args:
        groups: From :func:`karyon.study.same_different.group_table`.
    """
    best = _decimal(groups["best_different_f1"])
    few = np.where(groups["same"] == "", "no own model", "too few patients")
    return pd.DataFrame(
        {
            "tested on": groups["test_group"],
            "best other group": groups["best_different"],
            "not worse than the own model": [
                (", ".join(names) or "none") if testable else why
                for names, testable, why in zip(groups["not_worse"], groups["testable"], few, strict=True)
            ],
            "patients": groups["patients"],
            "own model's F1 (95 % interval)": _with_interval(
                groups, "same_f1", "same_low", "same_high", ".3f"
            ),
            "best other F1": best,
            "mean of the others": _decimal(groups["mean_different_f1"]),
        }
    )


def study_file(study: dict[str, Any]) -> str:
    """What was run, in the words of the study's file, folded."""
    words = html.escape(yaml.safe_dump(study, sort_keys=False, allow_unicode=True))
    return f"<details><summary>Study file</summary><pre>{words}</pre></details>"


def provenance(facts: dict[str, Any]) -> list[str]:
    """What was run, with what, on what, and where.

    Args:
        facts: ``provenance.json`` of the study.
    """
    general = {"commit": facts["commit"], "sha256 of the pins": facts["lock"]}
    general["seeds"] = ", ".join(str(seed) for seed in facts["seeds"])
    general |= {str(key): str(value) for key, value in facts["hardware"].items()}
    runs = pd.DataFrame(facts["runs"])
    # A model that is taken as it is was not trained here.
    minutes = _decimal(runs.pop("seconds").astype(np.float64) / 60, ",.1f")
    return [
        heading("Provenance"),
        table(_pairs(general), "Program and machine", words=2),
        table(pd.DataFrame(facts["data"]), "Data", words=2),
        table(runs.assign(minutes=minutes), "Models, and minutes of training", words=2),
        table(_pairs(facts["packages"]), "Packages", words=2),
    ]


def _pairs(facts: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"what": list(facts), "value": [str(value) for value in facts.values()]})


def _with_interval(rows: pd.DataFrame, value: str, low: str, high: str, style: str) -> list[str]:
    """Values with their interval where it is known: ``0.872 (0.851 to 0.890)``."""
    bounds = [rows[name] for name in (value, low, high)]
    return [
        _text(middle, style) + (f" ({lower:{style}} to {upper:{style}})" if np.isfinite(lower) else "")
        for middle, lower, upper in zip(*bounds, strict=True)
    ]


def _decimal(column: pd.Series, style: str = ".3f") -> list[str]:
    return [_text(value, style) for value in column]


def _text(value: float, style: str) -> str:
    return f"{value:{style}}" if np.isfinite(value) else ""
