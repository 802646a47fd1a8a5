"""`karyon train`: train a model from an experiment file."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "train"
HELP = "Train a model from an experiment file and write its folder (weights and card)."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", type=Path, help="a file of config/experiments/")
    parser.add_argument("--output", type=Path, required=True, help="the model's folder")
    parser.add_argument(
        "--sheet",
        type=Path,
        help="one of `karyon split`, in place of the experiment's datasets; its name is added to the model's",
    )
    parser.add_argument("--run", type=Path, help="checkpoint, log and snapshots; default runs/<name>")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each process (default 2)")
    parser.add_argument("--devices", type=int, default=1, help="GPUs that share each batch (default 1)")


def run(args: argparse.Namespace) -> int:
    """Train, and say where the model lies."""
    from karyon.training.experiment import on_split, read_experiment
    from karyon.training.ship import train_and_ship

    experiment = read_experiment(args.experiment)
    command = f"karyon train {args.experiment} --devices {args.devices}"
    if args.sheet:
        experiment = on_split(experiment, args.sheet)
        command += f" --sheet {args.sheet}"
    folder = args.run or Path("runs") / experiment.name
    card = train_and_ship(experiment, folder, args.output, args.threads, command, args.devices)
    if card is not None:
        print(f"{args.output}: {card.name}, threshold {card.decoding.threshold}, {card.metrics}")
    return 0
