"""The experiments of a sweep side by side: what training and data do to circuits."""
