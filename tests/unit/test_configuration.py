import copy
import json

import pytest

from karyon.cohort.configuration import complete_config
from karyon.errors import SheetError

MINIMAL = {"cohort": "mine", "sheet": "mine.tsv"}


def message(config: object) -> str:
    with pytest.raises(SheetError) as caught:
        complete_config(config, source="mine.yaml")
    return str(caught.value)


def test_defaults_fill_what_is_not_given_at_every_depth():
    complete = complete_config(MINIMAL | {"tissue": {"mpp": 4}, "evaluate": {"radii_um": [2]}})
    assert complete == {
        "cohort": "mine",
        "sheet": "mine.tsv",
        "model": "karyon_default",
        "shard_size": 64,
        "jobs_per_shard": 1,
        "retries": 1,
        "missing_slides": "error",
        "max_failed_fraction": 0.05,
        "keep_maps": True,
        "tissue": {"method": "otsu", "mpp": 4.0, "min_area_um2": 2000.0},
        "stain": {"channel": "hematoxylin", "sample_pixels": 200000},
        "infer": {"tile_px": 640, "batch_size": 4, "cpu_bfloat16": False},
        "stitch": {"assembly": "halo"},
        "nuclei": {"threshold": None, "csv": False, "geojson": False, "mask": False},
        "evaluate": {"radii_um": [2.0], "geojson": False},
        "report": {"overlays": 12},
    }


def test_equal_settings_complete_to_the_same_text_however_they_were_written():
    one = complete_config({"report": {"overlays": 3.0}, "evaluate": {"radii_um": [4, 2]}, **MINIMAL})
    other = complete_config(MINIMAL | {"evaluate": {"radii_um": [4.0, 2.0]}, "report": {"overlays": 3}})
    assert json.dumps(one) == json.dumps(other)


def test_the_result_shares_nothing_with_the_input_or_the_next_result():
    config = MINIMAL | {"nuclei": {"csv": True}}
    before = copy.deepcopy(config)
    complete = complete_config(config)
    complete["nuclei"]["csv"] = False
    complete["evaluate"]["radii_um"].append(9.0)
    assert config == before
    assert complete_config(config)["evaluate"]["radii_um"] == [4.0, 3.0, 2.0]


def test_a_complete_configuration_stays_as_it_is():
    complete = complete_config(MINIMAL)
    assert complete_config(complete) == complete


SAFE_NAME = (
    "a safe file name: at most 200 letters, digits, '.', '_' and '-', a letter or digit first, no '..'"
)
SECTIONS = (
    "cohort, sheet, model, shard_size, jobs_per_shard, retries, missing_slides, max_failed_fraction, "
    "keep_maps, tissue, stain, infer, stitch, nuclei, evaluate, report"
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"cohort": "../up"},
            f"cohort is '../up'; expected {SAFE_NAME}.",
        ),
        (
            {"cohort": "mine\n"},
            rf"cohort is 'mine\n'; expected {SAFE_NAME}.",
        ),
        ({"sheet": ""}, "sheet is ''; expected text, not empty."),
        ({"shard_size": 0}, "shard_size is 0; expected a whole number of at least 1."),
        ({"shard_size": True}, "shard_size is True; expected a whole number of at least 1."),
        ({"retries": "1"}, "retries is '1'; expected a whole number of at least 0."),
        ({"max_failed_fraction": 5}, "max_failed_fraction is 5; expected a number from 0 to 1."),
        ({"tissue": None}, "tissue is None; expected a mapping with the keys method, mpp, min_area_um2."),
        ({"tissue": {"method": "otsuu"}}, "tissue.method is 'otsuu'; expected one of otsu, white_share."),
        ({"tissue": {"mpp": float("nan")}}, "tissue.mpp is nan; expected a number from 1 to 32."),
        (
            {"tissue": {"min_area_um2": float("inf")}},
            "tissue.min_area_um2 is inf; expected a number of at least 0.",
        ),
        (
            {"tissue": {"metod": "otsu"}},
            "tissue.metod is an unknown key (did you mean 'method'?); expected one of method, mpp, "
            "min_area_um2.",
        ),
        (
            {"stain": {"sample_pixels": 99_999}},
            "stain.sample_pixels is 99999; expected a whole number of at least 100000.",
        ),
        (
            {"infer": {"tile_px": 500}},
            "infer.tile_px is 500; expected a whole number of at least 32, divisible by 32.",
        ),
        (
            {"infer": {"tile_px": float("inf")}},
            "infer.tile_px is inf; expected a whole number of at least 32, divisible by 32.",
        ),
        (
            {"nuclei": {"threshold": "0.5"}},
            "nuclei.threshold is '0.5'; expected a number from 0 to 1, or null.",
        ),
        ({"nuclei": {"csv": "yes"}}, "nuclei.csv is 'yes'; expected true or false."),
        (
            {"evaluate": {"radii_um": []}},
            "evaluate.radii_um is []; expected a list of at least 1, without repeats, each a number "
            "greater than 0.",
        ),
        (
            {"evaluate": {"radii_um": [4, 4.0]}},
            "evaluate.radii_um is [4, 4.0]; expected a list of at least 1, without repeats, each a number "
            "greater than 0.",
        ),
        (
            {"evaluate": {"radii_um": [4, -1]}},
            "evaluate.radii_um[1] is -1; expected a number greater than 0.",
        ),
        ({"stich": {}}, f"stich is an unknown key (did you mean 'stitch'?); expected one of {SECTIONS}."),
        (
            {"threshold": 0.5},
            f"threshold is an unknown key (did you mean 'nuclei.threshold'?); expected one of {SECTIONS}.",
        ),
        (
            {"tissue": {"retries": 2}},
            "tissue.retries is an unknown key (did you mean 'retries' at the top level?); expected one of "
            "method, mpp, min_area_um2.",
        ),
        ({7: 1}, f"7 is an unknown key; expected one of {SECTIONS}."),
    ],
)
def test_a_mistake_is_told_with_its_key_value_and_what_is_allowed(change, expected):
    assert message(MINIMAL | change) == f"mine.yaml: {expected}"


def test_all_mistakes_are_told_at_once():
    config = {"cohort": 3, "extra": 1, "another": 2, "nuclei": {"csv": 1, "treshold": 0.5}}
    keys = [line.split(" ")[1] for line in message(config).split("\n")]
    assert sorted(keys) == ["another", "cohort", "extra", "nuclei.csv", "nuclei.treshold", "sheet"]


@pytest.mark.parametrize("config", [None, [], "text"])
def test_a_configuration_that_is_no_mapping_is_refused(config):
    assert (
        message(config) == f"mine.yaml: the whole is {config!r}; expected a mapping with the keys {SECTIONS}."
    )
