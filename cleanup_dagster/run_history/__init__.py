"""Purging Dagster's own finished runs: what may go, archived exactly, deleted exactly as archived, and put back."""
