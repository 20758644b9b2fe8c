# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""What a run can be asked for, at the root of the launchpad. Every default is the safe choice."""

from typing import Any, Literal, get_args, get_origin

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
    disk_pressure: bool = Field(
        default=False,
        description=(
            "For a disk that fills up: prune expired backups first, then back up as archives, into "
            "disk_pressure.backup_directory where one is configured."
        ),
    )


def root_schema(config: type[dg.Config]) -> dict[str, dg.Field]:
    """Return the fields of a config class as the launchpad's root takes them: plain values only.

    Dagster reads a bool or a text of a config class from `{env: NAME}` too, and takes an empty variable for false:
    `dry_run: {env: DRY_RUN}` would have been a live run whenever DRY_RUN was set to nothing. It also lets null pass.
    """
    return {
        name: dg.Field(
            _kind(field.annotation),
            description=field.description,
            is_required=field.is_required(),
            **({} if field.is_required() else {"default_value": field.get_default(call_default_factory=True)}),
        )
        for name, field in config.model_fields.items()
    }


def _kind(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        words = get_args(annotation)
        return dg.Enum(" | ".join(words), [dg.EnumValue(word) for word in words])  # the launchpad shows the name
    return {bool: dg.Bool, str: dg.String, list[str]: dg.Array(dg.String)}[annotation]


@dg.config_mapping(config_schema=root_schema(CleanupConfig))
def cleanup_config(config: dict[str, Any]) -> dict[str, Any]:
    """Put the config at the root of the launchpad, where people look for it."""
    return {"ops": {"load_policies": {"config": config}}}
