"""`karyon link-profiles`: make `snakemake --profile slurm` work by name."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "link-profiles"
HELP = "Link profiles/* into your Snakemake configuration folder, so that --profile local|slurm finds them."


def configure(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Link each profile, unless its name is taken."""
    from snakemake.cli import get_appdirs

    from karyon.io.schemas import REPOSITORY

    for line in link_profiles(REPOSITORY / "profiles", Path(get_appdirs().user_config_dir)):
        print(line)
    return 0


def link_profiles(profiles: Path, target: Path) -> list[str]:
    """Link every profile folder into ``target``; what another owns is left alone.

    Args:
        profiles: The repository's ``profiles``.
        target: Snakemake's configuration folder of this user.

    Returns:
        A line per profile that says what was done.
    """
    target.mkdir(parents=True, exist_ok=True)
    lines = []
    for profile in sorted(path for path in profiles.iterdir() if path.is_dir()):
        link = target / profile.name
        if link.is_symlink() and link.resolve() == profile.resolve():
            lines.append(f"{link} -> {profile} (was there)")
        elif link.is_symlink() or link.exists():
            lines.append(
                f"{link} belongs to something else and was left alone; use --profile {profile} instead"
            )
        else:
            link.symlink_to(profile.resolve())
            lines.append(f"{link} -> {profile} (linked)")
    return lines
