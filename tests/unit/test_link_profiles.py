"""Linking profiles leaves alone what others own."""

from __future__ import annotations

from pathlib import Path

import pytest

from karyon.cli.link_profiles import link_profiles
from karyon.cli.main import main
from karyon.io.schemas import REPOSITORY


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """Two profiles and a file that is none."""
    folder = tmp_path / "repository" / "profiles"
    for name in ("local", "slurm"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").write_text(f"# {name}\n")
    (folder / "README.md").write_text("not a profile\n")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".config" / "snakemake"


def test_every_profile_is_linked_and_said(profiles: Path, target: Path) -> None:
    lines = link_profiles(profiles, target)
    assert sorted(path.name for path in target.iterdir()) == ["local", "slurm"]
    assert (target / "slurm" / "config.yaml").read_text() == "# slurm\n"
    assert lines == [f"{target / name} -> {profiles / name} (linked)" for name in ("local", "slurm")]


def test_link_that_is_there_stays(profiles: Path, target: Path) -> None:
    link_profiles(profiles, target)
    before = (target / "slurm").lstat().st_mtime_ns
    lines = link_profiles(profiles, target)
    assert (target / "slurm").lstat().st_mtime_ns == before
    assert all(line.endswith("(was there)") for line in lines)


def test_folder_of_the_user_is_not_overwritten(profiles: Path, target: Path) -> None:
    (target / "slurm").mkdir(parents=True)
    (target / "slurm" / "config.yaml").write_text("# mine\n")
    local, slurm = link_profiles(profiles, target)
    assert local.endswith("(linked)")
    assert "left alone" in slurm
    assert f"--profile {profiles / 'slurm'}" in slurm
    assert (target / "slurm" / "config.yaml").read_text() == "# mine\n"
    assert not (target / "slurm").is_symlink()


@pytest.mark.parametrize("exists", [True, False], ids=["link to another", "dangling link"])
def test_link_of_another_is_not_overwritten(profiles: Path, target: Path, exists: bool) -> None:
    other = target.parent / "other"
    other.mkdir(parents=True)
    target.mkdir()
    (target / "slurm").symlink_to(other if exists else target / "gone")
    before = (target / "slurm").readlink()
    assert "left alone" in link_profiles(profiles, target)[1]
    assert (target / "slurm").readlink() == before


def test_command_links_into_snakemakes_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import snakemake.common

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "config"))
    monkeypatch.setattr(snakemake.common, "APPDIRS", None)  # it keeps the folder it found first
    assert main(["link-profiles"]) == 0
    said = capsys.readouterr().out
    linked = sorted(path.name for path in tmp_path.rglob("*") if path.is_symlink())
    assert linked == sorted(path.name for path in (REPOSITORY / "profiles").iterdir() if path.is_dir())
    assert said.count("(linked)") == len(linked)
