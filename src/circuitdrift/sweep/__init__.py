"""The experiments of sweep.yaml: which there are, running them, and what they say together."""
