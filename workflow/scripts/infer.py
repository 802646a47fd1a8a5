from karyon.cohort.shard import run_shard
from karyon.cohort.stages.infer import infer_slide

run_shard(
    infer_slide,
    stage="infer",
    plan=snakemake.input.plan,
    upstream=snakemake.input.upstream,
    manifest=snakemake.output[0],
    settings=snakemake.params.settings,
    version=snakemake.params.version,
    threads=snakemake.threads,
    last_attempt=snakemake.resources.attempts_left == 0,
    log=snakemake.log[0],
    gpus=snakemake.resources.get("gpu", 0),
    later=snakemake.params.later,
    parts=[snakemake.wildcards.get("part", "")],
)
