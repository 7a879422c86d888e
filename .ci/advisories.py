"""Tells what pip-audit found, from its JSON on standard input: exits 1 for a known vulnerability, 0 where it could not ask.

That an index is away says nothing about our packages, so it fails nobody's build; it is said, so that nobody takes it for an
answer.
"""

import json
import sys
from typing import Any, Final

_NOBODY_ASKED: Final = "audit: could not ask for advisories; nothing is known of any package."


def told(text: str) -> tuple[list[str], int]:
    """The lines to print, and the exit status, of what pip-audit wrote."""
    try:
        packages: list[dict[str, Any]] = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [_NOBODY_ASKED], 0
    skipped = [package for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        # An index without advisories knows of no package.
        return [_NOBODY_ASKED], 0
    lines, vulnerable = [f"{package['name']}: not looked at: {package['skip_reason']}" for package in skipped], 0
    for package in packages:
        vulnerable += bool(package.get("vulns"))
        for each in package.get("vulns", ()):
            fixed = ", ".join(each["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {each['id']}; fixed in {fixed}")
    looked_at = len(packages) - len(skipped)
    lines.append(f"audit: {looked_at:,} packages were looked at; {vulnerable:,} with known vulnerabilities.")
    return lines, 1 if vulnerable else 0


if __name__ == "__main__":
    found, status = told(sys.stdin.read())
    sys.stdout.write("\n".join([*found, ""]))
    sys.exit(status)
