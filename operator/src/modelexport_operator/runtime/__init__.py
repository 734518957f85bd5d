"""Runs the controller: informers, cache, work queue and workers."""
