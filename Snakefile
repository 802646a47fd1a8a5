from snakemake.utils import min_version

min_version("9.19")


configfile: "config/config.yaml"


# Used with --sdm apptainer only, and built by hand: see envs/karyon.def.
container: "envs/karyon.sif"


if "experiments" in config:

    include: "workflow/rules/train.smk"

    rule models:
        default_target: True
        input:
            expand("results/models/{experiment}/card.yaml", experiment=WANTED),

elif "study" in config:

    include: "workflow/rules/study_common.smk"
    include: "workflow/rules/study.smk"

    rule matrix:
        default_target: True
        input:
            f"results/studies/{STUDY.name}/matrix.parquet",
            f"results/studies/{STUDY.name}/report.html",

else:

    include: "workflow/rules/common.smk"
    include: "workflow/rules/tissue.smk"
    include: "workflow/rules/stain.smk"
    include: "workflow/rules/infer.smk"
    include: "workflow/rules/stitch.smk"
    include: "workflow/rules/nuclei.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/summary.smk"

    report: "workflow/report/workflow.rst"

    rule all:
        default_target: True
        input:
            f"results/{COHORT}/slides.parquet",
            f"results/{COHORT}/scores.parquet",
            f"results/{COHORT}/report",
            f"results/{COHORT}/verdict.txt",
