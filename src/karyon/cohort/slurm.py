"""Whether SLURM is there, and has what a profile names."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from karyon.cohort.machine import FAIL, OK, WARN, Check
from karyon.errors import KaryonError
from karyon.io.schemas import REPOSITORY

# What the executor plugin calls.
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "sinfo", "scontrol")
PATIENCE_S = 20


def read_profile(name: str) -> dict[str, Any]:
    """A Snakemake profile: a folder, or the name of one under ``profiles/``.

    Raises:
        KaryonError: There is none, or its file is no YAML mapping.
    """
    folders = (Path(name), Path("profiles", name), REPOSITORY / "profiles" / name)
    files = [folder / file for folder in folders for file in ("profile.yaml", "config.yaml")]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        raise KaryonError(f"profile '{name}': neither a folder with a profile.yaml nor one under profiles/")
    return _read_mapping(path)


def check_slurm(profile: dict[str, Any]) -> Iterator[Check]:
    """SLURM's commands, its answer, and the partitions that the profile names.

    Args:
        profile: As read from YAML.

    Raises:
        KaryonError: The profile's file of partitions cannot be read.
    """
    missing = [command for command in COMMANDS if not shutil.which(command)]
    if missing:
        text = f"no {', '.join(missing)} on the PATH; start from a login node, or load its SLURM module"
        yield Check("SLURM", FAIL, text)
        return
    try:
        gres = _partitions()
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        yield Check("SLURM", FAIL, f"sinfo does not answer ({reason}); ask your administrator")
        return
    yield Check("SLURM", OK, f"answers; partitions {', '.join(sorted(gres))}")
    named = _named_partitions(profile)
    unknown = sorted(named - gres.keys())
    if unknown:
        there = ", ".join(sorted(gres))
        text = f"{', '.join(unknown)} named in the profile, but there are {there}; see profiles/README.md"
        yield Check("partitions", FAIL, text)
    else:
        yield Check("partitions", OK, f"{', '.join(sorted(named)) or 'none'} named in the profile")
    offering = sorted(name for name in (named or gres.keys()) if "gpu" in gres.get(name, ""))
    if offering:
        yield Check("GPU partitions", OK, ", ".join(offering))
    else:
        text = "no partition of the profile offers the gres gpu; without one use --set-resources infer:gpu=0"
        yield Check("GPU partitions", WARN, text)


def _partitions() -> dict[str, str]:
    """The generic resources of each partition's nodes, by its name."""
    command = ["sinfo", "--noheader", "--format", "%R %G"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)  # noqa: S603
    gres: dict[str, str] = {}
    for line in result.stdout.splitlines():
        name, _, offered = line.strip().partition(" ")
        gres[name] = f"{gres.get(name, '')} {offered}".strip()
    return gres


def _named_partitions(profile: dict[str, Any]) -> set[str]:
    """Partitions of the profile's own lines and of its file of partitions."""
    defaults, by_rule = profile.get("default-resources") or {}, profile.get("set-resources") or {}
    places = [defaults, *by_rule.values()]
    named = {str(place["slurm_partition"]) for place in places if "slurm_partition" in place}
    if "slurm-partition-config" in profile:
        named |= _read_mapping(Path(profile["slurm-partition-config"])).get("partitions", {}).keys()
    return named


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise KaryonError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise KaryonError(f"{path}: expected keys and values, as in profiles/slurm/profile.yaml")
    return content
