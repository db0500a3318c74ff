"""`python -m langevin` is `langevin`."""

from langevin.cli import main

main()
