"""The command line. Nothing here imports torch until a command runs."""

from langevin.cli.main import main

__all__ = ["main"]
