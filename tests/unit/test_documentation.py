"""The commands that the documentation prints, as Snakemake reads them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

from karyon.io.schemas import REPOSITORY

PAGES = ("README.md", "CHANGELOG.md", "docs/**/*.md", "config/**/*.md", "config/**/*.yaml", "profiles/*.md")
COMMAND = re.compile(r"\bsnakemake --[^`\n#;|]*")


def printed_commands() -> list[tuple[Path, str]]:
    pages = [page for pattern in PAGES for page in sorted(REPOSITORY.glob(pattern))]
    return [(page, line.strip()) for page in pages for line in COMMAND.findall(page.read_text())]


def test_commands_are_found() -> None:
    assert {"README.md", "models.md", "losses.yaml"} <= {page.name for page, _ in printed_commands()}


@pytest.mark.parametrize("command", sorted({command for _, command in printed_commands()}))
def test_printed_command_names_configurations_and_no_more(command: str) -> None:
    # The option --configfile takes every word after it: a target there is taken for a file.
    read = get_argument_parser().parse_args(shlex.split(command)[1:])
    assert [file.suffix for file in read.configfile] == [".yaml"] * command.count("--configfile")
