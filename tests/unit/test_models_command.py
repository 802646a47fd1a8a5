"""`karyon models`: every shipped model in a line."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

import karyon.models.card
from karyon.cli import models
from karyon.models.card import SHIPPED
from karyon.models.registry import build


def test_every_shipped_model_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.run(argparse.Namespace()) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "name", "architecture", "input", "mpp", "parameters", "F1", "measured", "on", "MB",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == sorted(
        path.parent.name for path in SHIPPED.glob("*/card.yaml")
    )
    parameters = sum(value.numel() for value in build("unet", width=16, depth=5).parameters())
    size = (SHIPPED / "switch_unet" / "model.safetensors").stat().st_size / 1e6
    line = next(line for line in lines if line.startswith("switch_unet "))
    assert line.split()[:5] == ["switch_unet", "unet", "H-C", "0.5", f"{parameters:,}"]
    assert line.split()[-1] == f"{size:.1f}"
    assert "0.872 (0.836-0.896)  TeD1 and TeD2 of kumar30" in line


def test_model_that_cannot_be_read_is_named_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(karyon.models.card, "SHIPPED", tmp_path)
    for name in ("broken", "weightless", "whole"):
        shutil.copytree(SHIPPED / "switch_unet", tmp_path / name)
    (tmp_path / "broken" / "card.yaml").write_text("name: [")
    (tmp_path / "weightless" / "model.safetensors").unlink()
    assert models.run(argparse.Namespace()) == 1
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == ["name", "whole"]
    first, second = captured.err.strip().split("\nkaryon: ")
    assert "broken/card.yaml: not a model card" in first
    assert "the weights are not" in second
