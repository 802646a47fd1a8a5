"""What the repository promises of itself: pins that agree, and imports that only go down."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from karyon.io.schemas import REPOSITORY

LAYERS = (
    "errors",
    "io",
    "tiles",
    "stain",
    "tissue",
    "models",
    "inference",
    "nuclei",
    "evaluation",
    "training",
    "cohort",
    "study",
    "demo",
    "bench",
    "cli",
)


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().split()
    return {name.lower(): version for name, version in (line.split("==") for line in lines)}


def dependencies() -> list[str]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()  # type: ignore[index]


def test_every_dependency_is_pinned_and_torch_is_2_13() -> None:
    assert {name_of(line) for line in dependencies()} <= set(pins())
    assert "torch==2.13.0" in dependencies()
    assert pins()["torch"] == "2.13.0"


def test_the_conda_environment_has_the_pins() -> None:
    content = yaml.safe_load((REPOSITORY / "envs" / "karyon.yaml").read_text())["dependencies"]
    packages = next(item["pip"] for item in content if isinstance(item, dict))
    assert [name_of(line) for line in packages] == [name_of(line) for line in dependencies()]
    for line in packages:
        assert line.split("==")[1] == pins()[name_of(line)]


def recipe() -> dict[str, str]:
    """Sections of the container's recipe by name; what comes before them is its header."""
    text = (REPOSITORY / "envs" / "karyon.def").read_text()
    header, *sections = re.split(r"^%", text, flags=re.MULTILINE)
    return {"header": header, **dict(section.split("\n", 1) for section in sections)}


def test_the_container_installs_what_the_package_needs_and_nothing_unpinned(tmp_path: Path) -> None:
    sections = recipe()
    conda = yaml.safe_load((REPOSITORY / "envs" / "karyon.yaml").read_text())["dependencies"]
    assert f"From: {conda[0].replace('=', ':')}-slim" in sections["header"]
    for line in sections["files"].split("\n"):
        if line:
            shutil.copy(REPOSITORY / line.split()[0], tmp_path)
    commands = sections["post"].replace("cd /opt/karyon", "").replace("pip install", "echo")
    said = subprocess.run(
        ["sh", "-c", commands], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert (tmp_path / "requirements.txt").read_text().split() == dependencies()
    assert said.split() == [
        "--no-cache-dir",
        *("--requirement", "requirements.txt"),
        *("--constraint", "constraints.txt"),
    ]


def test_every_line_of_the_slurm_profile_is_explained() -> None:
    profile = yaml.safe_load((REPOSITORY / "profiles" / "slurm" / "profile.yaml").read_text())
    explained = (REPOSITORY / "profiles" / "README.md").read_text()
    assert [key for key in profile if f"| `{key}" not in explained] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_never_run_back_up(layer: str) -> None:
    root = REPOSITORY / "src" / "karyon"
    files = [*root.glob(f"{layer}.py"), *(root / layer).rglob("*.py")]
    assert files
    below = LAYERS[: LAYERS.index(layer) + 1]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                parts = module.split(".")
                if parts[0] == "karyon" and len(parts) > 1:
                    assert parts[1] in below, f"{path}: {layer} imports {module}"


def test_the_package_never_sees_a_snakemake_object() -> None:
    for path in (REPOSITORY / "src" / "karyon").rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "snakemake" not in names, path


def test_scripts_import_one_function_and_call_it() -> None:
    for path in (REPOSITORY / "workflow" / "scripts").glob("*.py"):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, (ast.ImportFrom, ast.Expr)) for node in body), path
        assert sum(isinstance(node, ast.Expr) for node in body) == 1, path
