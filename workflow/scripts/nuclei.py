from karyon.cohort.shard import run_shard
from karyon.cohort.stages.nuclei import find_nuclei

run_shard(
    find_nuclei,
    stage="nuclei",
    plan=snakemake.input.plan,
    upstream=snakemake.input.upstream,
    manifest=snakemake.output[0],
    settings=snakemake.params.settings,
    version=snakemake.params.version,
    threads=snakemake.threads,
    last_attempt=snakemake.resources.attempts_left == 0,
    log=snakemake.log[0],
    discard=snakemake.params.discard,
)
