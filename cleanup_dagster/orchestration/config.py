"""What a run can be asked for, at the root of the launchpad. Every default is the safe choice."""

from typing import Literal

import dagster as dg
from pydantic import Field


class CleanupConfig(dg.Config):
    """The run config of the job `cleanup`: `{"dry_run": false, "type": "manual"}` is a complete one."""

    dry_run: bool = Field(
        default=True,
        description="Only plan and report what a live run would delete, and why. Nothing is changed.",
    )
    type: Literal["automatic", "manual", "emergency"] = Field(
        default="manual",
        description=(
            "Who asks: automatic is the schedule, manual a person. emergency bypasses the guardrails on number, bytes, "
            "share and growth; it shortens no retention and overrides no hold."
        ),
    )
    plan: str = Field(
        default="",
        description=(
            "Run id of a finished dry run: exactly its list is deleted, each item verified again. Such a reviewed plan "
            "bypasses the guardrails on number, bytes, share and growth. Needs dry_run: false."
        ),
    )
    skip_backup: bool = Field(
        default=False,
        description="Delete without backup, for a full disk. Only with type emergency; there is no undo.",
    )


@dg.config_mapping
def cleanup_config(config: CleanupConfig) -> dg.RunConfig:
    """Put the config at the root of the launchpad, where people look for it."""
    return dg.RunConfig(
        ops={
            "load_policies": CleanupConfig(
                dry_run=config.dry_run, type=config.type, plan=config.plan, skip_backup=config.skip_backup
            ),
        }
    )
