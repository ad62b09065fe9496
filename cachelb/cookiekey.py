"""The secret that cookies are sealed with: read from a file that several directors share, or made once and kept.

Without a file it is made when the first [[cookie]] is configured, and kept in the state directory ([index] state, or systemd's);
where there is none, it lasts as long as the director runs, and clients get new cookies after that.  It is sent to the workers and
shown to nobody.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachelb.cluster.keeper import state_directory

if TYPE_CHECKING:
    from cachelb.config import Config

log = logging.getLogger("cachelb")

FILE_NAME: Final = "cookie-secret"
SECRET_CHARS: Final = 32  # 128 bits of hexadecimal digits
SECRET_BYTES_MAX: Final = 4096


class CookieKey:
    """The secret that is in force.

    secret: "" while no cookie is configured.
    """

    def __init__(self) -> None:
        self.secret = ""
        self._problem = ""

    def configure(self, config: Config) -> None:
        """Find the secret for a configuration; where that cannot be, the one before stays, or one is made for now."""
        if not config.cookie:
            return
        path, directory = config.service.cookie_secret_file, state_directory(config.index.state, os.environ)
        try:
            if path:
                found = read_secret(Path(path))
            elif directory is not None:
                found = kept_secret(directory / FILE_NAME)
            else:
                found = self.secret or secrets.token_hex(32)
                self._tell("cookies are good until the director ends: set [service] cookie_secret_file or [index] state")
                self.secret = found
                return
        except (OSError, ValueError) as exc:
            self.secret = self.secret or secrets.token_hex(32)
            self._tell(f"{'[service] cookie_secret_file' if path else '[index] state'}: {exc}")
            return
        self.secret = found
        self._problem = ""

    def _tell(self, text: str) -> None:
        if text != self._problem:
            self._problem = text
            log.warning("%s", text)


def trouble(config: Config) -> str:
    """What is wrong with the file that a configuration names, in a sentence; "" if nothing is, or there is none."""
    path = config.service.cookie_secret_file
    if config.cookie and path:
        try:
            read_secret(Path(path))
        except PermissionError:
            return f"[service] cookie_secret_file: this user may not read {path}, so it was not checked"
        except (OSError, ValueError) as exc:
            return f"[service] cookie_secret_file: {exc}; until that is mended, cookies are good until the director ends"
    return ""


def read_secret(path: Path) -> str:
    """The secret in a file, without white space around it.

    Raises:
        OSError: It cannot be read.
        ValueError: It is open to others, or holds no secret; the message is a sentence.
    """
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        data = file.read(SECRET_BYTES_MAX)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ValueError(f"{path} is open to others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")
    text = data.decode("latin-1").strip()
    if len(text) < SECRET_CHARS:
        raise ValueError(f"{path} holds no secret of at least {SECRET_CHARS} characters: (umask 077; cachelb token > {path})")
    return text


def kept_secret(path: Path) -> str:
    """The secret that was made before, or one that is made and kept now.

    Raises:
        OSError, ValueError: As ``read_secret``; or it cannot be kept.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_secret(path)
    with open(fd, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return read_secret(path)
