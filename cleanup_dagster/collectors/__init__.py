"""One module per kind of garbage, the same verbs each: scan, back up, delete, recover."""
