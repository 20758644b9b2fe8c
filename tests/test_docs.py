"""What the documentation shows has to work: its configuration, its SQL, its links, and the tests it names."""

import re
from collections import Counter
from pathlib import Path

import pytest

from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import load_holds
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.database.schema import open_embedded
from cleanup_dagster.environment import OVERRIDES
from cleanup_dagster.retention.models import Policy
from cleanup_dagster.settings import Settings, load_settings

_TOP = Path(__file__).parent.parent
_DOCS = _TOP / "docs"
_PAGES = [
    _TOP / "README.md",
    _TOP / "RELIABILITY.md",
    _TOP / "CONTRIBUTING.md",
    _TOP / "CHANGELOG.md",
    *sorted(_DOCS.glob("*.md")),
]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _loaded(text: str, tmp_path: Path) -> Settings:
    path = tmp_path / "cleanup.yaml"
    path.write_text(text)
    return load_settings({}, path)


def test_the_reference_shows_every_key_with_its_default(tmp_path: Path) -> None:
    (text,) = _blocks(_DOCS / "configuration.md", "yaml")
    shown = _loaded(text, tmp_path)
    plain = _loaded(
        f"state_dir: {shown.state_dir}\nworkers: {shown.workers}\n"  # both defaults depend on the machine
        "targets:\n"
        f"  - {{name: operations, kind: operations, root: {shown.targets[0].root}, limits: {{max_files: 5000}}}}\n"
        f"  - {{name: dbt_target, kind: files, data_type: dbt_logs, root: {shown.targets[1].root}}}\n"
        "  - {name: dagster_runs, kind: dagster_runs}\n",
        tmp_path,
    )
    assert shown.model_dump() == plain.model_dump()
    keys = set(re.findall(r"([a-z_]+):", text))
    wanted = {*Settings.model_fields} - {
        "database_url",
        "alert_webhook",
        "dagster_home",
        "config_file",
        "dagster_runs",
        "operator_token",
        "viewer_token",
    }
    for target in shown.all_targets:
        wanted |= {*type(target).model_fields}
    wanted |= {*type(shown.backup).model_fields, *type(shown.schedule).model_fields, *shown.limits.__struct_fields__}
    wanted |= {*type(shown.web).model_fields}
    wanted |= {*type(shown.alerts).model_fields, *type(shown.disk_pressure).model_fields}
    assert wanted - keys == set()
    assert (
        set(re.findall(r"`((?:CLEANUP|DAGSTER)_[A-Z_]+)`", (_DOCS / "configuration.md").read_text()))
        >= OVERRIDES.keys()
    )


def test_the_readme_shows_a_configuration_that_loads(tmp_path: Path) -> None:
    (text,) = _blocks(_TOP / "README.md", "yaml")
    assert _loaded(text, tmp_path).targets


def test_the_sql_that_is_shown_does_what_it_says(tmp_path: Path) -> None:
    engine = open_embedded(tmp_path / "cleanup.db")
    with engine.begin() as conn:
        for page in (_TOP / "README.md", _DOCS / "operating.md"):
            for statement in ";".join(_blocks(page, "sql")).split(";"):
                if sql := re.sub(r"--.*", "", statement).strip():
                    conn.exec_driver_sql(sql)
    with reading(engine) as conn:
        policies, holds = load_policies(conn), load_holds(conn)
    assert all(isinstance(policy, Policy) for policy in policies.values())
    assert policies["exports"] == Policy("exports", 60, enabled=True)
    assert [(hold.data_type, hold.until_ns is None) for hold in holds] == [("failed_operations", False)]
    engine.dispose()


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_and_tests_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", text):
        target = page.parent / link if link else page
        if link.startswith("docs/images/"):
            continue  # made by a browser
        assert target.exists(), link
        assert not anchor or anchor[1:] in _anchors(target), f"{link}{anchor}"
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (_TOP / file).exists(), file
        assert not name or f"def {name}(" in (_TOP / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_every_row_about_a_threat_names_a_test_or_says_why_there_is_none() -> None:
    text = (_DOCS / "threats.md").read_text(encoding="utf-8")
    defined = Counter(
        name
        for module in (_TOP / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)\(", module.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {name: defined[name] for name in re.findall(r"`(test_\w+)`", text) if defined[name] != 1} == {}
    tables = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    shown = [row.split("|")[-2].strip() for table in tables for row in table.splitlines()]
    assert len(shown) > 100
    assert [cell for cell in shown if "`test_" not in cell and not cell.startswith("**not shown**: ")] == []


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
