"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

    python .ci/lowest_versions.py cpu report test >lowest.txt
    "numpy>=1.26"  ->  "numpy==1.26"

The versions are those of the package's own dependencies and of the extras that are named. Packages that only a
dependency needs are left out: their lower bounds are that dependency's to state. Only the standard library is used,
because the script runs before anything is installed.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest_versions(project: dict[str, Any], extras: Iterable[str]) -> Iterator[str]:
    """Yield a constraint for each requirement of the package and of the extras, following extras that name others."""
    optional: dict[str, list[str]] = project["optional-dependencies"]
    waiting = [*project["dependencies"], *(text for name in extras for text in optional[name])]
    for requirement in waiting:
        found = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:>=([\w.]+))?", requirement)
        name, more, version = found.groups() if found else (requirement, None, None)
        if name == project["name"]:
            waiting.extend(text for extra in more.split(",") for text in optional[extra])
        elif version is None:
            raise SystemExit(f"{requirement}: has no lower bound; write NAME>=VERSION in pyproject.toml")
        else:
            yield f"{name}=={version}"


if __name__ == "__main__":
    document = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    print(*sorted(set(lowest_versions(document["project"], sys.argv[1:]))), sep="\n")
