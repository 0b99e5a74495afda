"""params.yaml as frozen models: a class for each section, unknown keys forbidden, no defaults.

A field's description says what to set it to; a refusal shows it as the remedy. Sections that
different stages read stand in different files, so that a change to one reruns its readers alone.
Code of a stage therefore imports ``Params`` for type checking only.
"""
