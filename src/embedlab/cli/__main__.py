"""`python -m embedlab.cli`: the same as `embedlab`."""

from embedlab.cli.main import main

main()
