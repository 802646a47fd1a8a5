rule stitch:
    """One slide-level map from the tile predictions."""
    input:
        plan="results/{cohort}/plan/{shard}.tsv",
        upstream="results/{cohort}/manifests/infer/{shard}.parquet",
    output:
        "results/{cohort}/manifests/stitch/{shard}.parquet",
    log:
        "results/{cohort}/logs/stitch/{shard}.log",
    benchmark:
        "results/{cohort}/benchmarks/stitch/{shard}.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=light_mem_mb,
        runtime=light_runtime,
        attempts_left=attempts_left,
    params:
        settings=config["stitch"],
        version=STAGE_VERSION["stitch"],
    script:
        "../scripts/stitch.py"
