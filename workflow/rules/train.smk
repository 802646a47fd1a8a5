from pathlib import Path

from karyon.errors import KaryonError
from karyon.io.schemas import did_you_mean
from snakemake.exceptions import WorkflowError

EXPERIMENTS = Path("config/experiments")
WANTED = config["experiments"]
WANTED = [WANTED] if isinstance(WANTED, str) else WANTED
for name in WANTED:
    if not (EXPERIMENTS / f"{name}.yaml").is_file():
        known = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
        raise WorkflowError(
            f"experiments: there is no {EXPERIMENTS / name}.yaml{did_you_mean(name, known)}; "
            f"expected some of {', '.join(known)}"
        )


rule train:
    """A model's folder from an experiment file; a job that was killed goes on from its checkpoint."""
    input:
        "config/experiments/{experiment}.yaml",
    output:
        weights="results/models/{experiment}/model.safetensors",
        card="results/models/{experiment}/card.yaml",
        curves="results/models/{experiment}/curves.png",
    log:
        "results/models/{experiment}/train.log",
    benchmark:
        "results/models/{experiment}/benchmark.tsv"
    conda:
        "../../envs/karyon.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime=1440,
        gpu=1,
    params:
        # Not an output: Snakemake deletes the outputs of a job that failed.
        run="results/models/{experiment}/run",
    script:
        "../scripts/train.py"
