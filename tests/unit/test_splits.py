"""Divisions of a protocol: sizes, patients on one side, every patient tested once, and sheets that train."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from karyon.cli.main import main
from karyon.errors import SheetError
from karyon.io.schemas import REPOSITORY
from karyon.io.sheets import read_sheet
from karyon.io.splits import folds, random_splits
from karyon.training.data import check_splits
from karyon.training.experiment import on_split, read_experiment

SEEN = ("breast", "kidney", "lung", "prostate")
ORGANS = dict.fromkeys(SEEN, 6) | dict.fromkeys(("bladder", "colorectal", "stomach"), 2)
PRESETS = REPOSITORY / "config" / "experiments"


def sheet(**columns: Any) -> pd.DataFrame:
    """Thirty images as kumar30's: one of each patient."""
    organs = [organ for organ, count in ORGANS.items() for _ in range(count)]
    ids = [f"{organ}_{number}" for number, organ in enumerate(organs)]
    frame = pd.DataFrame({"slide_id": ids, "patient": [f"P{one}" for one in ids], "organ": organs})
    return frame.assign(split="TD", **columns)


def sides(division: pd.DataFrame) -> dict[str, set[str]]:
    return {split: set(part["slide_id"]) for split, part in division.groupby("split")}


def test_random_splits_are_those_of_the_nb_paper() -> None:
    divisions = [sides(one) for one in random_splits(sheet(), 5, 16, 4, seed=1, organs=SEEN)]
    assert [{side: len(ids) for side, ids in one.items()} for one in divisions] == [
        {"test": 14, "train": 12, "validation": 4}
    ] * 5
    for one in divisions:
        assert {name.split("_")[0] for name in one["train"] | one["validation"]} <= set(SEEN)
    assert len({frozenset(one["train"]) for one in divisions}) == 5


def test_draws_follow_from_the_seed_and_not_from_the_order_of_the_sheet() -> None:
    first, second = (next(random_splits(sheet(), 1, 16, 4, seed)) for seed in (1, 2))
    turned = next(random_splits(sheet()[::-1], 1, 16, 4, seed=1))
    assert sides(turned) == sides(first) != sides(second)


def test_who_learns_is_drawn_evenly() -> None:
    drawn: Counter[str] = Counter()
    for division in random_splits(sheet(), 400, 15, 0, seed=3):
        drawn.update(sides(division)["train"])
    # 400 draws of a half: 200 with a standard deviation of 10.
    assert len(drawn) == 30
    assert all(150 < count < 250 for count in drawn.values())


def test_every_patient_tests_in_one_fold_and_organs_are_spread() -> None:
    divisions = [sides(one) for one in folds(sheet(), 10, 2, seed=1)]
    assert Counter(name for one in divisions for name in one["test"]) == Counter(sheet()["slide_id"])
    for one in divisions:
        assert {side: len(ids) for side, ids in one.items()} == {"test": 3, "train": 25, "validation": 2}
        assert len({name.split("_")[0] for name in one["test"]}) == 3


def test_leave_one_out_leaves_out_all_images_of_a_patient() -> None:
    patients = [f"P{number % 7}" for number in range(30)]
    frame = sheet().assign(patient=patients)
    divisions = list(folds(frame, None, 1, seed=1))
    assert sorted(one.loc[one["split"] == "test", "patient"].unique().item() for one in divisions) == [
        f"P{number}" for number in range(7)
    ]
    for one in divisions:
        assert one.groupby("patient")["split"].nunique().max() == 1


def test_images_without_a_patient_are_their_own_and_a_patient_of_two_organs_tests() -> None:
    frame = sheet(patient="").drop(columns="patient").assign(patient="")
    assert len(list(folds(frame, None, 1, seed=1))) == 30
    frame = sheet()
    frame.loc[frame["slide_id"].isin(["breast_0", "stomach_29"]), "patient"] = "both"
    for division in random_splits(frame, 20, 20, 2, seed=1, organs=SEEN):
        assert {"breast_0", "stomach_29"} <= sides(division)["test"]


@pytest.mark.parametrize(
    ("train", "validation", "organs", "message"),
    [
        (
            25,
            1,
            ["breast", "kidney", "lung", "prostate"],
            "25 patients to learn from, of 24 that may be drawn",
        ),
        (30, 1, [], "30 patients to learn from, of 30 that may be drawn and 30 in all"),
        (0, 0, [], "0 patients to learn from"),
        (4, 4, [], "4 patients to validate, of 4 to learn from"),
        (4, -1, [], "-1 patients to validate"),
        (4, 1, ["brest"], r"no image has the organ 'brest' \(did you mean 'breast'\?\); there are bladder,"),
    ],
)
def test_draws_that_cannot_be_are_refused(
    train: int, validation: int, organs: list[str], message: str
) -> None:
    with pytest.raises(SheetError, match=message):
        list(random_splits(sheet(), 2, train, validation, seed=1, organs=organs))


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_draws_are_refused(written: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--random", count, "--train", "2", "-o", str(written.parent / "splits")]
    assert main(["split", str(written), *words]) == 1
    assert f"{count} random divisions; expected 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 31])
def test_folds_that_cannot_be_are_refused(count: int) -> None:
    with pytest.raises(SheetError, match=f"{count} folds of 30 patients; expected 2 or more"):
        list(folds(sheet(), count, 1, seed=1))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A sheet in a folder of its own, of eight images that are there."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").touch()
    rows = [f"{number}.png\t0.25\tP{number // 2}\tTD" for number in range(8)]
    (folder / "sheet.tsv").write_text("\n".join(["path\tmpp\tpatient\tsplit", *rows]) + "\n")
    return folder / "sheet.tsv"


def test_command_writes_sheets_that_read_as_the_first_and_that_training_accepts(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "splits" / "loo"
    assert main(["split", str(written), "--leave-one-out", "-o", str(folder)]) == 0
    assert (
        capsys.readouterr().err.splitlines()[0]
        == f"{folder}/split_1.tsv: images 4 train, 2 test, 2 validation"
    )
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"split_{number}.tsv" for number in range(1, 5)]
    for path in paths:
        again = read_sheet(path)
        pd.testing.assert_frame_equal(again.drop(columns="split"), read_sheet(written).drop(columns="split"))
        check_splits(on_split(read_experiment(PRESETS / "nb.yaml"), path).datasets, [again])

    assert main(["split", str(written), "--folds", "2", "-o", str(folder)]) == 1
    assert "there are splits in it; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--random", "2"], ["--folds", "2", "--train", "2"], ["--leave-one-out", "--organs", "lung"]]
)
def test_command_refuses_settings_of_another_protocol(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["split", str(written), "-o", str(tmp_path / "splits"), *words]) == 1
    assert "--random needs --train" in capsys.readouterr().err


def test_a_split_takes_the_place_of_an_experiments_datasets() -> None:
    nb = on_split(read_experiment(PRESETS / "nb.yaml"), Path("splits/split_3.tsv"))
    assert nb.name == "nb_split_3"
    assert [(one.sheet, one.train_splits, one.validation_splits) for one in nb.datasets] == [
        ("splits/split_3.tsv", ("train",), ("validation",))
    ]
    default = read_experiment(PRESETS / "karyon_default.yaml")  # with decoding_of
    assert on_split(default, Path("split_3.tsv")).datasets[0].validation_splits == ()
