"""Studies: cases from variants, experiments on disk, mistakes by name, and plans that are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from study_files import study, write_images

from karyon.errors import KaryonError
from karyon.io.schemas import REPOSITORY
from karyon.study.plan import plan_study
from karyon.study.planned import PlannedRun, read_planned
from karyon.training.experiment import Experiment, read_experiment

STUDIES = [
    path
    for path in sorted((REPOSITORY / "config" / "experiments").glob("*.yaml"))
    if "study" in yaml.safe_load(path.read_text())
]
PLAN = Path("results", "studies", "tiny", "plan")


@pytest.fixture
def sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three organs, in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    return write_images(tmp_path, {"lung": 20, "liver": 6, "gut": 4})


def planned(folder: Path, sheet: Path, **changes: Any) -> list[PlannedRun]:
    return list(plan_study(study(folder, sheet, **changes)).runs)


def experiment_of(run: PlannedRun) -> Experiment:
    return read_experiment(PLAN / run.run / "experiment.yaml")


def images_of(run: PlannedRun, part: str, split: str) -> set[str]:
    table = pd.read_csv(PLAN / run.run / f"{part}.tsv", sep="\t", dtype=str)
    return set(table.loc[table["split"] == split, "slide_id"])


def test_each_group_is_learnt_from_with_every_seed(sheet: Path, tmp_path: Path) -> None:
    runs = planned(tmp_path, sheet)
    assert [run.run for run in runs] == [
        f"unet-{g}-{seed}" for seed in (1, 2) for g in ("lung", "liver", "gut")
    ]
    assert [run.train_groups for run in runs] == ["lung", "liver", "gut"] * 2
    experiment = experiment_of(runs[1])
    assert (experiment.steps, experiment.seed, experiment.loss_arguments) == (3, 1, {"weight": 0.7})
    assert images_of(runs[1], "target", "train") == images_of(runs[4], "target", "train")
    assert len(images_of(runs[1], "target", "train")) == 2
    assert len(images_of(runs[1], "target", "validation")) == 1
    assert read_planned(PLAN.parent).groups == ("lung", "liver", "gut")
    assert len(pd.read_csv(PLAN / "test" / "lung.tsv", sep="\t")) == 10


def test_a_sweep_is_a_list(sheet: Path, tmp_path: Path) -> None:
    sweep = {"target_share": [0.1, 1.0], "loss_arguments.tau": [0.1, 0.2]}
    runs = planned(tmp_path, sheet, variants={"v": {"target": ["lung"], "sweep": sweep}}, seeds=[3])
    assert [run.run for run in runs] == ["v-0.1-0.1-3", "v-0.1-0.2-3", "v-1.0-0.1-3", "v-1.0-0.2-3"]
    assert [(run.series, run.x_name, run.x) for run in runs[1:3]] == [
        ("v, 0.1", "loss_arguments.tau", 0.2),
        ("v, 1.0", "loss_arguments.tau", 0.1),
    ]
    assert experiment_of(runs[1]).loss_arguments == {"weight": 0.7, "tau": 0.2}
    assert [len(images_of(run, "target", "train")) for run in runs] == [1, 1, 8, 8]


def test_auxiliary_images_are_mixed_in_by_number_or_by_weight(sheet: Path, tmp_path: Path) -> None:
    mixed = {"target": ["liver"], "auxiliary": ["others"]}
    variants = {
        "mixed": mixed,
        "weighted": {**mixed, "gamma": 3.0},
        "part": {**mixed, "auxiliary_share": 0.5},
    }
    runs = planned(tmp_path, sheet, variants=variants, seeds=[1])
    weights = [[dataset.weight for dataset in experiment_of(run).datasets] for run in runs]
    # 2 of liver train, 8 of lung and 1 of gut.
    assert weights == [[2.0, 9.0], [3.0, 1.0], [2.0, 5.0]]
    assert runs[0].train_groups == "liver+lung+gut"
    assert {name.rstrip("0123456789") for name in images_of(runs[0], "auxiliary", "train")} == {"lung", "gut"}


def test_fine_tuning_waits_for_the_run_of_its_seed(sheet: Path, tmp_path: Path) -> None:
    variants = {
        "base": {"target": ["lung"], "settings": {"snapshot_every": 3}},
        "tuned": {"target": ["gut"], "start": "base", "freeze": 1},
        "early": {"target": ["gut"], "start": "base", "start_step": 3},
        "shipped": {"model": "micronet"},
        "micronet": {"model": "micronet"},
        "own": {"target": ["gut"], "start": "micronet"},
    }
    runs = {run.run: run for run in planned(tmp_path, sheet, variants=variants)}
    assert [run for run in runs if run.startswith("shipped")] == ["shipped"]  # it has no seed
    own = experiment_of(runs["own-1"]).start
    assert own is not None
    assert (own.model, runs["own-1"].parent) == ("micronet", "")  # the model, not the variant of its name
    assert (runs["tuned-2"].parent, runs["early-1"].parent, runs["base-1"].parent) == ("base-2", "base-1", "")
    start = experiment_of(runs["tuned-2"]).start
    assert start is not None
    assert (start.model, start.freeze) == ("results/studies/tiny/models/base-2", 1)
    early = experiment_of(runs["early-1"]).start
    assert early is not None
    assert early.model == "results/studies/tiny/runs/base-1/snapshots/3"
    assert (runs["shipped"].trains, runs["shipped"].model, runs["shipped"].train_groups) == (
        False,
        "micronet",
        "",
    )


def test_a_plan_is_written_again_only_where_it_changed(sheet: Path, tmp_path: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in PLAN.rglob("*") if path.is_file()}

    planned(tmp_path, sheet)
    before = times()
    planned(tmp_path, sheet)
    assert times() == before
    with_kidney = write_images(tmp_path, {"lung": 20, "liver": 6, "gut": 4, "kidney": 3})
    facts = [path for path in tmp_path.glob("*.png") if not path.name.startswith("kidney")]
    for path in facts:  # the test wrote them anew; a new organ leaves the others' files alone
        path.touch()
    planned(tmp_path, with_kidney)
    new = {path.parts[4] for path in times().keys() - before.keys()}
    assert new == {"test", "unet-kidney-1", "unet-kidney-2"}


def test_a_file_that_changed_is_another_training(sheet: Path, tmp_path: Path) -> None:
    runs = planned(tmp_path, sheet)
    before = [experiment_of(run).datasets[0].fingerprint for run in runs]
    for image in images_of(runs[1], "target", "train"):
        (tmp_path / f"{image}.csv").write_text("x,y\n3,3\n4,4\n")
    planned(tmp_path, sheet)
    after = [experiment_of(run).datasets[0].fingerprint for run in runs]
    assert [one != other for one, other in zip(before, after, strict=True)] == [False, True, False] * 2


def test_mistakes_of_all_variants_are_named_at_once(sheet: Path, tmp_path: Path) -> None:
    variants = {
        "one": {"settings": {"los": "dice"}},
        "two": {"target": ["lungs"]},
        "three": {"sweep": {"loss_arguments.tua": [0.1]}},
        "four": {"start": "nobody"},
    }
    with pytest.raises(KaryonError) as error:
        planned(tmp_path, sheet, variants=variants, test_groups=["gut", "skin"])
    text = str(error.value)
    assert "config: study.variants.one: the experiment: los is an unknown key (did you mean 'loss'?)" in text
    assert "study.variants.two: groups: there is no group 'lungs' (did you mean 'lung'?)" in text
    assert "loss_arguments.tua is an unknown key (did you mean 'tau'?)" in text
    assert "study.variants.four: model 'nobody': neither a folder" in text
    assert "study.test_groups: there is no group 'skin'; there are lung, liver, gut" in text


def test_what_the_types_do_not_say_is_told(sheet: Path, tmp_path: Path) -> None:
    variants = {"a": {"model": "micronet", "start": "b"}, "b": {"target": ["each", "lung"]}}
    with pytest.raises(KaryonError) as error:
        planned(tmp_path, sheet, variants=variants, seeds=[])
    lines = str(error.value).splitlines()
    assert lines == [
        "config: study.seeds is empty; expected at least one.",
        "config: study.variants.a: model is scored as it is; leave out start, sweep and settings.",
        "config: study.variants.b.target: 'each' and 'all' stand alone.",
    ]
    with pytest.raises(KaryonError, match=r"study\.variants\.a\.frezee is an unknown key"):
        planned(tmp_path, sheet, variants={"a": {"frezee": 1}})


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_that_come_with_karyon_are_planned(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_file: Callable[[str], Path]
) -> None:
    content = yaml.safe_load(path.read_text())["study"]
    content["base"] = str(REPOSITORY / content["base"])
    monkeypatch.setenv("KARYON_DATA", str(real_file("README.md").resolve().parent))
    monkeypatch.chdir(tmp_path)
    assert plan_study(content, str(path)).runs
