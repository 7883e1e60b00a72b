"""The main job in one go: embed a folder of pictures, search it, name the contact sheet to open.

Run it with ``make demo``, or ``python examples/demo.py FOLDER --out FOLDER``. It only calls the command line, and shows
each command, so that each step can be repeated by hand.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def penstock(*arguments: str) -> None:
    """Show a command and run it; leave with its status when it fails."""
    print(f"\n$ penstock {shlex.join(arguments)}\n", flush=True)
    status = subprocess.run([sys.executable, "-m", "penstock", *arguments], check=False).returncode
    if status:
        sys.exit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of pictures")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the store and the pages go")
    options = parser.parse_args()
    queries = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in PICTURES)
    if not queries:
        sys.exit(f"no pictures in {options.images}: give a folder that has some, e.g. make demo IMAGES=~/Pictures")
    options.out.mkdir(parents=True, exist_ok=True)
    store, sheet, report = options.out / "demo.db", options.out / "contact-sheet.html", options.out / "report.html"

    penstock("embed", str(options.images), "--to", str(store), "--report", str(report))
    penstock("search", str(store), str(queries[0]), "-k", "8", "--html", str(sheet))
    print("\nOpen in a browser:")
    print(f"  {sheet.resolve()}   the query and its neighbours")
    print(f"  {report.resolve()}   what each stage did")


if __name__ == "__main__":
    main()
