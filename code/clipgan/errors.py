"""The two ends of a script that are no bugs: a mistake of the user's, and a run that was asked to stop."""

from __future__ import annotations

LONGEST = 480  # characters of a message: with "error: " before it, a line stays below 500


class UserError(Exception):
    """Something the user can mend: a missing file, an unknown key, a wrong value.

    The message is a line that names the file or key and says what would have been right. The scripts print it
    after ``error:`` on standard error and exit with status 2; every other exception keeps its traceback.
    Whatever a stranger's file brings into it, the message is one printable line of at most ``LONGEST`` characters.
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(str(message)))


class Stopped(Exception):
    """A run that was asked to end has saved its state; the message says how to go on. The exit status is 0."""


def one_line(text: str, longest: int = LONGEST) -> str:
    """``text`` without line breaks and invisible characters; what is too long loses its middle."""
    text = text[: 4 * longest] + text[4 * longest :][-longest:]
    text = "".join(character if character.isprintable() else " " for character in text).strip()
    if len(text) <= longest:
        return text
    head = longest * 2 // 3
    return f"{text[:head]} … {text[head + 3 - longest :]}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, ``many`` (or ``one`` with an "s") unless it is 1: "1 picture", "2,000 pictures"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
