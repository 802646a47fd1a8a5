"""Experiment files: what is written is read, every mistake is named, and the presets are sound."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from karyon.errors import KaryonError
from karyon.io.schemas import REPOSITORY
from karyon.training.augmentation import Augmentation
from karyon.training.experiment import Dataset, Experiment, Optimiser, Schedule, Start, read_experiment

FILES = sorted((REPOSITORY / "config" / "experiments").glob("*.yaml"))
PRESETS = [path for path in FILES if "study" not in yaml.safe_load(path.read_text())]
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "datasets": [
        {"sheet": "$KARYON_DATA/a.tsv", "train_splits": ["TD"], "validation_splits": ["VD"], "weight": 2},
        {"sheet": "/b.tsv", "train_splits": ["train"]},
    ],
    "mpp": 1,
    "input": "HE-C",
    "architecture": "unet",
    "arguments": {"width": 4, "depth": 2},
    "target": "proximity_map",
    "target_arguments": {"peak": 4},
    "loss": "weighted_mse",
    "decoding": "peaks",
    "steps": 30,
    "batch": 4,
    "crop_px": 32,
    "optimiser": {"name": "sgd", "learning_rate": 0.01},
    "schedule": {"name": "plateau", "factor": 0.5, "patience": 2},
    "validate_every": 10,
    "start": {"model": "switch_unet", "freeze": 2},
    "augmentation": {"scale": [0.5, 2]},
    "licence": "",
}


# What makes CONTENT an experiment of outlines and classes.
JOINT = {"target": "classes_contour", "target_arguments": None, "loss": "joint", "decoding": "dilation"}


def read(folder: Path, content: object) -> Experiment:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_experiment(path)


def changed(**changes: Any) -> dict[str, Any]:
    """The content with keys replaced; a dot reaches into a mapping, and ``None`` takes a key away."""
    content = copy.deepcopy(CONTENT)
    for key, value in changes.items():
        *outer, last = key.split("__")
        mapping = content
        for name in outer:
            mapping = mapping[name]
        if value is None:
            del mapping[last]
        else:
            mapping[last] = value
    return content


def test_file_is_read_with_defaults_for_what_it_leaves_out(tmp_path: Path) -> None:
    expected = Experiment(
        name="tiny",
        datasets=(
            Dataset("$KARYON_DATA/a.tsv", ("TD",), ("VD",), 2.0),
            Dataset("/b.tsv", ("train",), (), 1.0),
        ),
        mpp=1.0,
        input="HE-C",
        architecture="unet",
        arguments={"width": 4, "depth": 2},
        target="proximity_map",
        target_arguments={"peak": 4.0},
        loss="weighted_mse",
        decoding="peaks",
        steps=30,
        batch=4,
        crop_px=32,
        optimiser=Optimiser("sgd", 0.01, 0.0, 0.9),
        schedule=Schedule("plateau", factor=0.5, patience=2),
        validate_every=10,
        licence="",
        start=Start("switch_unet", 2),
        augmentation=Augmentation(scale=(0.5, 2.0)),
    )
    found = read(tmp_path, CONTENT)
    assert found == expected
    # 1 and 1.0 are one setting: a resumed run compares them as text.
    assert isinstance(found.mpp, float)


def test_output_peak_and_channels_follow_from_loss_target_and_input(tmp_path: Path) -> None:
    regression = read(tmp_path, CONTENT)
    assert (regression.output, regression.peak) == ("value", 4.0)
    assert regression.network_arguments == {"in_channels": 2, "out_channels": 1, "width": 4, "depth": 2}
    assert read(tmp_path, changed(target_arguments=None)).peak == 5.0  # the paper's factor
    masks = changed(target="shrunken_mask", target_arguments={"share": 0.3}, loss="dice", input="RGB")
    classification = read(tmp_path, masks)
    assert (classification.output, classification.peak) == ("probability", 1.0)
    assert classification.network_arguments["in_channels"] == 3
    assert (classification.maps, classification.finds_outlines) == (("centre",), False)
    classes = {"target": "inside_boundary", "loss": "patch_weighted", "decoding": "dilation"}
    outlines = read(tmp_path, changed(target_arguments=None, **classes))
    assert (outlines.output, outlines.maps) == ("softmax", ("inside", "boundary", "background"))
    assert outlines.network_arguments["out_channels"] == 3
    assert outlines.finds_outlines
    joint = {"target": "classes_contour", "loss": "joint", "decoding": "dilation"}
    named = read(tmp_path, changed(target_arguments=None, classes=["tumour", "stroma"], **joint))
    assert named.output == "softmax"
    assert named.maps == ("background", "inside:tumour", "inside:stroma", "contour")
    assert named.network_arguments["out_channels"] == 4
    assert read(tmp_path, changed(target_arguments=None, **joint)).maps == ("background", "inside", "contour")


def test_data_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset("$KARYON_DATA/kumar30/kumar30.tsv", ("TD",))
    monkeypatch.setenv("KARYON_DATA", "/big/disk")
    assert dataset.sheet_path() == Path("/big/disk/kumar30/kumar30.tsv")
    monkeypatch.delenv("KARYON_DATA")
    assert dataset.sheet_path() == Path("../shared/data/kumar30/kumar30.tsv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stpes": 3}, r"stpes is an unknown key \(did you mean 'steps'\?\)"),
        ({"optimiser__learing_rate": 0.1}, r"optimiser\.learing_rate is an unknown key .*'learning_rate'"),
        ({"steps": None}, "steps is missing; expected a whole number of at least 1"),
        ({"optimiser__learning_rate": None}, "optimiser.learning_rate is missing; expected a number greater"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number of at least 1"),
        ({"steps": True}, "steps is True; expected a whole number"),
        ({"mpp": 0}, "mpp is 0; expected a number greater than 0"),
        ({"mpp": float("nan")}, "mpp is nan; expected a number greater than 0"),
        ({"ema": 1.5}, "ema is 1.5; expected a number of at least 0 and at most 1"),
        (
            {"optimiser__learning_rate": "1e-3"},
            r"learning_rate is '1e-3'; .*YAML takes 1e-3 for text.*0\.001",
        ),
        ({"input": "H"}, "input is 'H'; expected one of H-C, HE-C, CN-H&E, RGB"),
        ({"schedule__name": "linear"}, r"schedule\.name is 'linear'; expected one of onecycle"),
        ({"optimiser": "adam"}, "optimiser is 'adam'; expected a mapping with the keys name, learning_rate"),
        ({"start": 5}, "start is 5; expected a mapping with the keys model, freeze, or null"),
        ({"start": {"freeze": 2}}, r"start\.model is missing"),
        ({"datasets": [{"sheet": "a"}]}, r"datasets\[0\]\.train_splits is missing; expected a list"),
        ({"datasets": {"sheet": "a"}}, "datasets is .*; expected a list, each a mapping with the keys sheet"),
        ({"augmentation__scale": [1]}, r"augmentation\.scale is \[1\]; expected a list of 2"),
        ({"augmentation__scale": [2, 1]}, "expected the smaller first"),
        ({"arguments": {"width": "4"}}, r"arguments\.width is '4'; expected a whole number"),
        ({"architecture": "unnet"}, r"architecture is an unknown name, 'unnet' \(did you mean 'unet'\?\)"),
        ({"target": "disc"}, "target is an unknown name, 'disc'"),
        ({"loss": "dise"}, r"loss is an unknown name, 'dise' \(did you mean 'dice'\?\)"),
        ({"arguments": {"widht": 4}}, r"arguments\.widht is an unknown key \(did you mean 'width'\?\)"),
        ({"arguments": {"in_channels": 4}}, r"arguments\.in_channels is an unknown key"),
        ({"arguments": {"out_channels": 4}}, r"arguments\.out_channels is an unknown key"),
        (
            {"decoding": "watershed"},
            "decoding is watershed, .* maps of the target proximity_map; expected components or peaks",
        ),
        ({"loss": "nucleus_distance"}, "which nucleus_distance does not take: outputs have shape"),
        ({"target_arguments": {"share": 0.25}}, r"target_arguments\.share is an unknown key"),
        (
            {"loss": "dice", "loss_arguments": {"tau": 1}},
            r"loss_arguments\.tau is an unknown key; dice takes none",
        ),
        (
            {"target_arguments": {"peak": -1}},
            r"target_arguments is .*which proximity_map does not take: peak",
        ),
        (
            {"loss": "switching", "loss_arguments": {"form": "rare"}},
            "loss_arguments is .*which switching does not take",
        ),
        (
            {"architecture": "gcn", "arguments": {"depth": 7}},
            "arguments is .*which gcn does not take: .*depth",
        ),
        ({"datasets": [{"sheet": "a", "train_splits": ["TD"]}]}, "none has validation_splits"),
        (
            {"decoding_of": "switch_unet", "schedule": {"name": "constant"}},
            "decoding_of and validation_splits: both choose the decoding",
        ),
        (
            {"decoding_of": "switch_unet", "datasets": [{"sheet": "a", "train_splits": ["TD"]}]},
            "patience and the schedule plateau need",
        ),
        (
            {"datasets": [{"sheet": "a", "train_splits": [], "validation_splits": ["VD"]}]},
            "none has train_splits",
        ),
        (
            {"datasets": [{"sheet": "a", "train_splits": ["x"], "validation_splits": ["x"]}]},
            r"datasets\[0\]: 'x' is in train_splits and in validation_splits",
        ),
        ({"classes": ["a"]}, "classes: the target proximity_map does not tell classes apart"),
        (JOINT | {"classes": ["a", "b", "a"]}, "classes are a, b, a; expected each once"),
        (JOINT | {"target_arguments": {"class_of": 1}}, r"target_arguments\.class_of is an unknown key"),
        (JOINT | {"loss": "bce"}, "which bce does not take: outputs have shape"),
        (
            JOINT | {"loss_arguments": {"vgg16_weights": "gone.pth"}},
            "which joint does not take: gone.pth: no such file of weights",
        ),
        ({"snapshot_every": 15}, "snapshot_every is 15; expected a multiple of validate_every, 10"),
        ({"encoder_weights": "vgg11.pth"}, "start and encoder_weights: both say what to start from"),
    ],
)
def test_mistake_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(KaryonError, match=message) as caught:
        read(tmp_path, changed(**changes))
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).startswith(str(tmp_path / "experiment.yaml"))


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(KaryonError) as caught:
        read(tmp_path, changed(steps=None, batch=0, colour="red", schedule__every="often"))
    named = {line.split(": ")[1].split(" is ")[0] for line in str(caught.value).splitlines()}
    assert named == {"steps", "batch", "colour", "schedule.every"}


@pytest.mark.parametrize(
    "text", ["- a\n", "", "name: [\n", "\x00"], ids=["list", "empty", "no yaml", "binary"]
)
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    with pytest.raises(KaryonError, match=r"experiment\.yaml: (the whole is|cannot be read)"):
        read_experiment(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KaryonError, match=r"gone\.yaml: cannot be read"):
        read_experiment(tmp_path / "gone.yaml")


def test_presets_are_those_that_are_promised() -> None:
    promised = {"switch_unet", "switch_segnet", "switch_vgg_unet", "switch_gcn", "micronet", "karyon_default"}
    promised |= {"joint", "karyon_outline", "nb", "nb_fine_tuned", "outlines_unet", "outlines_fcn8s"}
    assert promised <= {path.stem for path in PRESETS}


# Reading a preset also builds its network, its target and its loss.
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_has_no_mistakes_and_is_named_as_its_file(path: Path) -> None:
    experiment = read_experiment(path)
    assert experiment.name == path.stem
    assert f"karyon train config/experiments/{path.name} " in path.read_text(encoding="utf-8")
    assert (experiment.decoding == "peaks") == (experiment.target == "proximity_map")
