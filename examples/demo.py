"""The main job in one go: embed a folder of pictures, search it, name the contact sheet to open.

Run it with ``make demo``, or ``python examples/demo.py FOLDER --out FOLDER``. It only calls the command line, and shows
each command, so that each step can be repeated by hand.
"""

from __future__ import annotations

from penstock.examples.demo_steps import folders, name_pages, penstock, pictures_in


def main() -> None:
    options = folders(__doc__)
    queries = pictures_in(options.images, "make demo")
    options.out.mkdir(parents=True, exist_ok=True)
    store, sheet, report = options.out / "demo.db", options.out / "contact-sheet.html", options.out / "report.html"

    penstock("embed", str(options.images), "--to", str(store), "--report", str(report))
    penstock("search", str(store), str(queries[0]), "-k", "8", "--html", str(sheet))
    name_pages({sheet: "the query and its neighbours", report: "what each stage did"})


if __name__ == "__main__":
    main()
