"""Retention and garbage collection for data platforms built on Dagster."""

__version__ = "0.1.0"
