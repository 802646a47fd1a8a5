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
    # Before more is inferred, so that tile predictions do not pile up.
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
        **STITCH,
        discard=["tiles"],
        later=LATER["stitch"],
        parts=PARTS,
    script:
        "../scripts/stitch.py"
