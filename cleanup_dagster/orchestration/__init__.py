"""Dagster's side: config, resources, ops, job and schedule. The only package that imports dagster."""
