"""What processes of one clip tell each other: whole, in order, and only each other."""

from __future__ import annotations

import json
import socket
import struct

import numpy as np
import pytest
from engines_here import needs_torch
from ranks_here import together

from framewake import engine as engines
from framewake.errors import EngineError, PeerError
from framewake.pipeline import messages
from framewake.pipeline.messages import Lead, Link, Message, meet


@pytest.fixture
def links():
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    listener.close()
    yield Link(one), Link(other)
    one.close()
    other.close()


def test_a_message_arrives_as_it_was(links):
    arrays = {str(kind): np.arange(6).reshape(2, 3).astype(kind) for kind in sorted(messages.KINDS)}
    arrays |= {"none": np.zeros((0, 3)), "one": np.array(5.0), "turned": np.arange(6.0).reshape(2, 3).T}
    links[0].send(Message("do", {"a": [1, None, "\u00e9"]}, arrays))
    links[0].send(Message("leave"))
    found = links[1].receive()
    assert (found.do, found.values) == ("do", {"a": [1, None, "\u00e9"]}) and found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype and found.arrays[name].shape == array.shape
        assert np.array_equal(found.arrays[name], array)
    assert links[1].receive().do == "leave"


def test_the_end_of_a_process_is_seen(links):
    links[0].close()
    with pytest.raises(PeerError, match="has ended"):
        links[1].receive()


@pytest.mark.parametrize(
    "sent",
    [struct.pack("!Q", 1 << 60), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
)
def test_what_is_no_message_is_refused(links, sent):
    links[0]._connection.sendall(sent)
    with pytest.raises(EngineError, match="another program"):
        links[1].receive()


def test_arrays_of_objects_are_refused(links):
    text = json.dumps(["do", {}, [["a", "object", [1]]]]).encode()
    links[0]._connection.sendall(struct.pack("!Q", len(text)) + text)
    with pytest.raises(EngineError, match="'object'"):
        links[1].receive()


@needs_torch
def test_strangers_at_the_port_are_sent_away(monkeypatch):
    """Who does not know the token is not listened to, whatever it sends, and keeps nobody out."""
    real, strangers = socket.create_server, []

    def visited(address):
        listener = real(address)
        for said in (b"", b"x" * 20, b"GET / HTTP/1.1\r\n\r\n"):
            stranger = socket.create_connection(listener.getsockname())
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
            strangers.append(stranger)
        return listener

    monkeypatch.setattr(socket, "create_server", visited)

    def work(rank):
        meeting = meet(rank)
        if isinstance(meeting, Lead):
            meeting.tell("greet", {"number": 7})
            meeting.wait()
            meeting.close()
            return None
        greeted = meeting.receive()
        meeting.send(Message("ready"))
        assert meeting.receive().do == "leave"
        meeting.close()
        return greeted.values["number"]

    assert together(engines.get("torch:cpu"), 3, work) == [None, 7, 7]
    assert len(strangers) == 3
    for stranger in strangers:
        assert stranger.recv(1) == b""
        stranger.close()


def test_a_group_that_broke_off_is_not_used_again(links):
    lead = Lead([links[0]])
    lead.lose()
    with pytest.raises(PeerError, match="start it anew"):
        lead.tell("step")
    lead.close()
    with pytest.raises(PeerError):
        links[1].receive()


def test_alone_nobody_is_told():
    lead = Lead()
    lead.tell("anything")
    lead.wait()
    lead.lose()
    lead.tell("anything")
    assert lead.is_alone and not lead.is_lost
