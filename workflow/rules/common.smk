"""Sheet, configuration and plan of the cohort, and what every rule asks for. No algorithms."""

from dataclasses import asdict
from pathlib import Path

from karyon.cohort.configuration import complete_config
from karyon.cohort.demand import Demand
from karyon.cohort.layout import tile_parts
from karyon.cohort.plan import planned_shards, write_plan
from karyon.cohort.shard import STAGE_VERSION
from karyon.errors import KaryonError
from karyon.io.sheets import read_sheet
from karyon.models.card import CENTRE, check_weights, model_folder, read_card
from snakemake.exceptions import WorkflowError

try:
    config = complete_config(config)
    COHORT = config["cohort"]
    PLAN = Path("results", COHORT, "plan")
    CARD = read_card(model_folder(config["model"]))
    # Remote jobs find the plan on disk: only the main process reads the sheet and asks for 30,000 files.
    if workflow.is_main_process:
        # Weights that are damaged, or are none, are told before anything is run.
        check_weights(model_folder(config["model"]), CARD)
        SHEET = read_sheet(
            Path(config["sheet"]), missing_slides=config["missing_slides"]
        )
        SHARDS = write_plan(SHEET, PLAN, config["shard_size"])
    else:
        SHARDS = planned_shards(PLAN)
except KaryonError as error:
    raise WorkflowError(str(error)) from None


PARTS = tile_parts(config["jobs_per_shard"])
STITCH = {"settings": config["stitch"], "version": STAGE_VERSION["stitch"]}
NUCLEI = {
    "settings": {
        **config["nuclei"],
        "model": config["model"],
        "decoding": asdict(CARD.decoding),
    },
    "version": STAGE_VERSION["nuclei"],
}
# Who uses up a stage's files: where these are gone, and a later stage's settings change, all begins with infer.
if config["keep_maps"]:
    LATER = {"infer": {"stitch": STITCH}, "stitch": {}}
else:
    LATER = {
        "infer": {"stitch": STITCH, "nuclei": NUCLEI},
        "stitch": {"nuclei": NUCLEI},
    }


wildcard_constraints:
    cohort=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    shard=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    part=r"[0-9]+of[0-9]+",


# The Snakemake inside a cluster's job would spend the attempts itself, within that job's memory and time.
RETRIES = config["retries"] if workflow.is_main_process else 0


def attempts_left(wildcards, attempt):
    """0 on the last attempt, which then records failures instead of asking for another."""
    return config["retries"] + 1 - attempt


def demand(wildcards):
    return Demand.of_plan(PLAN / f"{wildcards.shard}.tsv")


def light_mem_mb(wildcards, attempt):
    return demand(wildcards).light_mem_mb() * attempt


def infer_mem_mb(wildcards, threads, attempt):
    return demand(wildcards).infer_mem_mb(threads) * attempt


def light_runtime(wildcards, attempt):
    return demand(wildcards).light_minutes() * attempt


def infer_runtime(wildcards, attempt):
    return demand(wildcards).infer_minutes() * attempt


def cohort_mem_mb(wildcards, attempt):
    return 4000 * attempt


def all_manifests(stage):
    return [f"results/{COHORT}/manifests/{stage}/{shard}.parquet" for shard in SHARDS]
