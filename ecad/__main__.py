"""`python -m ecad` is the same as `ecad`."""

from ecad.cli import main

main()
