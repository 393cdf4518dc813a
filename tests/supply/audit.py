"""Known holes in the pinned dependencies, by pip-audit: ``python -m tests.supply.audit FILE``.

Ends with 1 where there are any, and with 2 where nobody could be asked: silence is no answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SERVICES = ("pypi", "osv")


def main(file: str) -> int:
    """Ask one service after another; the first that knows all packages answers."""
    reached: list[str] = []
    for service in SERVICES:
        found = _ask(service, file)
        holes = [each for each in found if each.get("vulns")]
        for each in holes:
            for hole in each["vulns"]:
                fixed = ", ".join(hole.get("fix_versions") or ()) or "no version"
                print(f"{each['name']} {each['version']}: {hole['id']}, put right in {fixed}")
        if holes:
            return 1
        known = [each for each in found if "skip_reason" not in each]
        if found and len(known) == len(found):
            print(f"{len(known)} packages of {file} have no known holes ({service})")
            return 0
        reached.append(f"{service} knows {len(known)} of {len(found)} packages")
    print(
        f"{file} could not be audited: {'; '.join(reached)}; repeat it where their databases can "
        "be reached"
    )
    return 2


def _ask(service: str, file: str) -> list[dict[str, Any]]:
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", file, "--no-deps", "--disable-pip"),
        *("--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"),
        *("--timeout", "10"),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    try:
        return list(json.loads(answer)["dependencies"])
    except (ValueError, KeyError, TypeError):  # it was not reached at all
        return []


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
