from karyon.cohort.shard import run_shard
from karyon.cohort.stages.tissue import mask_slide

run_shard(
    mask_slide,
    stage="tissue",
    plan=snakemake.input.plan,
    upstream=None,
    manifest=snakemake.output[0],
    settings=snakemake.params.settings,
    version=snakemake.params.version,
    threads=snakemake.threads,
    last_attempt=snakemake.resources.attempts_left == 0,
    log=snakemake.log[0],
)
