"""What this package raises, and what can be wrong with a datagram.

    IcpError       everything this package raises
      BadPacket    a datagram is not a well-formed message; carries the Fault
      BadUrl       raised by a lookup that cannot understand a URL: answered with ERR

A ``Fault`` is one row, from which the counter's word, the sentence and the question whether an ERR is due are answered.
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """What is wrong with a datagram: (word for the counter, sentence, whether its sender is due an ICP ERR).

    ERR is due where the header is that of a query, so that the fault is the URL's alone; patched Squids (7.5, Debian's
    5.7) do the same.  Anything else may be forged or may be our own words come back, and gets nothing.
    """

    SHORT = ("short", "{} bytes, shorter than a header", False)
    VERSION = ("version", "version {}", False)
    LENGTH = ("length", "a length field of {} in {} bytes", False)
    OPCODE = ("opcode", "unknown opcode {}", False)
    UNSOLICITED = ("unsolicited", "a reply (opcode {}) where a query was expected", False)
    NOT_A_REPLY = ("not_a_reply", "opcode {} where a reply was expected", False)
    # ICP
    HIT_OBJ = ("hit_obj", "carries an object, which nobody asks for", False)
    ECHO = ("echo", "meant for a UDP echo port", False)
    REQNUM_ZERO = ("reqnum_zero", "request number 0, which no reply may carry", False)
    NO_URL = ("no_url", "{} bytes end before the URL", True)
    NO_NUL = ("no_nul", "a URL field of {} bytes without a NUL at its end", True)
    STRAY_NUL = ("stray_nul", "a URL field of {} bytes with a NUL inside", True)
    LONG_URL = ("long_url", "a URL of {} bytes", True)
    # HTCP
    SECTION = ("section", "a string of {} bytes where {} are left", False)
    TRAILING = ("trailing", "{} bytes behind the last field", False)
    AUTH = ("auth", "{} bytes of authentication, which is not spoken here", False)

    def __init__(self, word: str, text: str, is_err_due: bool) -> None:
        self.word = word
        self.text = text
        self.is_err_due = is_err_due


class IcpError(Exception):
    """Base of what this package raises."""


class BadPacket(IcpError, ValueError):
    """The datagram is not a well-formed message of the kind expected.

    values: the numbers of the fault's sentence, which is put together only when somebody reads it: in a flood nobody does.
    reqnum: for the ERR reply, if the fault says that one is due; else 0.
    """

    def __init__(self, fault: Fault, *values: int, reqnum: int = 0) -> None:
        super().__init__(fault, *values)
        self.fault = fault
        self.values = values
        self.reqnum = reqnum

    def __str__(self) -> str:
        return self.fault.text.format(*self.values)


class BadUrl(IcpError, ValueError):
    """A lookup cannot understand the URL."""
