"""Immutable, verified folders."""
