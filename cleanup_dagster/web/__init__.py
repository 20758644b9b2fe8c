"""The page and the REST API: show what is, change policies and holds, launch runs in Dagster; delete nothing."""
