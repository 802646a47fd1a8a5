rule nuclei:
    """The table of nuclei, and what else is configured."""
    input:
        plan="results/{cohort}/plan/{shard}.tsv",
        upstream="results/{cohort}/manifests/stitch/{shard}.parquet",
    output:
        "results/{cohort}/manifests/nuclei/{shard}.parquet",
    log:
        "results/{cohort}/logs/nuclei/{shard}.log",
    benchmark:
        "results/{cohort}/benchmarks/nuclei/{shard}.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=light_mem_mb,
        runtime=light_runtime,
        attempts_left=attempts_left,
    params:
        settings={
            **config["nuclei"],
            "model": config["model"],
            "decoding": asdict(CARD.decoding),
        },
        version=STAGE_VERSION["nuclei"],
    script:
        "../scripts/nuclei.py"
