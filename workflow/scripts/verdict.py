from karyon.cohort.summary import check_failures

check_failures(
    slides=snakemake.input.slides,
    max_failed_fraction=snakemake.params.max_failed_fraction,
    verdict=snakemake.output[0],
)
