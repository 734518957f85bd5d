"""Reads checkpoints as data: pickles, safetensors and ``.pt2`` programs, without running anything in them."""
