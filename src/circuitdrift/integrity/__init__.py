"""Whether the study on disk is the study that dvc.lock describes, and how to mend it.

DVC trusts its state database and a file's mode, and calls a corrupted object clean; its objects'
own ``check`` deletes what it finds corrupted. Here every byte is hashed anew, and nothing that has
no intact copy is deleted.
"""
