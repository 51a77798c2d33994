"""Renew what README and docs/quickstart.md quote: run the command named in a marker and put its output between them.

python benchmarks/readme.py demo             # the section that starts with <!-- demo: ... -->: half a minute
python benchmarks/readme.py gpt_block vae contrastive preference head        # those of the quickstart
python benchmarks/readme.py demo spellings   # and the comparison with other tools: an hour
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "quickstart.md")
SECTION = re.compile(r"<!-- (?P<name>\w+): (?P<command>[^\n]*?) -->\n.*?<!-- /(?P=name) -->", re.DOTALL)


def output_of(command: str) -> str:
    """What `python command` prints, run from the top of the repository."""
    arguments = [sys.executable, "-W", "ignore", *command.split()]
    return subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    wanted = sys.argv[1:]
    known = [section["name"] for document in DOCUMENTS for section in SECTION.finditer(document.read_text())]
    if not wanted or not set(wanted) <= set(known):
        raise SystemExit(f"name one or more of: {', '.join(known)}")

    def renew(section: re.Match[str]) -> str:
        if section["name"] not in wanted:
            return section[0]
        body = output_of(section["command"]).strip()
        return f"<!-- {section['name']}: {section['command']} -->\n{body}\n<!-- /{section['name']} -->"

    for document in DOCUMENTS:
        document.write_text(SECTION.sub(renew, document.read_text()))


if __name__ == "__main__":
    main()
