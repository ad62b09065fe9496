"""cachelb-digestq: look into a Squid cache digest, and ask it for URLs.

    cachelb-digestq digest.bin                                      header, fill, estimated false positives
    cachelb-digestq http://10.0.0.11:3128 http://example.com/a      fetched from a cache; is this URL in it?
    cachelb-digestq digest.bin - < urls.txt                         one URL per line
    cachelb-digestq a.bin --merge b.bin --merge c.bin -o all.bin    unite digests of equal geometry

Exit status: 0 yes to everything; 1 the answer is no: a URL is not contained, the bytes are no digest, the digests
cannot be united, the cache has none, a Squid would drop it as too full; 2 wrong usage, or something could not be read.

Left out: what a yes means.  A digest says yes for some URLs that the cache does not hold, as often as estimated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cachelb.errors import BadRequest
from cachelb.http.url import parse_absolute
from digest import (
    CONTROL_BYTES,
    DIGEST_PATH,
    MASK_LIMIT_BYTES,
    NOT_MODIFIED,
    NOT_READY,
    BadDigest,
    Digest,
    Fetched,
    FetchError,
    GeometryMismatch,
    fetch_digest,
    pack_digest,
    parse_digest,
    store_key,
    union,
)

YES, NO, TROUBLE = 0, 1, 2


class Membership(NamedTuple):
    """Whether a URL is in the digest.  url: canonical, as it was looked up."""

    url: str
    key: str
    contained: bool


class Refusal(Exception):
    """There is no digest to look into; ``status`` is the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (SystemExit for wrong usage)."""
    options = _options(argv)
    try:
        urls = [_canonical(url) for url in _wanted(options.urls)]
        sources = [options.source, *options.merge]
        if len(set(sources)) < len(sources):
            raise Refusal("the same digest is named twice", TROUBLE)
        loaded = {source: load(source, options.timeout) for source in sources}
        digest = union({source: digest for source, (digest, _) in loaded.items()})
        if options.output:
            _write(options.output, digest)
    except GeometryMismatch as problem:
        return _fail(Refusal(str(problem), NO), options.json)
    except Refusal as problem:
        return _fail(problem, options.json)
    members = [Membership(url.decode("latin-1"), key.hex(), digest.mask.contains(key)) for url, key in urls]
    answer = describe(digest, sources, members)
    if len(sources) == 1 and (fetched := loaded[sources[0]][1]) is not None:
        answer["last_modified"], answer["fresh_s"] = fetched.last_modified, fetched.fresh_s
    print(json.dumps(answer, indent=2) if options.json else as_text(answer))
    return NO if digest.is_useless or not all(member.contained for member in members) else YES


def load(source: str, timeout_s: float) -> tuple[Digest, Fetched | None]:
    """Read a digest from a file, or from an ``http://`` URL (no path: where Squids have it).  Raises Refusal.

    Returns:
        The digest, and what came with it where it was fetched.
    """
    fetched = _fetch(source, timeout_s) if source.startswith("http://") else None
    data = _read(source) if fetched is None else fetched.body
    try:
        return parse_digest(data), fetched
    except BadDigest as problem:
        raise Refusal(f"{source}: not a cache digest: {problem}", NO) from None


def describe(digest: Digest, sources: Sequence[str], members: Iterable[Membership]) -> dict[str, Any]:
    """Return what is to be said about a digest, as it is printed with ``--json``."""
    mask = digest.mask
    return {
        "sources": list(sources),
        "capacity": digest.geometry.capacity,
        "bits_per_entry": digest.geometry.bits_per_entry,
        "count": digest.count,
        "deleted": digest.deleted,
        "mask_bytes": mask.size_bytes,
        "bits_set": mask.ones,
        "fill": round(mask.fill, 6),
        "false_positives": round(mask.false_positives, 8),
        "useless": digest.is_useless,
        "urls": [member._asdict() for member in members],
    }


def as_text(answer: dict[str, Any]) -> str:
    """Write what ``describe`` returns for a reader."""
    lines = [
        f"digest            {' + '.join(answer['sources'])}",
        f"geometry          capacity {answer['capacity']} at {answer['bits_per_entry']} bits per entry",
        f"count             {answer['count']} entries, {answer['deleted']} deleted (as its maker says)",
        f"mask              {answer['mask_bytes']} bytes, {answer['bits_set']} bits set",
        f"fill              {answer['fill']:.1%}" + (", too full: a Squid drops it" if answer["useless"] else ""),
        f"false positives   {answer['false_positives']:.2%} (estimated)",
    ]
    if "fresh_s" in answer:
        due_s = answer["fresh_s"]
        age = f"the next one is due {due_s:.0f} s after this answer" if due_s else "no Expires, or the next one is due"
        lines.append(f"made              {answer['last_modified'] or 'no Last-Modified'}; {age}")
    lines += [f"{'yes' if url['contained'] else 'no':4}{url['key']} {url['url']}" for url in answer["urls"]]
    return "\n".join(lines)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        "cachelb-digestq", description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="a file, - for standard input, or http://HOST:PORT[/PATH] of a cache")
    parser.add_argument("urls", nargs="*", metavar="URL", help="is it contained?  -: one URL per line of standard input")
    parser.add_argument("--merge", action="append", default=[], metavar="SOURCE", help="unite with this one (repeatable)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the digest, united if --merge is given")
    parser.add_argument("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for one fetch (10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(argv)  # URLs may follow options
    if options.source == "-" and "-" in options.urls:
        parser.error("the digest and the URLs cannot both come from standard input")
    return options


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: seconds, above 0")
    return value


def _wanted(urls: Iterable[str]) -> Iterable[bytes]:
    for url in urls:
        if url == "-":
            yield from (line.strip() for line in sys.stdin.buffer if line.strip())
        else:
            yield url.encode("utf-8", "surrogateescape")


def _canonical(url: bytes) -> tuple[bytes, bytes]:
    """The canonical URL and its store key."""
    try:
        canonical = parse_absolute(url).key
    except BadRequest:
        raise Refusal(f"not an absolute URL: {url.decode('utf-8', 'backslashreplace')}", TROUBLE) from None
    return canonical, store_key(canonical)


def _read(name: str) -> bytes:
    limit = CONTROL_BYTES + MASK_LIMIT_BYTES
    try:
        if name == "-":
            return sys.stdin.buffer.read(limit + 1)
        with Path(name).open("rb") as file:
            return file.read(limit + 1)  # one byte too many is enough to be refused
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        is_cache = isinstance(problem, FileNotFoundError) and _looks_like_a_cache(name)
        hint = "" if not is_cache else f"; a cache is written http://{name.removeprefix('https://')}"
        raise Refusal(f"{name}: {getattr(problem, 'strerror', None) or problem}{hint}", TROUBLE) from None


_looks_like_a_cache = re.compile(r"https://\S+|[^/\s]+:[0-9]+/?|[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*").fullmatch


def _fetch(url: str, timeout_s: float) -> Fetched:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 3128
    except ValueError as problem:
        raise Refusal(f"{url}: {problem}", TROUBLE) from None
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if not host or parts.username is not None or not path.isascii() or " " in path:
        raise Refusal(f"{url}: not http://HOST:PORT[/PATH]", TROUBLE)
    path = DIGEST_PATH if path in ("", "/") else path
    try:
        answer = asyncio.run(fetch_digest(host, port, path=path, timeout_s=timeout_s))
    except FetchError as problem:
        raise Refusal(str(problem), TROUBLE) from None
    if answer is NOT_READY or answer is NOT_MODIFIED:
        raise Refusal(f"{url}: no digest there (404): not built yet, or the cache has no cache_dir", NO)
    return answer


def _write(name: str, digest: Digest) -> None:
    try:
        Path(name).write_bytes(pack_digest(digest))
    except (OSError, ValueError) as problem:
        raise Refusal(f"{name}: {getattr(problem, 'strerror', None) or problem}", TROUBLE) from None


def _fail(problem: Refusal, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": str(problem)}))
    print(f"cachelb-digestq: {problem}", file=sys.stderr)
    return problem.status


if __name__ == "__main__":
    sys.exit(main())
