from tests.mutants.cli import main

main()
