"""Measures the accuracy of the original model and of a produced file on the user's labelled images."""
