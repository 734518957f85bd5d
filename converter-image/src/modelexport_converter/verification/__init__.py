"""Verifies a produced file: it runs the file and the original network on the same images."""
