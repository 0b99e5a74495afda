"""Many experiments: which there are, which are finished, and running the rest in DVC's queue."""
