# ruff: noqa: INP001 - scripts of CI, no package
"""A pytest plugin for CI: when every test that needs root was skipped, what it guards was not tested at all."""

import pytest


class _RootTests:
    def __init__(self) -> None:
        self.skipped = 0
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "needs_root" in report.keywords:
            self.skipped += report.skipped
            self.ran += report.when == "call" and not report.skipped

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and not self.ran:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped and not self.ran:
            terminalreporter.write_line(f"all {self.skipped} tests that need root skipped: run CI as root", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Count along."""
    config.pluginmanager.register(_RootTests())
