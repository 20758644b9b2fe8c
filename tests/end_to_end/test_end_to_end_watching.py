# pyright: reportUnknownMemberType=false, reportPrivateUsage=false
# Dagster's client leaves parts of its own signatures unknown, and has no public way to send any other query.
"""Webserver and daemon with the deployment's settings: schedules that start by themselves, a queue, alerts, assets."""

import shutil
from typing import Any

import dagster as dg
from dagster_graphql import DagsterGraphQLClient
from end_to_end_helpers import KEPT, PROJECT, QUEUE, Platform, eventually
from ruamel.yaml import YAML
from servers import ENDED, servers
from webhooks import SECRET, webhook

_ASSETS = """
{ assetNodes { assetKey { path } groupName
    assetObservations(limit: 5) { metadataEntries { label ... on IntMetadataEntry { intValue } } } } }
"""
_SCHEDULES = """
{ schedulesOrError(repositorySelector:
    {repositoryName: "__repository__", repositoryLocationName: "cleanup_dagster"})
  { ... on Schedules { results { name scheduleState { status } } } } }
"""
_TIMES = """
query Times($id: ID!) { runOrError(runId: $id) { ... on Run { startTime endTime } } }
"""


def _dagster_yaml(platform: Platform) -> None:
    """Take our dagster.yaml as it is, but for the Postgres that this instance does without."""
    yaml: Any = YAML()
    content = yaml.load(PROJECT / "dagster.yaml")
    del content["storage"]
    content |= yaml.load(QUEUE)
    yaml.dump(content, platform.dagster_home / "dagster.yaml")


def _times(client: DagsterGraphQLClient, run_id: str) -> tuple[float, float]:
    run = client._execute(_TIMES, {"id": run_id})["runOrError"]
    return run["startTime"], run["endTime"]


def test_two_launches_queue_and_what_fails_is_told(platform: Platform) -> None:
    _dagster_yaml(platform)
    with webhook() as hook:
        platform.extra = {"CLEANUP_SCHEDULE_STARTED": "true", "CLEANUP_ALERT_WEBHOOK_URL": hook.url}
        with servers(platform) as client:
            live = {"dry_run": False, "type": "manual"}
            launched = [client.submit_job_execution("cleanup", run_config=live) for _ in range(2)]
            eventually(
                "the end of both runs",
                lambda: all(client.get_run_status(run_id) in ENDED for run_id in launched),
                seconds=180,
            )
            assert {client.get_run_status(run_id) for run_id in launched} == {dg.DagsterRunStatus.SUCCESS}
            first, second = sorted(_times(client, run_id) for run_id in launched)
            assert first[1] <= second[0], "one after the other"
            assert platform.files == KEPT

            results = client._execute(_SCHEDULES)["schedulesOrError"]["results"]
            assert {(one["name"], one["scheduleState"]["status"]) for one in results} == {
                ("cleanup_daily", "RUNNING"),
                ("cleanup_checks_hourly", "RUNNING"),
                ("verify_backups_weekly", "RUNNING"),
            }

            platform.refill()
            platform.configure(limits={"max_files": 1})
            refused = client.submit_job_execution("cleanup", run_config=live)
            checked = client.submit_job_execution("cleanup_checks")
            eventually("a post about the refused run", lambda: _told(hook.posts, refused), seconds=120)
            assert "max_files" in _told(hook.posts, refused)[0]["text"]
            eventually("the end of the checks", lambda: client.get_run_status(checked) in ENDED, seconds=120)
            assert client.get_run_status(checked) is dg.DagsterRunStatus.SUCCESS
            assert "check_failed" in {post["event"] for post in hook.posts}, "what was refused is overdue"

            nodes = client._execute(_ASSETS)["assetNodes"]
            assert {node["groupName"] for node in nodes} == {"cleanup"}
            plotted = next(node for node in nodes if node["assetKey"]["path"] == ["cleanup", "completed_operations"])
            deleted = [
                entry["intValue"]
                for observation in plotted["assetObservations"]
                for entry in observation["metadataEntries"]
                if entry["label"] == "files_deleted"
            ]
            assert deleted == [0, 0, 1], "refused, nothing left, and the first one"
    for log in platform.home.glob("*.log"):
        assert SECRET not in log.read_text(encoding="utf-8"), log
    shutil.rmtree(platform.dagster_home)


def _told(posts: list[dict[str, Any]], run_id: str) -> list[dict[str, Any]]:
    return [post for post in posts if post.get("run_id") == run_id]
