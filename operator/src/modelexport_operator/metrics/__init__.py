"""Prometheus metrics, and the dashboard that shows them."""
