"""Benchmarks: what a conversion and the operator cost, beside ultralytics' own export, plain Jobs and JobSet."""
