from karyon.study.report import write_study_report

write_study_report(
    matrix=snakemake.input.matrix,
    curves=snakemake.input.curves,
    variants=snakemake.params.variants,
    provenance=snakemake.input.origin,
    report=snakemake.output.report,
    log=snakemake.log[0],
)
