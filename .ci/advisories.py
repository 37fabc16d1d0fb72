"""Judges the report of pip-audit: vulnerabilities fail, and what was not looked up is said."""

import json
import sys
from pathlib import Path

path = Path(sys.argv[1])
if not path.exists():
    print("the advisory service could not be asked: nothing is known of vulnerabilities")
    sys.exit()
packages = json.loads(path.read_text())["dependencies"]
asked = [package for package in packages if "skip_reason" not in package]
if not asked:
    print("the advisory service knows none of the packages: nothing is known of vulnerabilities")
    sys.exit()
print(f"looked up {len(asked)} of {len(packages)} packages")
found = [(package, flaw) for package in asked for flaw in package["vulns"]]
for package, flaw in found:
    fixed = ", ".join(flaw["fix_versions"]) or "no version"
    print(f"{package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}")
sys.exit(1 if found else 0)
