rule stain:
    """Stain matrix, percentiles and glass colour of each slide (SPCN)."""
    input:
        plan="results/{cohort}/plan/{shard}.tsv",
        upstream="results/{cohort}/manifests/tissue/{shard}.parquet",
    output:
        "results/{cohort}/manifests/stain/{shard}.parquet",
    log:
        "results/{cohort}/logs/stain/{shard}.log",
    benchmark:
        "results/{cohort}/benchmarks/stain/{shard}.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=light_mem_mb,
        runtime=light_runtime,
        attempts_left=attempts_left,
    params:
        settings={"sample_pixels": config["stain"]["sample_pixels"]},
        version=STAGE_VERSION["stain"],
    script:
        "../scripts/stain.py"
