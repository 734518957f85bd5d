"""Seconds, memory, size and latency of conversions, beside ultralytics' own export of the same models."""
