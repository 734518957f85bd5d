"""Decides what to do with one export, from a snapshot of what was observed. Pure."""
