"""Talks to the API server: client, watch stream, resources and clocks."""
