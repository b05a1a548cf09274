"""Fuzzing: bytes that no one would write, given to every reader of files and to the commands.

    python -m tests.fuzz                          # each target for ten minutes, guided by coverage (pip install atheris)
    python -m tests.fuzz squad --seconds=60       # one of them

A target may refuse (UserError) or read; anything else is a fault: another exception, 20 s on one input, memory beyond 1 GB.
tests/test_fuzz.py runs the seeds, what was once a fault, and some mutations of both in every `make test`.
"""
