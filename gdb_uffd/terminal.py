"""What may reach a terminal: text in which nothing steers it.  Both sides print through this.

Terminals obey control functions (ECMA-48): a title, a clipboard, an answer typed into the shell.
Names in a core, and what a called function prints, may hold any of them.  They are shown as other
tools do: C0 controls and DEL with a caret (cat -v, stty echoctl), every other byte in octal, as
gdb prints strings.
"""

from __future__ import annotations

import codecs
import re

_SGR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
"""Select graphic rendition (ECMA-48 8.3.117): colours, which stay."""

_BEGUN = re.compile(r"(?:\x1b(?:\[[0-9;:]{0,64})?|\r)\Z")
"""The end of a text that may go on as a colour, or as a line's end."""

_STEERS = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""C0 and C1 controls, bytes that are no text, embedded and overridden directions (UAX #9, 2.1 to
2.4)."""


def _visible(char: str, charset: str = "utf-8") -> str:
    if char < " " or char == "\x7f":
        return "^" + chr(ord(char) ^ 0x40)
    try:
        data = char.encode(charset, "surrogateescape")
    except UnicodeEncodeError:
        data = char.encode("utf-8", "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)


def printable(text: str, keep: str = "") -> str:
    """`text` as one line in which nothing steers a terminal, colours included; the characters of
    `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _visible(c) for c in text)


def printable_lines(text: str) -> str:
    """The same of several lines: line ends and tabs stay."""
    return printable(text, "\n\t")


def known_charset(name: str) -> str:
    """Python's name for an iconv charset.  UTF-8 for one that it does not have or that is none of
    a terminal, and for ASCII, which is what a machine without a locale says of its own."""
    try:
        found = codecs.lookup(name)
        if found.name != "ascii" and "a[".encode(name) == b"a[" and found.incrementaldecoder:
            found.incrementaldecoder("surrogateescape").decode(b"a\xff", True)
            return found.name
    except (LookupError, ValueError):
        pass
    return "utf-8"


class Output:
    """A program's output, piece by piece, as a terminal may have it.

    Line ends, tabs and colours stay; what is split between two pieces is seen as one.
    `feed` gives what can be shown so far; `rest` what was held back; `plain` ends the colour.
    """

    def __init__(self, charset: str = "utf-8") -> None:
        self._charset = known_charset(charset)
        self._reset()

    def _reset(self) -> None:
        self._decoder = codecs.getincrementaldecoder(self._charset)("surrogateescape")
        self._held = ""
        self._coloured = False

    @property
    def held_bytes(self) -> int:
        """How many bytes at the end were fed and are not shown yet."""
        undecoded = self._decoder.getstate()[0]
        return len(self._encode(self._held)) + len(undecoded)

    def feed(self, data: bytes) -> bytes:
        """What `data` adds."""
        text = self._held + self._decoder.decode(data)
        begun = _BEGUN.search(text)
        self._held = begun[0] if begun else ""
        return self._shown(text[: len(text) - len(self._held)])

    def rest(self) -> bytes:
        """What was held back for more to come; nothing does."""
        text = self._held + self._decoder.decode(b"", True)
        self._held = ""
        return self._shown(text)

    def plain(self) -> bytes:
        """What makes the terminal's colour its own again; b"" where it is."""
        self._coloured, was = False, self._coloured
        return b"\x1b[m" if was else b""

    def drop(self) -> None:
        """Forget what was held back: somebody else shows it."""
        coloured = self._coloured
        self._reset()
        self._coloured = coloured

    def _shown(self, text: str) -> bytes:
        out, at = [], 0
        for colour in _SGR.finditer(text):
            out += [self._without(text[at : colour.start()]), colour[0]]
            self._coloured = bool(colour[0][2:-1].strip("0"))
            at = colour.end()
        return self._encode("".join([*out, self._without(text[at:])]))

    def _without(self, text: str) -> str:
        return _STEERS.sub(self._show, text)

    def _show(self, found: "re.Match[str]") -> str:
        return _visible(found[0], self._charset)

    def _encode(self, text: str) -> bytes:
        return text.encode(self._charset, "surrogateescape")


def one_line(text: str) -> str:
    """`text` as a single printable line: it may hold a core's or a program's own bytes."""
    return printable(" ".join(text.split()))
