"""What the demos have in common: they take a folder of pictures, call the command line, and name the pages to open."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from penstock.picture_formats import DECODABLE


def folders(about: str | None) -> argparse.Namespace:
    """The command line of a demo: ``images``, a folder of pictures, and ``out``, where all goes that it makes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of pictures")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where everything goes that is made")
    return parser.parse_args()


def pictures_in(folder: Path, command: str) -> list[Path]:
    """The pictures of a folder, in order. Where there are none the demo ends, and names its make command with some."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix[1:].lower() in DECODABLE)
    if not pictures:
        sys.exit(f"no pictures in {folder}: give a folder that has some, e.g. {command} IMAGES=~/Pictures")
    return pictures


def penstock(*arguments: str) -> None:
    """Show a command and run it; leave with its status when it fails."""
    print(f"\n$ penstock {shlex.join(arguments)}\n", flush=True)
    status = subprocess.run([sys.executable, "-m", "penstock", *arguments], check=False).returncode
    if status:
        sys.exit(status)


def name_pages(pages: Mapping[Path, str]) -> None:
    """Say which pages to open, and what is on each."""
    print("\nOpen in a browser:")
    for page, content in pages.items():
        print(f"  {page.resolve()}   {content}")
