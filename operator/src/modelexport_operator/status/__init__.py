"""Builds the status of an export: conditions, progress and events. Pure."""
