"""Holds over the API: one that keeps nothing as things are says so, and is taken all the same."""

from typing import Any

from httpx import Client
from web_helpers import API, Platform


def place(operator: Client, pattern: str, **more: str) -> dict[str, Any]:
    answered = operator.post(f"{API}/holds", json={"pattern": pattern, "reason": "audit", **more})
    assert answered.status_code == 201, answered.text
    return answered.json()


def test_a_hold_in_no_target_is_placed_with_a_warning(operator: Client, platform: Platform) -> None:
    mistyped = f"{platform.home}/obs/operation_1.json"
    warning = f"{mistyped} lies in no target; targets: operations ({platform.ops})"
    placed = place(operator, mistyped)
    assert placed["warning"] == warning
    assert placed["message"] == f"the hold is placed, but keeps nothing: {warning}"
    (listed,) = operator.get(f"{API}/holds").json()["holds"]
    assert (listed["pattern"], listed["active"], listed["warning"]) == (mistyped, True, warning)


def test_a_hold_of_a_data_type_that_is_not_cleaned_there_warns(operator: Client, platform: Platform) -> None:
    inside = str(platform.ops)
    assert place(operator, inside, data_type="failed_operations")["warning"] is None
    warning = place(operator, inside, data_type="dbt_logs")["warning"]
    assert warning == f"{inside} lies in no target of data type dbt_logs; targets: operations ({platform.ops})"


def test_a_hold_that_was_in_no_target_counts_once_there_is_one(operator: Client, platform: Platform) -> None:
    planned = platform.home / "planned"
    assert place(operator, f"{planned}/**")["warning"]
    planned.mkdir()
    platform.configure(targets=[{"name": "planned", "kind": "operations", "root": str(planned)}])
    (listed,) = operator.get(f"{API}/holds").json()["holds"]
    assert listed["warning"] is None


def test_a_hold_that_could_match_in_a_target_warns_of_nothing(operator: Client, platform: Platform) -> None:
    for pattern in (f"{platform.ops}/not/there", str(platform.home), "/", "**/x.json", f"{platform.home}/o?s/*.json"):
        placed = place(operator, pattern)
        assert (placed["message"], placed["warning"]) == ("the hold is in force", None), pattern
