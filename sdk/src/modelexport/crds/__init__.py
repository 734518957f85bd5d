"""Builds the CustomResourceDefinitions and the reference pages."""
