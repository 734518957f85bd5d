"""Hands a verified file over, reports on it and publishes it."""
