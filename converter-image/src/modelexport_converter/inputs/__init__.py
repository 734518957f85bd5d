"""Fetches checkpoints and datasets, and reads the images of a dataset."""
