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
    priority: 1
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=light_mem_mb,
        runtime=light_runtime,
        attempts_left=attempts_left,
    params:
        **NUCLEI,
        discard=[] if config["keep_maps"] else ["map"],
    script:
        "../scripts/nuclei.py"
