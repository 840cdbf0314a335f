"""Print an extra of pyproject.toml, one requirement a line: `requirements.py dev [NAME...]`.

With names, only those packages. pip itself cannot install an extra without building the project.
"""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print the extra named first, or those of its packages that are named after it."""
    extra, *names = sys.argv[1:]
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    for requirement in tomllib.loads(text)["project"]["optional-dependencies"][extra]:
        name = re.split(r"[^\w.-]", requirement)[0]
        if not names or name in names:
            print(requirement)


if __name__ == "__main__":
    main()
