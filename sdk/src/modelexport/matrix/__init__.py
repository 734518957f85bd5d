"""The support matrix: which cells exist, how each is converted, and what was measured of it."""
