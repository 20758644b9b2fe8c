"""The command line `cleanup-operations`. Starts fast: whatever is not needed for a command is not imported for it."""
