"""What Dagster loads."""

from cleanup_dagster.orchestration.location import code_location
from cleanup_dagster.settings import load_settings

defs = code_location(load_settings())
