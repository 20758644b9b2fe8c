# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownParameterType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeArgument=false, reportAttributeAccessIssue=false
# schemathesis leaves the parameters of its generic classes open.
"""The API keeps what its own description promises, whoever asks: attacked by schemathesis with its checks."""

from collections.abc import Generator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from web_helpers import OPERATOR, VIEWER, Platform, bearer

from cleanup_dagster.web.auth import Rates

#: All checks but two. Well-formed values may still name what is not there, and this platform has no Dagster (503).
_NOT_HERE = [positive_data_acceptance, not_a_server_error]


@pytest.fixture
def api(platform: Platform) -> Generator[schemathesis.BaseSchema]:
    """The page's own description of itself, without limits on how often one may ask."""
    platform.operation("old", 120)
    app = platform.app(Rates(bad_logins=10**6, changes=10**6))
    yield schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "localhost", **bearer(VIEWER)})
    app.state.parts.snapshots.stop()
    app.state.parts.launcher.close()
    app.state.parts.platform.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize(
    ("headers", "examples"),
    [(bearer(OPERATOR), 6), (bearer(VIEWER), 3), ({}, 2)],
    ids=["operator", "viewer", "nobody"],
)
def test_what_is_promised_is_kept(
    api: schemathesis.BaseSchema, headers: dict[str, str], examples: int, mode: GenerationMode
) -> None:
    attacked = 0
    for found in api.get_all_operations():

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            phases=[Phase.generate],
        )
        @given(case=found.ok().as_strategy(mode))
        def attack(case: Case) -> None:
            nonlocal attacked
            answered = case.call_and_validate(headers={"Host": "localhost", **headers}, excluded_checks=_NOT_HERE)
            assert answered.status_code < 500 or answered.status_code == 503
            attacked += 1

        try:
            attack()
        except Unsatisfiable:  # what takes nothing cannot be given anything wrong
            assert mode is GenerationMode.NEGATIVE
    assert attacked > 20
