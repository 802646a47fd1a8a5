"""`karyon preview-augmentation`: a picture of what an experiment's network gets to see."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "preview-augmentation"
HELP = "Draw training crops of an experiment as the network gets them, with targets and annotations."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", type=Path, help="a file of config/experiments/")
    parser.add_argument("--output", type=Path, required=True, help="the picture, a PNG")
    parser.add_argument("--count", type=int, default=12, help="number of crops (default 12)")
    parser.add_argument("--seed", type=int, help="other crops; default the experiment's")


def run(args: argparse.Namespace) -> int:
    """Draw the crops, and say where the picture lies."""
    from dataclasses import replace

    from karyon.errors import KaryonError
    from karyon.io.atomic import atomic_path
    from karyon.training.data import load_datasets
    from karyon.training.experiment import read_experiment
    from karyon.training.preview import draw_contact_sheet

    if args.count < 1:
        raise KaryonError(f"--count is {args.count}; expected 1 or more")
    if args.output.suffix.lower() != ".png":
        raise KaryonError(f"--output is {args.output}; expected a name that ends in .png")
    experiment = read_experiment(args.experiment)
    if args.seed is not None:
        experiment = replace(experiment, seed=args.seed)
    shown = tuple(replace(dataset, validation_splits=()) for dataset in experiment.datasets)
    images, _ = load_datasets(replace(experiment, datasets=shown))
    figure = draw_contact_sheet(images, experiment, args.count)
    with atomic_path(args.output) as temporary:
        figure.savefig(temporary, format="png")
    print(f"{args.output}: {args.count} crops of {len(images)} images")
    return 0
