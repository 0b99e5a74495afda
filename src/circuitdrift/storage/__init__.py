"""Artifacts and where they are kept: what dvc.lock records, pulled, pushed and shared."""
