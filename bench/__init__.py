"""What each backend costs and how good its ratings are: every case is checked first, then timed in a fresh process.

Run it from a checkout with ``python -m bench``, or without a command line through `bench.suite.run_suite`.
"""
