"""The report of a study: what is in it for which study; it needs no other file, and names are escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from karyon.study.report import read_variants, write_study_report

ODD = "lung $a$ <b>&"
MATRIX = {"heatmap", "same_different", "precision_recall", "seeds"}


class Study:
    """Tables of a study in which every image of a patient has 20 nuclei."""

    def __init__(self, folder: Path, variants: Sequence[tuple[str, str, str, str, str]], seeds: int = 2):
        self.folder = folder
        self.groups = ["kidney", ODD]
        names = ["variant", "train_groups", "series", "x_name", "x"]
        pd.DataFrame(variants, columns=names).to_csv(folder / "variants.tsv", sep="\t", index=False)
        self.runs = [
            (variant, trained_on, seed) for variant, trained_on, *_ in variants for seed in range(seeds)
        ]

    def report(self) -> str:
        """Write the tables and the report; its text."""
        images, curves = [], []
        for number, (variant, trained_on, seed) in enumerate(self.runs):
            run = {"variant": variant, "train_groups": trained_on, "seed": seed}
            for group in self.groups:
                at = run | {"test_group": group}
                tp = 18 - number % 3
                counts = {"tp": tp, "fp": 1, "fn": 20 - tp, "distance_um": 1.0}
                images += [at | counts | {"image_id": f"{n}", "patient": f"p{n}"} for n in range(3)]
                images.append(at | dict.fromkeys(counts, 0) | {"image_id": "empty", "patient": ""})
                curves += [
                    at | {"threshold": share, "tp": tp, "fp": 2, "fn": 20 - tp} for share in (0.2, 0.5)
                ]
        pd.DataFrame(images).to_parquet(self.folder / "matrix.parquet")
        pd.DataFrame(curves).to_parquet(self.folder / "curves.parquet")
        (self.folder / "provenance.json").write_text(json.dumps(self.provenance()))
        names = ("matrix.parquet", "curves.parquet", "variants.tsv", "provenance.json", "report.html", "log")
        write_study_report(*(str(self.folder / name) for name in names))
        return (self.folder / "report.html").read_text(encoding="utf-8")

    def provenance(self) -> dict[str, object]:
        runs = [
            {"variant": variant, "seed": seed, "seconds": 1800.0 if seed else None, "model_sha256": "ab" * 32}
            for variant, _, seed in self.runs
        ]
        return {
            "commit": "19fc7c5",
            "lock": "0123abc",
            "packages": {"torch": "2.13.0"},
            "hardware": {"cpu": "a <fast> one"},
            "seeds": [0, 1],
            "study": {"name": "cross <organ>", "question": "Is <it> so?"},
            "data": [{"sheet": "kumar.tsv", "sha256": "cd" * 32}],
            "runs": runs,
        }

    def figures(self) -> set[str]:
        return {path.stem for path in (self.folder / "figures").iterdir()}


class Sources(HTMLParser):
    """Everything a page would load or link to, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def alone(*organs: str, series: str = "") -> list[tuple[str, str, str, str, str]]:
    return [(organ + series, organ, series, "", "") for organ in organs]


@pytest.fixture(scope="module")
def matrix_study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    study = Study(tmp_path_factory.mktemp("matrix"), alone("kidney", ODD))
    return study, study.report()


def test_report_of_a_matrix(matrix_study: tuple[Study, str]) -> None:
    study, text = matrix_study
    assert study.figures() == MATRIX
    assert text.count("<img") == len(MATRIX)
    for words in (
        "19fc7c5",
        "torch",
        "kumar.tsv",
        "cd" * 32,
        "ab" * 32,
        "on 1 of 2 test groups",
        "1.0 hours",
    ):
        assert words in text
    cells = pd.read_parquet(study.folder / "cells.parquet")
    assert cells.groupby("test_group", sort=False).size().to_dict() == {"all": 2, "kidney": 2, ODD: 2}
    assert set(cells["train_groups"]) == {"kidney", ODD}
    tests = pd.read_parquet(study.folder / "tests.parquet")
    assert tests[["test_group", "reference", "variant"]].to_numpy().tolist() == [
        ["kidney", "kidney", ODD],
        [ODD, ODD, "kidney"],
    ]
    assert "6 cells and 2 tests" in (study.folder / "log").read_text()


