"""``python -m bench``: check every backend, time it, and write a report."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, or say how to do without it."""
    try:
        from bench import cli
    except ImportError as error:
        print(f"{error}: install the extra mf[bench], or run python -m bench.suite, which needs less", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before anything began", file=sys.stderr)
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
