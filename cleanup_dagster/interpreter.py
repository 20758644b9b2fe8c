"""Starting modules of this package as processes of their own."""

import sys

#: `python -m` would look for modules in the working directory first. That may be /tmp, where everybody may put a
#: module of any name, and the process root's. (`-P` does the same from Python 3.11 on; `-I` ignores PYTHONPATH, too.)
_RUN = "import sys; sys.path[:] = [place for place in sys.path if place]; from {} import main; sys.exit(main())"


def command_of(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module's `main` with these arguments, importing nothing from where it is run."""
    return [sys.executable, "-c", _RUN.format(module), *arguments]
