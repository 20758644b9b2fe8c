"""Options that every command takes, commands and groups that know them, and the kinds of values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from cleanup_dagster.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem

    from cleanup_dagster.cli.output import Output

    _Number = click.ParamType[int]
    _Text = click.ParamType[str]
else:  # click before 8.4 has no such brackets
    _Number = _Text = click.ParamType

#: 1 to 36,500: what a policy may say. Named here, too, because importing the rules takes longer than refusing.
DAYS_MIN, DAYS_MAX = 1, 36_500
DATA_TYPES = (
    "pipeline_operations",
    "dbt_logs",
    "failed_operations",
    "completed_operations",
    "system_logs",
    "temp_files",
    "dagster_runs",
)
#: What click adds to the help of a number. A refusal says it, too, and there it is of use.
_RANGE = re.compile(r"  \[[0-9<>=]*x[0-9<>=]*\]$")
COMMON = ("config", "db_host", "db_port", "db_name", "db_user", "db_password", "json")


def common_options() -> list[click.Parameter]:
    """Return the options that go with every command, before or after its name."""
    return [
        click.Option(
            ["--config"],
            metavar="FILE",
            type=click.Path(readable=False),
            help="cleanup.yaml to use, instead of the one in CLEANUP_CONFIG.",
        ),
        click.Option(
            ["--db-host"], metavar="HOST", type=Words(), help="Use Postgres on this host. [default: localhost]"
        ),
        click.Option(
            ["--db-port"],
            metavar="PORT",
            type=Whole(1, 65535),
            help="Use Postgres on this port. [default: 5433]",
        ),
        click.Option(
            ["--db-name"], metavar="NAME", type=Words(), help="Use this Postgres database. [default: dagster]"
        ),
        click.Option(["--db-user"], metavar="USER", type=Words(), help="Connect as this user. [default: dagster]"),
        click.Option(
            ["--db-password"],
            metavar="TEXT",
            type=Words(),
            help="The user's password. Visible to everybody on this host; CLEANUP_DB_PASSWORD is not.",
        ),
        click.Option(["--json"], is_flag=True, help="Print one JSON document on stdout, and nothing else there."),
    ]


def take_common(params: dict[str, Any]) -> dict[str, Any]:
    """Take the options that go with every command out of a command's, and return those that were given."""
    taken = {name: params.pop(name, None) for name in COMMON}
    return {name: value for name, value in taken.items() if value not in {None, False}}


class Context:
    """What the root knows before a command does: the streams, and the options that stood before its name."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self.given: Mapping[str, Any] = {}


class Command(click.Command):
    """A command with the common options in a section of their own. Its function gets the session first."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params.extend(common_options())

    def invoke(self, ctx: click.Context) -> Any:
        """Make the session from the options of the root and of this command; those nearer to the command win."""
        context = ctx.find_object(Context)
        assert context is not None, "the root makes it"  # noqa: S101
        given = {**context.given, **take_common(ctx.params)}
        context.out.as_json = bool(given.get("json"))
        name = ctx.command_path.removeprefix(f"{ctx.find_root().command_path} ")
        ctx.obj = Session(name, given, context.out)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first."""
        write_options(self, ctx, formatter, "Options of every command")


class Group(click.Group):
    """A group of commands, listed in the order they were written down."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in their order."""
        del ctx
        return list(self.commands)


Group.group_class = Group


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, rest: str) -> None:
    """Write a command's own options, then the common ones under the title `rest`; all of the database's at the root."""
    common: list[tuple[str, str]] = []
    own: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and isinstance(parameter, click.Option):  # arguments are told of in the text
            name, said = record
            (common if parameter.name in COMMON else own).append((name, _RANGE.sub("", said)))
    if ctx.parent is not None:
        everywhere = [record for record in common if not record[0].startswith("--db-")]
        common = [
            *everywhere,
            ("--db-...", f"Use Postgres; see {ctx.find_root().command_path} --help, as for the exit codes."),
        ]
    for title, records in (("Options", own), (rest, common)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


class Whole(click.IntRange):
    """A whole number; what is none is refused in words that say which there are."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Fails for text that is none, and for one outside of the range."""
        if re.fullmatch(r"[+-]?[0-9]+", str(value)) is None:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        return super().convert(value, param, ctx)


class Days(_Number):
    """A whole number of days from 1 to 36,500."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Fails for anything that a policy could not say."""
        text = str(value)
        if not text.isascii() or not text.isdigit() or not DAYS_MIN <= int(text[:9]) <= DAYS_MAX:
            self.fail(f"{text!r} is not a whole number of days from {DAYS_MIN} to {DAYS_MAX}", param, ctx)
        return int(text)


class Words(_Text):
    """A text that a database and a terminal can take: a command line may hold any bytes."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Fails for bytes that are no UTF-8."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!r} is not UTF-8", param, ctx)
        return text


class DataType(Words):
    """A data type; the database knows which there are, completion the default ones."""

    name = "data_type"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the data types that have a policy."""
        from cleanup_dagster.cli.completing import data_types

        del param
        return data_types(ctx, incomplete)


class RunId(Words):
    """The id of a run, or its beginning: of a dry run that can be applied, or of one that can be undone."""

    name = "run"

    def __init__(self, *, dry: bool = False) -> None:
        self._dry = dry

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the latest runs."""
        from cleanup_dagster.cli.completing import runs

        del param
        return runs(ctx, incomplete, dry=self._dry)


class HoldId(Whole):
    """The id of a hold, as far as the databases count."""

    def __init__(self) -> None:
        super().__init__(1, 2**31 - 1)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the holds."""
        from cleanup_dagster.cli.completing import holds

        del param
        return holds(ctx, incomplete)


def examples(*lines: str) -> str:
    """Return the part of a command's help that shows how it is used."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
