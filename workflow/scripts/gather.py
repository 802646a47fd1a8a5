from karyon.cohort.gather import gather_parts

gather_parts(parts=snakemake.input.parts, manifest=snakemake.output[0])
