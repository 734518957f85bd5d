"""Exports on a cluster, from Python: submit, wait, read the status, download."""
