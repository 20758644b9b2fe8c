"""A configuration file of this test's own: written, loaded, or refused with these words."""

from collections.abc import Callable
from pathlib import Path

import pytest
from settings_helpers import Write

from cleanup_dagster.settings import ConfigError, Settings, load_settings


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: str | bytes) -> Path:
        path = tmp_path / "cleanup.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


@pytest.fixture
def load(write: Write) -> Callable[..., Settings]:
    def loaded(content: str | bytes, **environ: str) -> Settings:
        return load_settings(environ, write(content))

    return loaded


@pytest.fixture
def refused(write: Write) -> Callable[..., tuple[str, ...]]:
    def problems(content: str | bytes, **environ: str) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            load_settings(environ, write(content))
        assert str(caught.value) == "\n".join(caught.value.problems)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None, "a traceback would show what the message leaves out"
        return caught.value.problems

    return problems
