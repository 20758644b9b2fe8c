"""What survives a run: policies, audit, runs, holds, on SQLite and Postgres with one schema.

The functions take an open `Connection` and never commit: whoever opens the transaction decides what belongs together.
Write inside `with engine.begin() as conn`, read inside `with reading(engine) as conn`. Moments cross this boundary as
integer nanoseconds since the epoch (`*_ns`), cut to the microseconds that both databases store.
"""
