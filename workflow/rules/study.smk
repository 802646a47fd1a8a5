"""A study: a training per variant and seed, an inference per model, one scoring for all."""


rule study_train:
    """A model; a job that was killed goes on from its checkpoint."""
    input:
        experiment="results/studies/{study}/plan/{run}/experiment.yaml",
        parent=parent_card,
    output:
        weights="results/studies/{study}/models/{run}/model.safetensors",
        card="results/studies/{study}/models/{run}/card.yaml",
        curves="results/studies/{study}/models/{run}/curves.png",
    log:
        "results/studies/{study}/logs/train/{run}.log",
    benchmark:
        "results/studies/{study}/benchmarks/train/{run}.tsv"
    conda:
        "../../envs/karyon.yaml"
    threads: STUDY.threads
    resources:
        mem_mb=8000,
        runtime=1440,
        gpu=1,
    params:
        # Not an output: Snakemake deletes the outputs of a job that failed.
        run="results/studies/{study}/runs/{run}",
    script:
        "../scripts/train.py"


rule study_predict:
    """What one model finds in the test images of all groups; those it has seen before are not done again."""
    input:
        card=own_card,
        tests=expand(
            "results/studies/{{study}}/plan/test/{group}.tsv", group=STUDY.groups
        ),
    output:
        "results/studies/{study}/predictions/{run}.parquet",
    log:
        "results/studies/{study}/logs/predict/{run}.log",
    benchmark:
        "results/studies/{study}/benchmarks/predict/{run}.tsv"
    conda:
        "../../envs/karyon.yaml"
    threads: STUDY.threads
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=1,
    params:
        model=model_of,
        radius_um=STUDY.radius_um,
        stains="results/studies/{study}/stains",
    script:
        "../scripts/study_predict.py"


rule study_score:
    """Every model against every test image."""
    input:
        plan="results/studies/{study}/plan/plan.json",
        predictions=expand(
            "results/studies/{{study}}/predictions/{run}.parquet", run=MODELS
        ),
    output:
        matrix="results/studies/{study}/matrix.parquet",
        curves="results/studies/{study}/curves.parquet",
        origin="results/studies/{study}/provenance.json",
    log:
        "results/studies/{study}/logs/score.log",
    benchmark:
        "results/studies/{study}/benchmarks/score.tsv"
    conda:
        "../../envs/karyon.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        radius_um=STUDY.radius_um,
    script:
        "../scripts/study_score.py"


rule study_report:
    """What came out: one page with figures, tables and where everything comes from."""
    input:
        plan="results/studies/{study}/plan/plan.json",
        matrix="results/studies/{study}/matrix.parquet",
        curves="results/studies/{study}/curves.parquet",
        origin="results/studies/{study}/provenance.json",
    output:
        report="results/studies/{study}/report.html",
        cells="results/studies/{study}/cells.parquet",
        tests="results/studies/{study}/tests.parquet",
        figures=directory("results/studies/{study}/figures"),
    log:
        "results/studies/{study}/logs/report.log",
    benchmark:
        "results/studies/{study}/benchmarks/report.tsv"
    conda:
        "../../envs/karyon.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        # Not an input: jobs find it on disk, written with the plan.
        variants="results/studies/{study}/plan/variants.tsv",
    script:
        "../scripts/study_report.py"
