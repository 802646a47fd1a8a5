"""What may feed a network, by name."""

# The number of channels of each; karyon.stain.inputs says what they are.
INPUT_CHANNELS = {"H-C": 1, "HE-C": 2, "CN-H&E": 3, "RGB": 3}
