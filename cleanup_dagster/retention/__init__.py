"""What may go, and why: pure functions over frozen values, with no I/O and no clock of their own."""
