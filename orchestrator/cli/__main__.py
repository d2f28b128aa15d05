"""`python -P -m orchestrator.cli`: how the worker is started detached."""

from orchestrator.cli.main import main

main()
