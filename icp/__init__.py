"""ICP version 2 and HTCP for caches: read and write messages, answer queries, ask others.

Pure: ``packet`` and ``htcp`` (bytes to values and back), ``answer`` and ``answer_htcp`` (what to reply), ``guard`` (who may
ask), ``errors``.  On the network: ``service`` and ``client``.  Usable without cachelb.
"""

from .answer import Answerer, Outcome, Reply, reply
from .errors import BadPacket, BadUrl, Fault, IcpError
from .packet import Message, Opcode, Query, pack, pack_query, pack_reply, parse_query, parse_reply, unpack

__all__ = [
    "Answerer",
    "BadPacket",
    "BadUrl",
    "Fault",
    "IcpError",
    "Message",
    "Opcode",
    "Outcome",
    "Query",
    "Reply",
    "pack",
    "pack_query",
    "pack_reply",
    "parse_query",
    "parse_reply",
    "reply",
    "unpack",
]
