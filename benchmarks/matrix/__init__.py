"""Measures every cell of the support matrix: ``make matrix``."""
