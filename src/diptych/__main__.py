"""Run the command line as `python -m diptych`, which `torchrun -m diptych` needs."""

from diptych.cli.main import main

main()
