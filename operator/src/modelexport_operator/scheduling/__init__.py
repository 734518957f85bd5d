"""Decides which targets may start: admission, fair share and node pools. Pure."""
