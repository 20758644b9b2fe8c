"""What holds for the page's files as they lie there: nothing inline, nothing from elsewhere, nothing parsed."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

WEB = Path(str(files("cleanup_dagster.web")))
TEMPLATES = sorted((WEB / "templates").rglob("*.html"))
MODULES = sorted((WEB / "static").rglob("*.js"))
OURS = [path for path in MODULES if "vendor" not in path.parts]


def test_there_is_a_page() -> None:
    assert {"page.html", "login.html", "base.html"} <= {path.name for path in TEMPLATES}
    assert {"main.js", "login.js", "uPlot.iife.min.js"} <= {path.name for path in MODULES}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_a_script_or_a_style(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert all('src="/static/' in tag for tag in re.findall(r"<script[^>]*>", text))
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)
    assert "|safe" not in text.replace(" ", "")


@pytest.mark.parametrize("module", OURS, ids=lambda path: path.name)
def test_no_module_takes_data_for_markup(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function", text)
    assert len(text.splitlines()) < 500


def test_what_is_vendored_says_where_it_is_from() -> None:
    vendored = WEB / "static" / "vendor"
    readme = (vendored / "README.md").read_text(encoding="utf-8")
    for path in vendored.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in readme, path.name
    version = re.search(r"\| ([0-9.]+) \| MIT", readme)
    assert version
