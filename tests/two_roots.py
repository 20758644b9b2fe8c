"""What several platforms of the tests stand on: two roots that are cleaned, and the `cleanup.yaml` that names them."""

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

DAY = 86_400


class TwoRoots:
    """Directories `ops` and `dbt`, and where the state and the backups go."""

    #: What is in `cleanup.yaml` besides, unless a test says otherwise.
    always: ClassVar[dict[str, Any]] = {}

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ops = home / "ops"
        self.dbt = home / "dbt"
        self.backups = home / "backups"
        self.state = home / "state"
        self.config = home / "cleanup.yaml"

    def put(self, path: Path, content: str, days: float) -> Path:
        """Write a file that is so many days old."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        moment = time.time() - days * DAY
        os.utime(path, (moment, moment))
        return path

    def configure(self, **more: Any) -> None:
        """Write `cleanup.yaml`, which is JSON here: YAML contains it."""
        content: dict[str, Any] = {
            "state_dir": str(self.state),
            "backup": {"directory": str(self.backups)},
            "targets": [
                {"name": "operations", "kind": "operations", "root": str(self.ops)},
                {
                    "name": "dbt_logs",
                    "kind": "files",
                    "data_type": "dbt_logs",
                    "root": str(self.dbt),
                    "format": "files",
                },
            ],
        }
        self.config.write_text(json.dumps({**content, **self.always, **more}), encoding="utf-8")
