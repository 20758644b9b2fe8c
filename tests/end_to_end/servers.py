# pyright: reportUnknownMemberType=false, reportPrivateUsage=false
# Dagster's client leaves parts of its own signatures unknown, and has no public way to send any other query.
"""Webserver and daemon of one platform, as real processes."""

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from end_to_end_helpers import Platform, ask_to_end, eventually, free_port, run, started

ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


@contextmanager
def servers(platform: Platform) -> Generator[DagsterGraphQLClient]:
    """Start webserver and daemon on the platform's instance, and yield a client once the location is loaded."""
    prepared = run(platform, "dagster", "instance", "migrate")  # two processes that create one instance at once collide
    assert prepared.returncode == 0, prepared.output
    port = free_port()
    web = ("dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port))
    daemon = ("dagster-daemon", "run", "-w", "workspace.yaml")
    with started(platform, *web) as (serving, log), started(platform, *daemon) as (firing, _):
        answers: list[DagsterGraphQLClient] = []

        def ready() -> bool:
            try:
                client = DagsterGraphQLClient("127.0.0.1", port_number=port)
                loaded = client._execute("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
            except DagsterGraphQLClientError:
                return False
            answers.append(client)
            return bool(loaded["repositoriesOrError"].get("nodes"))

        eventually(f"an answer of the webserver, see {log}", ready, seconds=120)
        yield answers[-1]
        ask_to_end(serving, firing)
