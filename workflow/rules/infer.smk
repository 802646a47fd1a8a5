# Where several jobs share a shard, each has a part of every slide's tiles.
PART = "_{part}" if len(PARTS) > 1 else ""


rule infer:
    """Tile predictions, on a GPU or on CPU threads."""
    input:
        plan="results/{cohort}/plan/{shard}.tsv",
        upstream="results/{cohort}/manifests/stain/{shard}.parquet",
    output:
        f"results/{{cohort}}/manifests/infer{PART}/{{shard}}.parquet",
    log:
        f"results/{{cohort}}/logs/infer{PART}/{{shard}}.log",
    benchmark:
        f"results/{{cohort}}/benchmarks/infer{PART}/{{shard}}.tsv"
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
        later=LATER["infer"],
    script:
        "../scripts/infer.py"


if PART:

    rule gather:
        """One manifest of the parts."""
        input:
            parts=expand(
                "results/{{cohort}}/manifests/infer_{part}/{{shard}}.parquet",
                part=PARTS,
            ),
        output:
            "results/{cohort}/manifests/infer/{shard}.parquet",
        log:
            "results/{cohort}/logs/gather/{shard}.log",
        benchmark:
            "results/{cohort}/benchmarks/gather/{shard}.tsv"
        retries: RETRIES
        conda:
            "../../envs/karyon.yaml"
        threads: 1
        resources:
            mem_mb=light_mem_mb,
            runtime=light_runtime,
        script:
            "../scripts/gather.py"
