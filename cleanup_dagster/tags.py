"""The names by which Dagster's instance knows our runs, for the jobs and for whoever launches or watches them."""

#: Who asked, when whoever launches the run knows better than the operating system does.
EXECUTED_BY_TAG = "cleanup/executed_by"
#: Queues launches behind each other where the instance limits runs by this tag; the lock itself is ours.
LOCK_TAG = {"cleanup/lock": "one_at_a_time"}
#: The schedule of the daily cleanup.
SCHEDULE = "cleanup_daily"
