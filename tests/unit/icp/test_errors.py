from __future__ import annotations

import pytest

from icp.errors import BadPacket, BadUrl, Fault, IcpError


def test_every_fault_has_a_word_of_its_own():
    words = [fault.word for fault in Fault]
    assert len(set(words)) == len(words)
    assert all(word.isidentifier() for word in words)


def test_only_faults_of_the_url_are_due_an_err():
    assert {fault for fault in Fault if fault.is_err_due} == {Fault.NO_URL, Fault.NO_NUL, Fault.STRAY_NUL, Fault.LONG_URL}


def test_a_bad_packet_is_a_sentence_with_the_numbers():
    assert str(BadPacket(Fault.LENGTH, 65, 64)) == "a length field of 65 in 64 bytes"
    assert str(BadPacket(Fault.ECHO)) == "meant for a UDP echo port"


@pytest.mark.parametrize("kind", [BadPacket, BadUrl])
def test_there_is_one_base(kind: type[Exception]):
    assert issubclass(kind, IcpError)
    assert issubclass(kind, ValueError)
