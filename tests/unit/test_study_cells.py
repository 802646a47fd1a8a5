"""Cells, paired tests and verdicts of a study: by hand, by brute force, and diagonals that must win."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from karyon.errors import KaryonError
from karyon.study.cells import cell_table, compare_variants, holm, with_all
from karyon.study.same_different import FEWEST_PATIENTS, find_matrices, group_table, reference_pairs
from karyon.study.verdict import comparison_verdict, matrix_verdict, reference_verdict, sweep_verdict

NAN = float("nan")
ORGANS = ["lung", "kidney", "breast"]


def rows(*table: tuple[str, str, int, str, int, int, int, float]) -> pd.DataFrame:
    names = ["variant", "test_group", "seed", "image_id", "tp", "fp", "fn", "distance_um"]
    matrix = pd.DataFrame(table, columns=names)
    return matrix.assign(patient=matrix["image_id"])


def variants(*table: tuple[str, str, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(table, columns=["variant", "train_groups", "series", "x_name", "x"])


def matrix_of(
    hits: dict[tuple[str, str], Sequence[int]], names: Sequence[str], groups: Sequence[str] = ORGANS
) -> pd.DataFrame:
    """Images of a patient each with 100 nuclei, of which so many are found; nothing false; one seed."""
    return rows(
        *(
            (variant, group, 1, f"{group}-{number}", tp, 0, 100 - tp, 1.0)
            for variant in names
            for group in groups
            for number, tp in enumerate(hits[variant, group])
        )
    )


def f1_of(hits: Sequence[int]) -> float:
    return 2 * sum(hits) / (sum(hits) + 100 * len(hits))


def test_a_cell_by_hand() -> None:
    cells = cell_table(
        rows(
            ("a", "lung", 1, "i", 8, 2, 2, 1.0),
            ("a", "lung", 1, "j", 1, 1, 3, 3.0),
            ("a", "lung", 2, "i", 6, 4, 4, 1.5),
            ("a", "lung", 2, "j", 0, 4, 4, NAN),
        )
    )
    cell = cells.iloc[0]
    assert len(cells) == 1
    assert (cell["seeds"], cell["images"], cell["patients"]) == (2, 2, 2)
    # 15 found, 11 false, 13 missed.
    assert cell["f1"] == pytest.approx(30 / 54)
    assert cell["precision"] == pytest.approx(15 / 26)
    assert cell["recall"] == pytest.approx(15 / 28)
    assert cell["f1_seeds"] == pytest.approx([18 / 26, 12 / 28])
    assert cell["mean_image_f1"] == pytest.approx((28 / 40 + 2 / 14) / 2)
    assert cell["distance_um"] == pytest.approx((8 * 1.0 + 1 * 3.0 + 6 * 1.5) / 15)
    assert cell["f1_low"] <= cell["f1"] <= cell["f1_high"]


def test_pooled_f1_equals_brute_force() -> None:
    random = np.random.default_rng(0)
    table = rows(
        *(
            (variant, group, seed, f"i{image}", *(int(n) for n in random.integers(0, 50, 3)), 1.0)
            for variant in "ab"
            for seed in (1, 2, 3)
            for group in ("lung", "kidney")
            for image in range(5)
        )
    )
    cells = cell_table(table)
    assert cells[["test_group", "variant"]].to_numpy().tolist() == [
        [group, variant] for group in ("lung", "kidney") for variant in "ab"
    ]
    for cell in cells.to_dict("records"):
        tp = wrong = 0
        for row in table.to_dict("records"):
            if (row["variant"], row["test_group"]) == (cell["variant"], cell["test_group"]):
                tp, wrong = tp + row["tp"], wrong + row["fp"] + row["fn"]
        assert cell["f1"] == pytest.approx(2 * tp / (2 * tp + wrong))


def test_an_image_without_nuclei_counts_for_nothing() -> None:
    empty = ("a", "lung", 1, "empty", 0, 0, 0, NAN)
    one, two = (
        cell_table(rows(("a", "lung", 1, "i", 8, 2, 2, 1.0), *more)).iloc[0] for more in ([], [empty])
    )
    assert two["images"] == 2
    for name in ("f1", "mean_image_f1", "distance_um"):
        assert two[name] == one[name]
    nothing = cell_table(rows(empty)).iloc[0]
    assert all(math.isnan(nothing[name]) for name in ("f1", "precision", "f1_low", "distance_um"))


def test_all_holds_images_of_one_name_apart() -> None:
    table = rows(("a", "lung", 1, "i", 8, 2, 2, 1.0), ("a", "kidney", 1, "i", 1, 1, 3, 1.0))
    cells = cell_table(with_all(table)).set_index("test_group")
    assert cells.index.tolist() == ["all", "lung", "kidney"]
    assert cells.loc["all", "images"] == 2
    assert cells.loc["all", "f1"] == pytest.approx(18 / 26)
    assert len(with_all(table.iloc[:1])) == 1  # of a single group nothing is added
    with pytest.raises(KaryonError, match="named 'all'"):
        with_all(table.replace("kidney", "all"))


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06 and 0.04, which may not be smaller.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, NAN, 0.6])) == pytest.approx([1.0, NAN, 1.0], nan_ok=True)
    assert len(holm(np.array([]))) == 0


def test_p_values_are_adjusted_within_a_test_group() -> None:
    hits = {("a", group): [90] * 8 for group in ORGANS}
    hits |= {(name, group): [80 + number for number in range(8)] for name in "bc" for group in ORGANS}
    tests = compare_variants(
        matrix_of(hits, "abc"), [(group, "a", other) for group in ORGANS[:2] for other in "bc"]
    )
    assert tests["p_value"].to_numpy() == pytest.approx(2 / 2001)
    assert tests["p_adjusted"].to_numpy() == pytest.approx(4 / 2001)
    first = tests.iloc[0]
    assert first["difference"] == pytest.approx(f1_of(range(80, 88)) - f1_of([90]))
    assert first["low"] < first["difference"] < first["high"] < 0
    assert (first["images"], first["patients"]) == (8, 8)


def single(*organs: str, series: str = "") -> list[tuple[str, str, str, str, float]]:
    return [(f"{series}-{organ}" if series else organ, organ, series, "", NAN) for organ in organs]


def findings(
    hits: dict[tuple[str, str], Sequence[int]], extra: Sequence[tuple[str, str, str, str, float]] = ()
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    study = variants(*single(*ORGANS), *extra)
    matrix = matrix_of(hits, study["variant"])
    matrices = find_matrices(study, ORGANS)
    assert list(matrices) == [""]
    cells = cell_table(matrix)
    tests = compare_variants(matrix, reference_pairs(study, matrices, ORGANS))
    groups = group_table(study, cells, tests)
    return groups.set_index("test_group"), tests, matrix_verdict(study, groups, cells, tests)


def test_a_diagonal_that_wins() -> None:
    better, worse = [90, 91, 92, 93, 94, 95], [80, 82, 83, 83, 85, 86]
    hits = {(train, test): better if train == test else worse for train in ORGANS for test in ORGANS}
    groups, tests, sentences = findings(hits)
    assert groups["wins"].all()
    assert groups["testable"].all()
    assert groups["not_worse"].tolist() == [[], [], []]
    assert groups["same_f1"].to_numpy() == pytest.approx(f1_of(better))
    assert groups["mean_different_f1"].to_numpy() == pytest.approx(f1_of(worse))
    assert len(tests) == 6
    assert "highest F1 of all single-group models on 3 of 3 test groups" in sentences[0]
    assert sentences[1].startswith("On 0 of the 3 test groups")


def test_a_diagonal_that_loses_and_one_that_ties() -> None:
    hits = {(train, test): [70, 72, 73, 75, 76, 77] for train in ORGANS for test in ORGANS}
    for organ in ORGANS:
        hits[organ, organ] = [80, 81, 82, 83, 84, 85]
    hits["lung", "kidney"] = [90, 91, 92, 93, 94, 95]  # for every patient better than kidney's own
    hits["kidney", "breast"] = [85, 84, 83, 82, 81, 80]  # as good as breast's own on the whole
    groups, _, sentences = findings(hits)
    assert groups["wins"].tolist() == [True, False, False]
    assert groups["not_worse"].tolist() == [[], ["lung"], ["kidney"]]
    assert groups["better"].tolist() == [[], ["lung"], []]
    assert groups["best_different"].tolist()[1:] == ["lung", "kidney"]
    words = " ".join(sentences)
    assert "on 1 of 3 test groups" in words
    assert "On 2 of the 3 test groups" in words
    assert "Significantly better than the own model: on kidney: lung." in words


def test_few_patients_prove_nothing() -> None:
    few = FEWEST_PATIENTS - 1
    hits = {
        (train, test): [90] * few if train == test else range(70, 70 + few)
        for train in ORGANS
        for test in ORGANS
    }
    groups, tests, sentences = findings(hits)
    assert (tests["p_adjusted"] < 0.05).all()  # what the bootstrap says
    assert not groups["testable"].any()
    assert groups["not_worse"].tolist() == [[], [], []]
    assert "too few for a test" in sentences[1]


def test_a_model_of_several_groups_is_neither_same_nor_different() -> None:
    hits = {(train, test): [80] * 6 if train == test else [70] * 6 for train in ORGANS for test in ORGANS}
    hits |= {("joint", test): [90] * 6 for test in ORGANS}
    hits |= {("shipped", test): [60] * 6 for test in ORGANS}
    extra = [("joint", "+".join(ORGANS), "", "", NAN), ("shipped", "", "", "", NAN)]
    groups, tests, sentences = findings(hits, extra)
    assert groups["different"].tolist() == [2, 2, 2]
    assert groups["wins"].all()
    assert len(tests) == 3 * 4
    joint, shipped = (next(text for text in sentences if text.startswith(name)) for name in ("joint", "ship"))
    assert "higher F1 than the own model on 3 of 3 test groups (significantly on 3)" in joint
    assert "significantly worse on 3" in shipped


def test_which_variants_are_a_matrix() -> None:
    plain = variants(("dice", "lung", "", "", NAN), ("focal", "lung", "", "", NAN))
    assert find_matrices(plain, ["lung"]) == {}
    assert find_matrices(variants(*single("lung")), ["lung"]) == {}
    two = variants(*single(*ORGANS, series="unet"), *single(*ORGANS, series="frcn"))
    assert [len(part) for part in find_matrices(two, ORGANS).values()] == [3, 3]
    assert list(find_matrices(two, ORGANS)) == ["unet", "frcn"]
    swept = variants(*((f"{organ}{x}", organ, organ, "share", x) for organ in ORGANS for x in (0.1, 1.0)))
    assert find_matrices(swept, ORGANS) == {}
    pairs = reference_pairs(swept, {}, ["lung"])
    assert {reference for _, reference, _ in pairs} == {"lung0.1"}
    assert len(pairs) == 5
    both = pd.concat([variants(*single(*ORGANS, series="base")), swept], ignore_index=True)
    pairs = reference_pairs(both, find_matrices(both, ORGANS), ["all", "kidney"])
    assert {(group, reference) for group, reference, _ in pairs} == {("kidney", "base-kidney")}
    assert len(pairs) == 2 + 6
    pairs = reference_pairs(two, find_matrices(two, ORGANS), ["lung"])
    assert [pair[1:] for pair in pairs] == [
        (f"{series}-lung", f"{series}-{other}") for series in ("unet", "frcn") for other in ORGANS[1:]
    ]


def test_a_test_group_without_a_model_has_others_only() -> None:
    study = variants(*single("lung", "kidney"))
    hits = {(train, test): [80] * 6 for train in ("lung", "kidney") for test in ORGANS}
    matrix = matrix_of(hits, study["variant"])
    tests = compare_variants(matrix, reference_pairs(study, find_matrices(study, ORGANS), ORGANS))
    row = group_table(study, cell_table(matrix), tests).set_index("test_group").loc["breast"]
    assert (row["same"], row["different"], row["wins"], row["testable"]) == ("", 2, False, False)
    assert math.isnan(row["same_f1"])


def test_what_is_said_of_a_sweep() -> None:
    study = variants(*((f"tuned-{x}", "kidney", "tuned", "share", x) for x in (0.1, 0.5, 1.0)))
    hits = {(f"tuned-{x}", group): [n] * 6 for x, n in ((0.1, 60), (0.5, 90), (1.0, 80)) for group in ORGANS}
    cells = cell_table(with_all(matrix_of(hits, study["variant"])))
    (text,) = sweep_verdict(cells, study, "share")
    assert text == (
        f"tuned, tested on kidney: from share 0.1 to 1, F1 goes from {f1_of([60]):.3f} to "
        f"{f1_of([80]):.3f}; it is highest, {f1_of([90]):.3f}, at 0.5."
    )


def test_what_is_said_of_a_comparison() -> None:
    study = variants(*((name, "lung", "", "", NAN) for name in ("first", "good", "bad", "like")))
    hits = {("first", "lung"): range(80, 86), ("good", "lung"): range(90, 96), ("bad", "lung"): [50] * 6}
    hits["like", "lung"] = list(range(85, 79, -1))
    matrix = matrix_of(hits, study["variant"], ["lung"])
    tests = compare_variants(matrix, reference_pairs(study, {}, ["lung"]))
    (best,) = comparison_verdict(cell_table(matrix), study)
    assert best.startswith("Tested on lung, good has the highest F1")
    (compared,) = reference_verdict(cell_table(matrix), study, tests)
    assert "compared with first, significantly better: good; significantly worse: bad (" in compared
    (few,) = reference_verdict(cell_table(matrix), study, tests.assign(patients=FEWEST_PATIENTS - 1))
    assert "too few for a test" in few
