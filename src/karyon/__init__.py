"""Karyon: every nucleus in a cohort of whole-slide images."""

__version__ = "0.1.0"
