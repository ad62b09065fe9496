"""What makes several URLs one: mirrors that have one name, parameters that do not matter or whose order does not.

The key of a URL is a URL, too, and in the same canonical form, so that nodes can be sent it.  The key of a key is the key
itself.  Parameters are what stands between "&" behind the first "?"; their names and values are compared byte for byte, escapes
are not decoded.

Left out: which URLs it is done to (rules.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cachelb.http.url import DEFAULT_PORTS, Url
from cachelb.routing.globs import checked, compile_globs

_PORTS: Final = DEFAULT_PORTS


class Keying:
    """How one rule makes keys.

    Attributes:
        host: of the key; b"" for the URL's own.  sends_key: nodes are sent the key, not the URL as asked.
    """

    __slots__ = ("_names", "_sorts", "host", "sends_key")

    def __init__(self, host: str = "", sorts: bool = False, strips: Sequence[str] = (), sends_key: bool = True) -> None:
        """Compile it.

        Args:
            host: As ``Url.host`` has it.
            sorts: Parameters are put in the order of their names; those of one name keep theirs.
            strips: Patterns of names of parameters that are left out.

        Raises:
            ValueError: A pattern cannot be used; the message is one sentence that quotes it.
        """
        self.host = host.encode("ascii")
        self.sends_key = sends_key
        self._sorts = sorts
        self._names = compile_globs([checked(name, "parameter") for name in strips]) if strips else None

    def leaves(self, host: bytes, path: bytes) -> bool:
        """Whether it is plain at a glance that a URL is its own key; False where one has to look."""
        return (not self.host or host == self.host) and b"?" not in path

    def key_of(self, url: Url) -> Url:
        """The URL that stands for ``url``; ``url`` itself where that is its own key, or names a user."""
        if url.has_userinfo:
            return url
        host = self.host or url.host
        path = self._path(url.path) if (self._sorts or self._names is not None) and b"?" in url.path else url.path
        if host == url.host and path == url.path:
            return url
        shown = b"[%b]" % host if b":" in host else host
        authority = shown if url.port == _PORTS.get(url.scheme, 0) else b"%b:%d" % (shown, url.port)
        return Url(url.scheme, host, url.port, path, b"%b://%b%b" % (url.scheme, authority, path), authority)

    def _path(self, path: bytes) -> bytes:
        """Path and query with another query."""
        whole, number, fragment = path.partition(b"#")
        start, mark, query = whole.partition(b"?")
        if not mark:
            return path
        parameters = query.split(b"&")
        names = self._names
        if names is not None:
            parameters = [each for each in parameters if names.fullmatch(each.partition(b"=")[0]) is None]
        if self._sorts:
            parameters.sort(key=_name)
        if parameters:
            start += b"?" + b"&".join(parameters)
        return start + number + fragment


def _name(parameter: bytes) -> bytes:
    return parameter.partition(b"=")[0]
