from karyon.study.score import score_matrix

score_matrix(
    plan=snakemake.input.plan,
    radius_um=snakemake.params.radius_um,
    threads=snakemake.threads,
    matrix=snakemake.output.matrix,
    curves=snakemake.output.curves,
    origin=snakemake.output.origin,
    log=snakemake.log[0],
)
