"""Numbers, files and models of a run for MLflow; nothing here imports it where training runs.

``tracker`` writes to a spool on disk, a process beside the training (``sender``) carries the spool to the
server by ``delivery``. A server that is away costs nothing but time until its numbers appear.
"""
