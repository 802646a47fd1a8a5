rule infer:
    """Tile predictions, on a GPU or on CPU threads."""
    input:
        plan="results/{cohort}/plan/{shard}.tsv",
        upstream="results/{cohort}/manifests/stain/{shard}.parquet",
    output:
        "results/{cohort}/manifests/infer/{shard}.parquet",
    log:
        "results/{cohort}/logs/infer/{shard}.log",
    benchmark:
        "results/{cohort}/benchmarks/infer/{shard}.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 8
    resources:
        mem_mb=infer_mem_mb,
        runtime=infer_runtime,
        attempts_left=attempts_left,
        gpu=1,
    params:
        settings={
            **config["infer"],
            "channel": config["stain"]["channel"],
            "model": config["model"],
            "card": CARD.inference(),
        },
        version=STAGE_VERSION["infer"],
    script:
        "../scripts/infer.py"
