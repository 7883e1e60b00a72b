"""What a terminal shows in the end of all the bytes that were written to it: for tests of what stays on the screen."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\x1b\[(?P<arguments>[?\d;]*)(?P<command>[A-Za-z])|(?P<char>.)", re.DOTALL)


def shown(written: str) -> list[str]:
    """The lines of the screen, scrolled-off ones included, down to the last that is not empty.

    Knows the sequences that rich and penstock write: line feeds, the cursor up and to the left, erasing lines and what
    is below; colours and the cursor's looks change nothing. Lines are never wrapped: give the terminal room.
    """
    lines, row, column = [""], 0, 0
    for token in _TOKEN.finditer(written):
        number = int(token["arguments"]) if (token["arguments"] or "").isdigit() else 1
        if token["command"]:
            if token["command"] == "A":
                row = max(0, row - number)
            elif token["command"] == "G":
                column = 0
            elif token["command"] == "K":
                lines[row] = "" if token["arguments"] == "2" else lines[row][:column]
            elif token["command"] == "J":
                lines[row:] = [lines[row][:column]]
            else:
                assert token["command"] in "mhl", f"unknown sequence {token[0]!r}"
        elif token["char"] == "\n":  # a terminal in its usual mode: to the beginning of the next line
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token["char"] == "\r":
            column = 0
        else:
            lines[row] = lines[row].ljust(column)[:column] + token["char"] + lines[row][column + 1 :]
            column += 1
    return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n")
