"""Figures."""


def figures(results):
    """To come."""
    return {}
