rule evaluate:
    """Nuclei against annotations, where a slide has them."""
    input:
        plan="results/{cohort}/plan/{shard}.tsv",
        upstream="results/{cohort}/manifests/nuclei/{shard}.parquet",
    output:
        "results/{cohort}/manifests/evaluate/{shard}.parquet",
    log:
        "results/{cohort}/logs/evaluate/{shard}.log",
    benchmark:
        "results/{cohort}/benchmarks/evaluate/{shard}.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=light_mem_mb,
        runtime=light_runtime,
        attempts_left=attempts_left,
    params:
        settings={**config["evaluate"], "outlines": CARD.maps != CENTRE},
        version=STAGE_VERSION["evaluate"],
    script:
        "../scripts/evaluate.py"
