"""Permutations of hidden units: derived from a model, and found between two models."""
