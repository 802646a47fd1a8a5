from karyon.cohort.summary import summarise

summarise(
    plans=snakemake.input.plans,
    manifests=snakemake.input.manifests,
    radii_um=snakemake.params.radii_um,
    model=snakemake.params.model,
    slides=snakemake.output.slides,
    scores=snakemake.output.scores,
    segmentation=snakemake.output.segmentation,
    class_scores=snakemake.output.class_scores,
    curves=snakemake.output.curves,
)
