rule tissue:
    """Slide facts, thumbnail and tissue mask."""
    input:
        plan="results/{cohort}/plan/{shard}.tsv",
    output:
        "results/{cohort}/manifests/tissue/{shard}.parquet",
    log:
        "results/{cohort}/logs/tissue/{shard}.log",
    benchmark:
        "results/{cohort}/benchmarks/tissue/{shard}.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=light_mem_mb,
        runtime=light_runtime,
        attempts_left=attempts_left,
    params:
        settings=config["tissue"],
        version=STAGE_VERSION["tissue"],
    script:
        "../scripts/tissue.py"
