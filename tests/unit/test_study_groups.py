"""Images of a study: groups, roles by patient, and shares that lie within each other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from study_files import write_images

from karyon.errors import KaryonError
from karyon.study.definition import Data, Split
from karyon.study.groups import read_images, training_images


def data(sheet: Path, **changes: object) -> Data:
    return Data(sheets=(str(sheet),), **changes)  # type: ignore[arg-type]


def roles(images: pd.DataFrame) -> dict[str, str]:
    return dict(zip(images["slide_id"], images["role"], strict=True))


def test_half_of_the_patients_test_and_a_fifth_of_the_others_validates(tmp_path: Path) -> None:
    images = read_images(data(write_images(tmp_path, {"lung": 20, "liver": 6})))
    counts = images.groupby(["group", "role"]).size().to_dict()
    assert counts["lung", "test"] == 10
    assert counts["lung", "validation"] == 2
    assert counts["lung", "train"] == 8
    # 3 of 6 test; a fifth of 3 is less than one, so one validates.
    assert (counts["liver", "test"], counts["liver", "validation"], counts["liver", "train"]) == (3, 1, 2)


def test_another_group_and_other_rows_change_nothing_in_a_group(tmp_path: Path) -> None:
    alone = read_images(data(write_images(tmp_path / "a", {"lung": 9})))
    both = read_images(data(write_images(tmp_path / "b", {"liver": 5, "lung": 9})))
    lung = both[both["group"] == "lung"]
    assert roles(alone) == roles(lung)
    assert list(alone["slide_id"]) == list(lung["slide_id"])
    other = read_images(data(tmp_path / "a" / "images.tsv", split=Split(seed=2)))
    assert roles(other) != roles(alone)


def test_images_of_a_patient_stay_together(tmp_path: Path) -> None:
    sheet = write_images(tmp_path, {"lung": 12})
    table = pd.read_csv(sheet, sep="\t", dtype=str)
    table["patient"] = [f"p{number // 3}" for number in range(12)]
    table.to_csv(sheet, sep="\t", index=False)
    images = read_images(data(sheet))
    assert images.groupby("patient")["role"].nunique().max() == 1
    assert images.groupby("role").size().to_dict() == {"test": 6, "train": 3, "validation": 3}


def test_values_are_renamed_joined_and_left_out(tmp_path: Path) -> None:
    sheet = write_images(tmp_path, {"bladder": 2, "stomach": 2, "lung": 4, "head and neck": 3})
    groups = {"bladder": "gut", "stomach": "gut", "lung": None}
    images = read_images(data(sheet, groups=groups))
    assert images.groupby("group", sort=False).size().to_dict() == {"gut": 4, "head_and_neck": 3}
    with pytest.raises(KaryonError, match=r"no image has the organ 'stomac' \(did you mean 'stomach'\?\)"):
        read_images(data(sheet, groups={"stomac": "gut"}))


def test_a_given_split_is_kept_and_other_images_are_left_out(tmp_path: Path) -> None:
    sheet = write_images(tmp_path, {"lung": 4})
    table = pd.read_csv(sheet, sep="\t", dtype=str).assign(split=["TD", "VD", "TeD1", "other"])
    table.to_csv(sheet, sep="\t", index=False)
    split = Split("given", train_splits=("TD",), validation_splits=("VD",), test_splits=("TeD1",))
    images = read_images(data(sheet, split=split))
    assert roles(images) == {"lung0": "train", "lung1": "validation", "lung2": "test"}


def test_what_makes_no_study_is_refused(tmp_path: Path) -> None:
    sheet = write_images(tmp_path, {"lung": 2})
    with pytest.raises(KaryonError, match="group lung: 2 patients; 3 or more are needed"):
        read_images(data(sheet))
    with pytest.raises(KaryonError, match="image lung0: it is in two sheets"):
        read_images(Data(sheets=(str(sheet), str(sheet))))
    table = pd.read_csv(sheet, sep="\t", dtype=str).assign(split=["TD", "TeD1"], patient="p")
    table.to_csv(sheet, sep="\t", index=False)
    with pytest.raises(KaryonError, match="patient p would test and train"):
        read_images(data(sheet, split=Split("given", train_splits=("TD",), test_splits=("TeD1",))))


def test_a_smaller_share_lies_within_a_larger_one(tmp_path: Path) -> None:
    images = read_images(data(write_images(tmp_path, {"lung": 50, "liver": 10})))
    shares = [training_images(images, ["lung", "liver"], share) for share in (0.01, 0.1, 0.5, 1.0)]
    # 20 patients of lung train, 4 of liver; shares are rounded up in each.
    assert [len(part) for part in shares] == [2, 3, 12, 24]
    ids = [set(part["slide_id"]) for part in shares]
    assert all(small <= large for small, large in pairwise(ids))
    few = training_images(images, ["lung", "liver"], count=3)
    assert list(few["group"]) == ["lung", "liver", "lung"]
