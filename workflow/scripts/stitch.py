from karyon.cohort.shard import run_shard
from karyon.cohort.stages.stitch import stitch_slide

run_shard(
    stitch_slide,
    stage="stitch",
    plan=snakemake.input.plan,
    upstream=snakemake.input.upstream,
    manifest=snakemake.output[0],
    settings=snakemake.params.settings,
    version=snakemake.params.version,
    threads=snakemake.threads,
    last_attempt=snakemake.resources.attempts_left == 0,
    log=snakemake.log[0],
    discard=snakemake.params.discard,
    later=snakemake.params.later,
    parts=snakemake.params.parts,
)