def test_the_page_loads_nothing(matrix_study: tuple[Study, str]) -> None:
    _, text = matrix_study
    page = Sources()
    page.feed(text)
    assert page.open == []
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?:|url\(|@import|<script", text)


def test_names_are_escaped(matrix_study: tuple[Study, str]) -> None:
    _, text = matrix_study
    assert "lung $a$ &lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert "<title>cross &lt;organ&gt;</title>" in text
    assert "a &lt;fast&gt; one" in text
    assert "Is &lt;it&gt; so?" in text
    assert "name: cross &lt;organ&gt;" in text  # the study's file


def test_too_few_patients_show_no_p_value(matrix_study: tuple[Study, str]) -> None:
    study, text = matrix_study
    assert pd.read_parquet(study.folder / "tests.parquet")["p_value"].notna().all()
    row = re.search(r"<td>kidney</td>\s*<td>kidney</td>\s*<td>lung.*?</tr>", text, re.DOTALL)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row[0])
    assert cells[6:8] == ["", ""]
    assert "too few patients" in text


def test_one_model_of_one_group_with_one_seed(tmp_path: Path) -> None:
    study = Study(tmp_path, alone("kidney"), seeds=1)
    study.groups = ["kidney"]
    text = study.report()
    assert study.figures() == {"variants", "precision_recall_variants"}
    assert "kidney has the highest F1" in text
    assert pd.read_parquet(tmp_path / "tests.parquet").empty


def test_one_heatmap_per_network(tmp_path: Path) -> None:
    study = Study(tmp_path, [*alone("kidney", ODD, series="unet"), *alone("kidney", ODD, series="frcn")])
    text = study.report()
    assert study.figures() == {f"{name}-{number}" for name in MATRIX for number in (1, 2)}
    assert "Every model on every group: frcn" in text


def test_report_of_a_sweep(tmp_path: Path) -> None:
    sweep = [
        (f"{organ}{x}", organ, f"tuned, {organ}", "share", x)
        for organ in ("kidney", ODD)
        for x in ("0.1", "1")
    ]
    study = Study(tmp_path, sweep)
    text = study.report()
    assert study.figures() == {"sweep", "sweep_precision_recall-1", "sweep_precision_recall-2"}
    assert "tuned, kidney, tested on kidney: from share 0.1 to 1, F1 goes from" in text
    tests = pd.read_parquet(tmp_path / "tests.parquet")
    assert set(tests["reference"]) == {"kidney0.1"}


def test_report_of_a_comparison(tmp_path: Path) -> None:
    study = Study(tmp_path, [(name, "kidney", "", "", "") for name in ("switching", "dice", "NA")])
    text = study.report()
    assert study.figures() == {"variants", "precision_recall_variants"}
    assert "Variants compared" in text
    assert set(pd.read_parquet(tmp_path / "tests.parquet")["variant"]) == {"dice", "NA"}


def test_two_reports_are_the_same(matrix_study: tuple[Study, str], tmp_path: Path) -> None:
    study, text = matrix_study
    assert Study(tmp_path, alone("kidney", ODD)).report() == text
    for name in ("cells.parquet", "tests.parquet"):
        assert (tmp_path / name).read_bytes() == (study.folder / name).read_bytes()


def test_variants_are_read_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "v.tsv").write_text(
        "variant\ttrain_groups\tseries\tx_name\tx\nNA\t\t\t\t\n01\tnull\t\ttau\t0.5\n"
    )
    table = read_variants(tmp_path / "v.tsv")
    assert table[["variant", "train_groups", "x_name"]].to_numpy().tolist() == [
        ["NA", "", ""],
        ["01", "null", "tau"],
    ]
    assert table["x"].tolist() == pytest.approx([float("nan"), 0.5], nan_ok=True)
