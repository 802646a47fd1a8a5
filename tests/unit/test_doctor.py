"""`karyon doctor`: what it finds well and ill, and its exit status."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from karyon.cli.main import main
from karyon.cohort.configuration import complete_config
from karyon.cohort.forecast import forecast_of
from karyon.cohort.machine import FAIL, OK, WARN, check_machine
from karyon.cohort.slurm import COMMANDS, check_slurm, read_profile
from karyon.errors import KaryonError
from karyon.io.schemas import REPOSITORY
from karyon.models.card import model_folder

PROFILE = {"executor": "slurm", "default-resources": {"slurm_partition": "cpu"}}
GPU_PROFILE = {**PROFILE, "set-resources": {"infer": {"slurm_partition": "gpu"}}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a sheet of one slide."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "docs" / "images" / "overlay.jpg", tmp_path / "a.jpg")
    (tmp_path / "sheet.tsv").write_text("slide_id\tpath\tmpp\na\ta.jpg\t0.5\n")
    return tmp_path


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Commands of SLURM's names on the PATH, of which sinfo does as told."""

    def install(sinfo: str) -> None:
        for command in COMMANDS:
            program = tmp_path / "bin" / command
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{sinfo if command == 'sinfo' else ''}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    return install


def states(checks: object) -> dict[str, str]:
    return {check.name: check.state for check in checks}  # type: ignore[attr-defined]


def test_a_machine_that_is_well_passes_and_nothing_is_left_behind(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "sheet.tsv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {re.split(r"  +", line)[1].split(" ")[0]: line.split()[0] for line in lines}
    assert {found[name] for name in ("OpenSlide", "model", "writing", "disk", "lock")} == {OK}
    assert not list((folder / "results").iterdir())


def test_too_little_disk_fails_and_says_what_to_do(folder: Path) -> None:
    config = complete_config({"cohort": "my", "sheet": "sheet.tsv"})
    cost = forecast_of(config, gpu=False, at_once=1)
    free = shutil.disk_usage(folder).free / 1e9
    for share, state in ((0.5, OK), (0.8, WARN), (1.2, FAIL)):
        large = replace(cost, gigabytes={"maps": share * free, "rest": 0.0}, temporary_gb=0.0)
        checks = check_machine(Path("results"), "switch_unet", large, cluster=True)
        disk = next(check for check in checks if check.name == "disk")
        assert disk.state == state
        assert ("keep_maps: false" in disk.text) == (state != OK)


def test_damaged_weights_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(model_folder("switch_unet"), folder / "model")
    with (folder / "model" / "model.safetensors").open("ab") as stream:
        stream.write(b"more")
    (folder / "my.yaml").write_text(yaml.safe_dump({"cohort": "my", "sheet": "sheet.tsv", "model": "model"}))
    assert main(["doctor", "my.yaml"]) == 1
    assert re.search(r"^fail +model +.*sha256 is .*restore the file", capsys.readouterr().out, re.MULTILINE)


def test_results_that_cannot_be_written_fail(folder: Path) -> None:
    (folder / "file").write_text("no folder")
    checks = states(check_machine(folder / "file", "switch_unet", None, cluster=True))
    assert checks["writing"] == FAIL
    assert "disk" not in checks


def test_a_lock_is_told(folder: Path) -> None:
    (folder / ".snakemake" / "locks").mkdir(parents=True)
    (folder / ".snakemake" / "locks" / "0.input.lock").write_text("")
    assert states(check_machine(Path("results"), "switch_unet", None, cluster=True))["lock"] == WARN


def test_slurm_with_the_profiles_partitions_is_well(folder: Path, slurm: Callable[[str], None]) -> None:
    slurm("echo 'cpu (null)'; echo 'gpu gpu:h200:2'; echo 'gpu (null)'; echo 'other (null)'")
    assert set(states(check_slurm(GPU_PROFILE)).values()) == {OK}


def test_a_partition_that_slurm_does_not_have_fails_and_those_there_are_are_listed(
    folder: Path, slurm: Callable[[str], None]
) -> None:
    slurm("echo 'cpu (null)'; echo 'long (null)'")
    checks = {check.name: check for check in check_slurm(GPU_PROFILE)}
    assert (checks["partitions"].state, checks["GPU partitions"].state) == (FAIL, WARN)
    assert checks["partitions"].text.startswith("gpu named in the profile, but there are cpu, long")


def test_partitions_may_stand_in_a_file_of_their_own(folder: Path, slurm: Callable[[str], None]) -> None:
    slurm("echo 'gpu gpu:2'")
    (folder / "partitions.yaml").write_text(yaml.safe_dump({"partitions": {"gpu": {"max_gpu": 2}}}))
    checks = states(check_slurm({"executor": "slurm", "slurm-partition-config": "partitions.yaml"}))
    assert set(checks.values()) == {OK}


def test_slurm_that_does_not_answer_fails_with_its_words(folder: Path, slurm: Callable[[str], None]) -> None:
    slurm("echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1")
    (check,) = check_slurm(PROFILE)
    assert check.state == FAIL
    assert "Unable to contact slurm controller" in check.text


def test_a_machine_without_slurm_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = check_slurm(PROFILE)
    assert (check.state, "sbatch" in check.text) == (FAIL, True)


def test_profiles_are_found_by_name_and_folder(folder: Path) -> None:
    assert read_profile("slurm")["executor"] == "slurm"
    assert read_profile(str(REPOSITORY / "profiles" / "local"))["cores"] == "all"
    with pytest.raises(KaryonError, match="profile 'none': neither a folder"):
        read_profile("none")
