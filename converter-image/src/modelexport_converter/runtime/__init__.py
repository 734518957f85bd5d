"""Runs a conversion as a process: progress, threads, cache and exit status."""
