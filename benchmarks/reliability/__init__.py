"""Whether the study comes out the same: elsewhere, otherwise, and after a fault.

Run by `make verify-reproduction` and `make bench-faults`; no part of the installed package.
"""
