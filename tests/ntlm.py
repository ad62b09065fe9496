"""NTLM as a web server speaks it: three messages, all on one connection, which is the user's from then on.

Only the server's side is here, and only NTLMv2; its user is ``USER`` with ``PASSWORD``, in whatever domain.

Source: [MS-NLMP], sections 2.2.1 and 3.3.2; [MS-NTHT].
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import struct
import threading
from dataclasses import dataclass, field

from fakes import FakeSquid, Peer, ok

USER = "alice"
PASSWORD = "password"
_NT_HASH = bytes.fromhex("8846f7eaee8fb117ad06bdd830b7586c")  # MD4 of PASSWORD in UTF-16, which OpenSSL no longer makes
_FLAGS = 0x00800000 | 0x00080000 | 0x00008000 | 0x00000200 | 0x00000001  # target info, extended security, sign, NTLM, Unicode
_credentials = re.compile(rb"(?im)^(?:proxy-)?authorization: *(NTLM|Negotiate) +([A-Za-z0-9+/=]+)\r$").search


def message_1() -> str:
    """What a client begins with, as the value of Authorization."""
    return _shown(b"NTLMSSP\0" + struct.pack("<II", 1, _FLAGS) + bytes(16))


def message_2(challenge: bytes) -> str:
    """The server's answer to it."""
    info = struct.pack("<HH", 2, 8) + "TEST".encode("utf-16-le") + struct.pack("<HH", 0, 0)
    fixed = b"NTLMSSP\0" + struct.pack("<IHHII", 2, 0, 0, 48, _FLAGS) + challenge + bytes(8)
    return _shown(fixed + struct.pack("<HHI", len(info), len(info), 48) + info)


def message_3(challenge_field: bytes, user: str = USER) -> str:
    """The client's proof, for the value of WWW-Authenticate that it got."""
    challenge = base64.b64decode(challenge_field.split()[1])[24:32]
    blob = b"\x01\x01" + bytes(26) + bytes(4)
    proof = _proof(user, "", challenge, blob) + blob
    name = user.encode("utf-16-le")
    at = 64
    parts = b""
    offsets = []
    for part in (b"", proof, b"", name, b"", b""):  # LM, NT, domain, user, workstation, key
        offsets.append(struct.pack("<HHI", len(part), len(part), at))
        parts += part
        at += len(part)
    return _shown(b"NTLMSSP\0" + struct.pack("<I", 3) + b"".join(offsets) + struct.pack("<I", _FLAGS) + parts)


def _shown(message: bytes) -> str:
    return "NTLM " + base64.b64encode(message).decode()


def _proof(user: str, domain: str, challenge: bytes, blob: bytes) -> bytes:
    key = hmac.digest(_NT_HASH, (user.upper() + domain).encode("utf-16-le"), "md5")
    return hmac.new(key, challenge + blob, hashlib.md5).digest()


def _user_of(message: bytes, challenge: bytes) -> str | None:
    """Who has proved to be who, by the third message; None if nobody."""

    def part(at: int) -> bytes:
        length, _, offset = struct.unpack_from("<HHI", message, at)
        return message[offset : offset + length]

    nt, domain, user = part(20), part(28).decode("utf-16-le"), part(36).decode("utf-16-le")
    return user if hmac.compare_digest(nt[:16], _proof(user, domain, challenge, nt[16:])) else None


@dataclass
class NtlmServer:
    """What a server has seen: users of each connection, in the order of its requests; "" where nobody was known yet."""

    server: FakeSquid
    proxy: bool = False  # asks for Proxy-Authorization, with 407
    name: str = ""
    seen: list[list[str]] = field(default_factory=list)
    broken: int = 0  # third messages that came without a second one, or were wrong
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> NtlmServer:
        """Serve from now on; answers to known users say who they are."""
        self.server.serve_by(self._serve)
        return self

    def _serve(self, peer: Peer) -> None:
        with self._lock:
            number = len(self.seen)
            self.seen.append([])
        challenge, user = b"", ""
        with contextlib.suppress(EOFError, OSError):
            while True:
                head = peer.read_head()
                length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
                peer.read_exactly(int(length[1]) if length else 0)
                found = _credentials(head)
                text = ""
                if found:
                    message = base64.b64decode(found[2])
                    if message[8] == 1:
                        user, challenge = "", hashlib.md5(b"%d %d" % (number, len(self.seen[number]))).digest()[:8]
                        text = message_2(challenge)
                    else:
                        user = (challenge and _user_of(message, challenge)) or ""
                        self.broken += not user
                        challenge = b""
                self.seen[number].append(user)
                peer.send(ok(f"{self.name}hello {user} on {number}".encode()) if user else self._refusal(text))

    def _refusal(self, text: str) -> bytes:
        if self.proxy:
            return ok(b"who?", f"Proxy-Authenticate: {text or 'NTLM'}", status="407 Proxy Authentication Required")
        return ok(b"who?", f"WWW-Authenticate: {text or 'NTLM'}", status="401 Unauthorized")

    def is_mixed(self) -> bool:
        """Whether a connection had requests of different users."""
        return any(len(set(users) - {""}) > 1 for users in self.seen)
