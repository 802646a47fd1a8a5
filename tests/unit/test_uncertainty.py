"""Bootstrap intervals against scipy, closed forms and complete enumeration."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from karyon.evaluation import uncertainty
from karyon.evaluation.uncertainty import bootstrap, compare

F1 = {"f1": lambda t: 2 * t.tp / (2 * t.tp + t.fp + t.fn)}
RECALL = {"recall": lambda t: t.tp / (t.tp + t.fn)}
MEAN = {"x": lambda t: t.x}
BOTH = ["micro", "macro"]


def table(patients: list[str] | str = "", **columns: list[float] | np.ndarray) -> pd.DataFrame:
    number = len(next(iter(columns.values())))
    index = [f"image{row:04d}" for row in range(number)]
    return pd.DataFrame({"patient": patients, **columns}, index=index)


def row(frame: pd.DataFrame, average: str) -> pd.Series:
    return frame[frame["average"] == average].iloc[0]


def random_counts(seed: int, images: int, patients: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = [f"p{n}" if n else "" for n in rng.integers(0, patients, images)]
    return table(names, **{name: rng.integers(0, 40, images) for name in ("tp", "fp", "fn")})


# ---- One model


def test_mean_of_ungrouped_images_has_the_interval_of_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, 80)
    ours = row(bootstrap(table(x=values), MEAN, n_bootstrap=20_000), "macro")
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours["value"] == pytest.approx(values.mean())
    # A percentile's Monte-Carlo error here is sqrt(0.025 * 0.975 / 20,000) / density: 0.02 standard errors.
    allowed = 0.1 * values.std() / math.sqrt(len(values))
    assert (ours["low"], ours["high"]) == pytest.approx(tuple(theirs), abs=allowed)


def test_ratio_of_sums_has_the_interval_of_scipy() -> None:
    counts = random_counts(3, 60, 1)

    def pooled(tp: np.ndarray, fn: np.ndarray, axis: int) -> np.ndarray:
        return tp.sum(axis=axis) / (tp.sum(axis=axis) + fn.sum(axis=axis))

    theirs = stats.bootstrap(
        (counts["tp"].to_numpy(), counts["fn"].to_numpy()),
        pooled,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(4),
    )
    ours = row(bootstrap(counts, RECALL, n_bootstrap=20_000), "micro")
    bounds = tuple(theirs.confidence_interval)
    assert (ours["low"], ours["high"]) == pytest.approx(bounds, abs=0.1 * theirs.standard_error)


@pytest.mark.parametrize("average", BOTH)
def test_patients_are_drawn_whole(average: str) -> None:
    # Three patients of 1, 2 and 3 images: 27 equally likely draws, so the exact percentiles can be listed.
    counts = table(["a", "b", "c", "b", "c", "c"], tp=[9, 4, 1, 2, 0, 3], fn=[1, 6, 1, 3, 8, 2])
    of_patient = dict(list(counts.groupby("patient")))
    outcomes = []
    for names in itertools.product("abc", repeat=3):
        drawn = pd.concat([of_patient[name] for name in names])
        if average == "micro":
            outcomes.append(drawn["tp"].sum() / (drawn["tp"].sum() + drawn["fn"].sum()))
        else:
            outcomes.append((drawn["tp"] / (drawn["tp"] + drawn["fn"])).mean())
    # The outermost outcome, 1 of 27, is more than 2.5 % and so both percentiles are outermost outcomes.
    result = row(bootstrap(counts, RECALL), average)
    assert (result["low"], result["high"]) == pytest.approx((min(outcomes), max(outcomes)))
    assert result["patients"] == 3


def test_micro_adds_the_counts_and_macro_averages_the_images() -> None:
    # Recalls 9/10, 0/2 and one that is undefined: together 9/12, on average (0.9 + 0) / 2.
    result = bootstrap(table(tp=[9, 0, 0], fn=[1, 2, 0]), RECALL)
    assert result[["figure", "average"]].values.tolist() == [["recall", "micro"], ["recall", "macro"]]
    assert result["value"].tolist() == pytest.approx([9 / 12, 0.45])
    assert result["images"].tolist() == [3, 2]
    assert result["patients"].tolist() == [3, 3]


def test_images_of_one_patient_tell_less_than_as_many_patients() -> None:
    # Ten images that repeat their patient's value: sqrt(10) times the standard error of single images.
    values = np.repeat(np.random.default_rng(5).normal(0, 1, 40), 10)
    patients = [f"p{n // 10}" for n in range(400)]
    alone = row(bootstrap(table(x=values), MEAN), "macro")
    grouped = row(bootstrap(table(patients, x=values), MEAN), "macro")
    widths = [result["high"] - result["low"] for result in (grouped, alone)]
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(10), rel=0.1)


def test_a_single_patient_has_no_interval() -> None:
    result = bootstrap(table("p", tp=[9, 4], fn=[1, 2]), RECALL)
    assert result["value"].notna().all()
    assert result[["low", "high"]].isna().all(axis=None)
    assert result["patients"].tolist() == [1, 1]


def test_a_figure_that_nothing_defines_is_nan_throughout() -> None:
    result = bootstrap(table(tp=[0, 0], fn=[0, 0]), RECALL)
    assert result[["value", "low", "high"]].isna().all(axis=None)
    assert row(result, "macro")["images"] == 0


def test_resamples_without_a_defined_image_are_left_out() -> None:
    # Only two draws of four hold a defined image alone or twice; whatever is defined is 0.5.
    result = bootstrap(table(tp=[1, 0], fn=[1, 0]), RECALL)
    assert result[["value", "low", "high"]].to_numpy().tolist() == [[0.5, 0.5, 0.5]] * 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), patients=st.integers(1, 30))
def test_the_order_of_the_rows_changes_not_a_bit(seed: int, patients: int) -> None:
    counts = random_counts(seed, 40, patients)
    shuffled = counts.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(
        bootstrap(counts, F1, 200, seed), bootstrap(shuffled, F1, 200, seed), check_exact=True
    )


@pytest.mark.parametrize("factor", [0.25, 1024.0])
def test_scaling_the_values_scales_the_interval(factor: float) -> None:
    values = np.random.default_rng(6).normal(3, 1, 30)
    one, other = bootstrap(table(x=values), MEAN), bootstrap(table(x=factor * values), MEAN)
    bounds = ["value", "low", "high"]
    np.testing.assert_allclose(other[bounds], factor * one[bounds], rtol=1e-12)


def test_equal_images_leave_no_doubt() -> None:
    result = bootstrap(table(tp=[3] * 9, fp=[2] * 9, fn=[1] * 9), F1)
    np.testing.assert_allclose(result[["value", "low", "high"]], 6 / 9, rtol=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    counts = random_counts(7, 50, 20)
    one, same, other = (bootstrap(counts, F1, 500, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same, check_exact=True)
    assert (one["low"] != other["low"]).all()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = random_counts(8, 50, 20)
    whole = bootstrap(counts, F1, 100)
    monkeypatch.setattr(uncertainty, "BLOCK_WEIGHTS", 7 * 50)
    pd.testing.assert_frame_equal(whole, bootstrap(counts, F1, 100), rtol=1e-12)


def test_memory_does_not_grow_with_the_number_of_resamples() -> None:
    counts = random_counts(9, 5000, 1)
    tracemalloc.start()
    bootstrap(counts, F1, 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # all weights at once are 80 MB, and as much again as floats


def test_an_image_named_like_a_patient_is_not_of_that_patient() -> None:
    counts = table(["image0001", "", "image0001"], x=[1.0, 2.0, 3.0])
    assert bootstrap(counts, MEAN)["patients"].tolist() == [2, 2]


def test_a_missing_patient_is_one_of_its_own() -> None:
    counts = table([None, math.nan, "p", "p"], x=[1.0, 2.0, 3.0, 4.0])  # type: ignore[list-item]
    assert bootstrap(counts, MEAN)["patients"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (table(tp=[1]).drop(columns="patient"), "expected a row per image, 'patient' and"),
        (table(tp=[1]).drop(columns="tp"), "expected a row per image, 'patient' and"),
        (table(tp=[1]).iloc[:0], "the table of counts has 0 rows"),
        (table(tp=[1, math.nan]), "'tp' of image 'image0001' is .*nan.*; expected a finite number"),
        (table(tp=[math.inf, 1.0]), "'tp' of image 'image0000' is .*inf"),
        (table(tp=["many"]), "'tp' of image 'image0000' is 'many'"),  # type: ignore[list-item]
        (pd.concat([table(tp=[1])] * 2), "image 'image0000' has several rows"),
    ],
)
def test_a_table_that_cannot_be_added_up_is_refused(counts: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(counts, {"tp": lambda t: t.tp})


def test_a_figure_that_is_not_by_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"figure 'sum' gave shape \(\); expected one number per row"):
        bootstrap(table(tp=[1, 2]), {"sum": lambda t: t.tp.sum()})


# ---- Two models


def test_pairing_takes_away_what_the_images_have_in_common() -> None:
    rng = np.random.default_rng(10)
    common, noise = rng.normal(0, 10, 60), rng.normal(0, 0.1, 60)
    one, other = table(x=common + noise + 0.2), table(x=common)
    paired = row(compare(one, other, MEAN), "macro")
    alone = row(bootstrap(one, MEAN), "macro")
    assert paired["high"] - paired["low"] < 0.02 * (alone["high"] - alone["low"])
    # What is left is the interval of the differences themselves.
    expected = row(bootstrap(table(x=noise + 0.2), MEAN), "macro")
    assert paired[["difference", "low", "high"]].tolist() == pytest.approx(
        expected[["value", "low", "high"]].tolist()
    )
    assert paired["p_value"] == pytest.approx(2 / 2001)  # no resample reaches 0


def test_the_difference_is_that_of_the_two_figures() -> None:
    one, other = random_counts(11, 40, 1), random_counts(12, 40, 1)
    expected = bootstrap(one, F1)["value"] - bootstrap(other, F1)["value"]
    np.testing.assert_allclose(compare(one, other, F1)["difference"], expected, rtol=1e-12)


def test_exchanging_the_models_changes_the_sign_alone() -> None:
    one, other = random_counts(13, 40, 1), random_counts(14, 40, 1)
    there, back = compare(one, other, F1), compare(other, one, F1)
    np.testing.assert_allclose(there["difference"], -back["difference"])
    np.testing.assert_allclose(there["low"], -back["high"])
    np.testing.assert_array_equal(there["p_value"], back["p_value"])


def test_a_model_does_not_differ_from_itself() -> None:
    counts = random_counts(15, 30, 8)
    result = compare(counts, counts.sample(frac=1, random_state=0), F1)
    assert result[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]] * 2
    assert result["p_value"].tolist() == [1, 1]


def test_p_value_is_that_of_the_listed_resamples() -> None:
    # Differences 1, 1, 1 and -2: of the 256 equally likely draws of four, those with a sum of 0 or less hold
    # -2 twice or more (67), and none sums to 0 but with another -2; so the exact tail is 67 / 256.
    one, other = table(x=[1.0, 1.0, 1.0, 0.0]), table(x=[0.0, 0.0, 0.0, 2.0])
    sums = [sum(draw) for draw in itertools.product([1, 1, 1, -2], repeat=4)]
    tail = sum(total <= 0 for total in sums) / len(sums)
    result = row(compare(one, other, MEAN, n_bootstrap=20_000), "macro")
    assert result["p_value"] == pytest.approx(2 * tail, abs=0.03)  # 4 standard errors


def test_differences_by_rounding_alone_are_ties() -> None:
    # 0.1 + 0.2 + 0.3 depends on the order in its last bit; the true difference of every draw is 0.
    one, other = table("p", x=[0.1, 0.2, 0.3]), table("p", x=[0.3, 0.2, 0.1])
    pair = [pd.concat([part, table("q", x=[0.0]).rename(index={"image0000": "q"})]) for part in (one, other)]
    assert compare(pair[0], pair[1], MEAN)["p_value"].tolist() == [1, 1]


def test_p_values_of_equal_models_are_uniform() -> None:
    rng = np.random.default_rng(16)
    found = [
        row(compare(table(x=rng.normal(0, 1, 60)), table(x=rng.normal(0, 1, 60)), MEAN, 400), "macro")[
            "p_value"
        ]
        for _ in range(200)
    ]
    # The bootstrap of 60 images is a little too narrow, by about 1 / 120 of its width.
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_a_single_patient_has_no_p_value() -> None:
    result = compare(table("p", x=[1.0, 2.0]), table("p", x=[0.0, 2.5]), MEAN)
    assert result["difference"].tolist() == [0.5, 0.25]
    assert result[["low", "high", "p_value"]].isna().all(axis=None)


def test_different_images_are_refused_by_name() -> None:
    one, other = table(x=[1.0, 2.0]), table(x=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="1 images are only in the second table: image0002"):
        compare(one, other, MEAN)
    with pytest.raises(ValueError, match="1 images are only in the first table: image0002"):
        compare(other, one, MEAN)


def test_different_columns_and_patients_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="1 columns are only in the first table: y"):
        compare(table(x=[1.0], y=[1.0]), table(x=[1.0]), MEAN)
    with pytest.raises(ValueError, match="image 'image0001' belongs to different patients"):
        compare(table(["a", "b"], x=[1.0, 2.0]), table(["a", "a"], x=[1.0, 2.0]), MEAN)
