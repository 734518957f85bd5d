"""Conversions on this machine, one process per target, without a cluster."""
