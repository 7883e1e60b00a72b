"""A terminal, what it shows in the end of all that was written to it, and a job to show there."""

from __future__ import annotations

import io
import re

from penstock.engine import Accounting, Bottleneck, ChannelReport, Report, StageReport

_TOKEN = re.compile(r"\x1b\[(?P<arguments>[?\d;]*)(?P<command>[A-Za-z])|(?P<char>.)", re.DOTALL)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def halfway() -> Report:
    """500 of 1,000 are done, 10 of them dead, at 100/s."""
    return Report(
        Accounting(read=520, delivered=480, dropped=10, failed=10, in_flight=20),
        [
            StageReport("source", "source", items_out=520, rate_now=99.0, rate=100.0, busy=0.1),
            StageReport(
                "[red]prep\x1b[0m",
                "green",
                items_out=490,
                failed=10,
                rate_now=98.0,
                rate=100.0,
                busy=0.97,
                channel=ChannelReport(2, 4),
            ),
            StageReport("sink", "sink", items_out=480, rate_now=97.0, rate=100.0, channel=ChannelReport(0, 4)),
        ],
        Bottleneck("[red]prep\x1b[0m", 0.97, "it is busy", 2.0),
        seconds=5.0,
        items_per_second=96.0,
    )


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
