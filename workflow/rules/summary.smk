rule summary:
    """One row per slide, and pooled scores."""
    input:
        plans=expand("results/{{cohort}}/plan/{shard}.tsv", shard=SHARDS),
        manifests=[path for stage in STAGE_VERSION for path in all_manifests(stage)],
    output:
        slides="results/{cohort}/slides.parquet",
        scores="results/{cohort}/scores.parquet",
        segmentation="results/{cohort}/segmentation.parquet",
        class_scores="results/{cohort}/class_scores.parquet",
        curves="results/{cohort}/curves.parquet",
    log:
        "results/{cohort}/logs/summary.log",
    benchmark:
        "results/{cohort}/benchmarks/summary.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=cohort_mem_mb,
        runtime=30,
    params:
        radii_um=config["evaluate"]["radii_um"],
        model=CARD.name,
    script:
        "../scripts/summary.py"


rule report:
    """Pictures and tables for `snakemake --report`."""
    input:
        slides="results/{cohort}/slides.parquet",
        scores="results/{cohort}/scores.parquet",
        segmentation="results/{cohort}/segmentation.parquet",
        class_scores="results/{cohort}/class_scores.parquet",
        curves="results/{cohort}/curves.parquet",
        plans=expand("results/{{cohort}}/plan/{shard}.tsv", shard=SHARDS),
    output:
        report(
            directory("results/{cohort}/report"),
            patterns=["{section}/{name}.png", "{section}/{name}.html"],
            caption="../report/figure.rst",
            category="{section}",
            labels={"name": "{name}"},
        ),
    log:
        "results/{cohort}/logs/report.log",
    benchmark:
        "results/{cohort}/benchmarks/report.tsv"
    retries: RETRIES
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=cohort_mem_mb,
        runtime=30,
    params:
        overlays=config["report"]["overlays"],
    script:
        "../scripts/report.py"


rule verdict:
    """An error if more slides failed than `max_failed_fraction`; everything else is written by then."""
    input:
        slides="results/{cohort}/slides.parquet",
        report="results/{cohort}/report",
    output:
        "results/{cohort}/verdict.txt",
    log:
        "results/{cohort}/logs/verdict.log",
    benchmark:
        "results/{cohort}/benchmarks/verdict.tsv"
    localrule: True
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=cohort_mem_mb,
        runtime=5,
    params:
        max_failed_fraction=config["max_failed_fraction"],
    script:
        "../scripts/verdict.py"
