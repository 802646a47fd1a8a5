from karyon.cohort.report import write_report

write_report(
    slides=snakemake.input.slides,
    scores=snakemake.input.scores,
    segmentation=snakemake.input.segmentation,
    class_scores=snakemake.input.class_scores,
    curves=snakemake.input.curves,
    plans=snakemake.input.plans,
    overlays=snakemake.params.overlays,
    threads=snakemake.threads,
    folder=snakemake.output[0],
    log=snakemake.log[0],
)
