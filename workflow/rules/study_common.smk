"""The study's plan, and which model a run makes or takes. No algorithms."""

from pathlib import Path

from karyon.errors import KaryonError
from karyon.study.planned import read_planned
from snakemake.exceptions import WorkflowError

# Jobs find the plan on disk: only the main process reads sheets, checks experiments and needs torch for it.
if workflow.is_main_process:
    from karyon.study.plan import plan_study

    try:
        STUDY = plan_study(config["study"])
    except KaryonError as error:
        raise WorkflowError(str(error)) from None
else:
    STUDY = read_planned(Path("results/studies", config["study"]["name"]))


TRAINED = [run.run for run in STUDY.runs if run.trains]
MODELS = {run.run: run.model for run in STUDY.runs}


wildcard_constraints:
    run=r"[A-Za-z0-9._+-]+",


def parent_card(wildcards):
    """The card of the model that a run is fine-tuned from."""
    parent = STUDY.run(wildcards.run).parent
    return [f"results/studies/{wildcards.study}/models/{parent}/card.yaml"] * bool(
        parent
    )


def own_card(wildcards):
    """The card of a run's model, where the study makes it."""
    trained = wildcards.run in TRAINED
    return [
        f"results/studies/{wildcards.study}/models/{wildcards.run}/card.yaml"
    ] * trained


def model_of(wildcards):
    return MODELS[wildcards.run]
