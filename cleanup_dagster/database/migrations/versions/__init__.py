"""The revisions, oldest first. `schema.REVISIONS` names them."""
