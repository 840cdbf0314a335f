"""Exit 0 if every `NAME==VERSION` line on standard input is installed, else 1."""

import sys
from importlib import metadata


def main() -> int:
    """Compare the lines with the environment that runs this; "+cpu" and the like do not count."""
    for line in sys.stdin.read().split():
        name, _, version = line.partition("==")
        try:
            if metadata.version(name).split("+")[0] != version:
                return 1
        except metadata.PackageNotFoundError:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
