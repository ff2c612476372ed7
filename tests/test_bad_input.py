"""Whatever somebody sends, the others talk on and the server stands.

Every test here runs beside Anna and Ben, who see nothing of it but people who come
and go; and at the end of the file the server's stderr must be empty.
"""
import itertools
import json
import pathlib
import socket
import sys

import pytest

from people import COMINGS

LINE_LIMIT = 65536
NUMBERS = itertools.count(1)
NOT_COUNTED = 40        # twice the number of counted errors that end a connection


def line_of(length, **message):
    """A line of exactly this many bytes, its end included."""
    empty = len(json.dumps(dict(message, pad="")).encode()) + 1
    return json.dumps(dict(message, pad="x" * (length - empty))).encode() + b"\n"


class Pair:
    """Two people who were here before, and who want to go on talking."""

    def __init__(self, join):
        self.anna, self.ben = join("Anna"), join("Ben")
        self.anna.expect("joined", name="Ben")
        self.said = 0

    def talk(self):
        for speaker in (self.anna, self.ben):
            self.said += 1
            text = f"line {self.said}"
            speaker.send({"type": "chat", "text": text})
            for person in (self.anna, self.ben):
                person.expect("chat", skip=COMINGS, text=text, from_=speaker.name)

    def see_leaving(self, name, reason):
        for person in (self.anna, self.ben):
            person.expect("left", skip=["joined"], name=name, reason=reason)


@pytest.fixture
def pair(join):
    pair = Pair(join)
    yield pair
    pair.talk()


@pytest.fixture
def gremlin(join, pair):
    """Somebody who is in, and is going to send what nobody should."""
    # Each time another one: whose connection breaks keeps the name for a minute.
    gremlin = join(f"Gremlin{next(NUMBERS)}")
    yield gremlin
    pair.talk()


def refused(person, line, *codes, **fields):
    """This line is answered by one error, and the connection goes on."""
    person.send_raw(line + b"\n")
    error = person.expect("error", skip=["chat"], **fields)
    assert error["code"] in codes
    # "one plain sentence", and one that can be shown anywhere
    assert error["text"].encode() and "\n" not in error["text"]
    person.silence()


# ------------------------------------------------------------------- not even a message

NOT_JSON = {
    "words": b"hello",
    "half an object": b'{"type": "chat", "text": "a"',
    "two objects": b'{"type": "list"} {"type": "list"}',
    "single quotes": b"{'type': 'list'}",
    "a comma too many": b'{"type": "list",}',
    "a web browser": b"GET / HTTP/1.1",
    "NaN": b'{"type": "chat", "text": "a", "n": NaN}',
    "Infinity": b'{"type": "chat", "text": "a", "n": Infinity}',
    "-Infinity": b'{"type": "list", "n": -Infinity}',
    "NUL": b"\0",
    "NUL in a string": b'{"type": "chat", "text": "a\0b"}',
    "a real tab in a string": b'{"type": "chat", "text": "a\tb"}',
    "escape in a string": b'{"type": "chat", "text": "a\x1b[0mb"}',
    "deep lists": b"[" * 60000,
    "deep objects": b'{"a":' * 12000,
    "Latin-1": '{"type": "chat", "text": "Félix"}'.encode("latin-1"),
    "half a character": b'{"type": "chat", "text": "\xf0\x9f\x98"}',
    "a surrogate's bytes": b'{"type": "chat", "text": "\xed\xa0\xbd"}',
    "an overlong slash": b'{"type": "chat", "text": "\xc0\xaf"}',
    "UTF-16": '{"type": "chat", "text": "a"}'.encode("utf-16-be"),
    "UTF-32": '{"type": "list"}'.encode("utf-32-be"),
    "bytes of every kind but 10": bytes(set(range(256)) - {10}),
    "gzip": bytes.fromhex("1f8b08000000000000ff"),
    "TLS": bytes.fromhex("1603010200010001fc0303"),
}
NOT_AN_OBJECT = {
    "list": b"[]", "list of objects": b'[{"type": "list"}]', "string": b'"list"',
    "number": b"5", "null": b"null", "true": b"true", "long number": b"9" * 10000,
}
WRONG_FIELDS = {
    "no type": b"{}",
    "type a number": b'{"type": 5}',
    "type null": b'{"type": null}',
    "type a list": b'{"type": ["chat"]}',
    "type an object": b'{"type": {"chat": 1}}',
    "type true": b'{"type": true}',
    "chat without text": b'{"type": "chat"}',
    "text a number": b'{"type": "chat", "text": 5}',
    "text null": b'{"type": "chat", "text": null}',
    "text true": b'{"type": "chat", "text": true}',
    "text a list": b'{"type": "chat", "text": ["a"]}',
    "to a number": b'{"type": "chat", "text": "a", "to": 5}',
    "to a list": b'{"type": "chat", "text": "a", "to": ["Anna"]}',
    "to true": b'{"type": "chat", "text": "a", "to": true}',
    "ref a number": b'{"type": "chat", "text": "a", "ref": 5}',
    "ref true": b'{"type": "chat", "text": "a", "ref": true}',
    "ref an object": b'{"type": "chat", "text": "a", "ref": {}}',
    "ref of 65": b'{"type": "chat", "text": "a", "ref": "%s"}' % (b"x" * 65),
}


@pytest.mark.parametrize("line", [
    pytest.param(line, id=name)
    for name, line in {**NOT_JSON, **NOT_AN_OBJECT, **WRONG_FIELDS}.items()])
def test_bad_message(gremlin, pair, line):
    refused(gremlin, line, "bad_message")
    pair.talk()
    gremlin.expect("chat", from_="Anna")
    gremlin.expect("chat", from_="Ben")


def test_text_in_utf_16_from_windows(gremlin):
    """Little-endian cuts each line end in two: \\n ends it, \\0 begins the next."""
    gremlin.send_raw('{"type": "list"}\n{"type": "list"}\n'.encode("utf-16-le"))
    gremlin.expect("error", code="bad_message")
    gremlin.expect("error", code="bad_message")
    gremlin.send_raw(b"\n")             # ends the line that holds one \0
    gremlin.expect("error", code="bad_message")
    gremlin.silence()


@pytest.mark.parametrize("line", [
    b'\xef\xbb\xbf{"type": "list"}',                            # a byte order mark
    b'{"type": "list", "n": ' + b"7" * 10000 + b"}",
    b'{"type": "list", "n": -1e999999}',
    b'{"type": "list", "n": ' + b"[" * 20000 + b"]" * 20000 + b"}",
    b'{"type": "list", "n": "\\ud83d"}',
    b'{"type": "list", "type": "list"}',
], ids=["BOM", "long number", "huge number", "deep", "surrogate", "twice"])
def test_odd_but_maybe_right(gremlin, line):
    """JSON lets a reader take these or not: only an answer there must be."""
    gremlin.send_raw(line + b"\n")
    answer = gremlin.read()
    assert (answer["type"], answer.get("code")) in [
        ("people", None), ("error", "bad_message")]
    gremlin.silence()


@pytest.mark.parametrize("kind", [
    "meow", "", "Chat", "chat ", " chat", "on_chat", "welcome", "goodbye", "__init__",
    "__class__", "help", "x" * 5000, "a\0b", "a.b", "ch\u200bat", "чат"])
def test_unknown_type(gremlin, kind):
    line = json.dumps({"type": kind, "text": "a", "ref": "r"}).encode()
    refused(gremlin, line, "unknown_type", ref="r")


@pytest.mark.parametrize("message, codes", [
    ({"type": "\ud83d"}, ("unknown_type", "bad_message")),
    ({"type": "chat", "text": "a", "ref": "\udc00"}, ("bad_message",)),
    ({"type": "chat", "text": "a", "to": "\ud83d"}, ("no_such_person", "bad_message")),
    ({"type": "chat", "text": "a\ud83d"}, ("bad_text",)),
    ({"type": "chat", "text": "\ud83d", "ref": "\ud83d"}, ("bad_text", "bad_message")),
    ({"type": "hello", "name": "\ud83d", "version": 1}, ("bad_message",)),
], ids=["type", "ref", "to", "text", "text and ref", "name"])
def test_lone_surrogates(gremlin, message, codes):
    refused(gremlin, json.dumps(message).encode(), *codes)


@pytest.mark.parametrize("text", [
    "", "   ", "\n\n", "a\0b", "a\x01b", "a\x08b", "a\rb", "a\x1b[2Jb", "a\x7fb",
    "a\x80b", "a\x9fb", "x" * 4001])
def test_bad_text_is_said_to_nobody(gremlin, pair, text):
    line = json.dumps({"type": "chat", "text": text, "to": "Anna", "ref": "r"}).encode()
    refused(gremlin, line, "bad_text", ref="r")


# --------------------------------------------------------------------- before the hello

@pytest.mark.parametrize("message", [
    {"type": "chat", "text": "Hello"}, {"type": "list"},
    {"type": "chat", "text": "Hello", "to": "Anna"}])
def test_hello_first(join, pair, message):
    person = join()
    for _ in range(3):
        person.send(message)
        person.expect("error", code="hello_first")
    person.hello("Late")
    person.expect("welcome", name="Late")
    pair.talk()


@pytest.mark.parametrize("fields", [
    {"name": None}, {"name": 5}, {"name": ["Minou"]}, {"name": True}, {"name": ...},
    {"version": None}, {"version": "1"}, {"version": True}, {"version": [1]},
    {"version": ...}], ids=str)
def test_a_hello_with_a_field_of_the_wrong_kind(join, pair, fields):
    message = {"type": "hello", "name": "Minou", "version": 1, **fields}
    # `...` stands for a field that is not there at all
    message = {key: value for key, value in message.items() if value is not ...}
    person = join()
    person.send(message)
    assert person.expect("error", code="bad_message")["text"]
    person.hello("Minou")
    person.expect("welcome")


@pytest.mark.parametrize("version", [b"1" * 10000, b"1e999", b"1.5", b"-1", b"0"])
def test_a_hello_of_an_odd_version(join, pair, version):
    person = join()
    person.send_raw(b'{"type": "hello", "name": "Minou", "version": %s}\n' % version)
    assert person.expect("error")["code"] in ("bad_message", "bad_version")
    pair.talk()


@pytest.mark.parametrize("line", [
    pytest.param(line, id=name) for name, line in NOT_JSON.items()])
def test_not_json_before_hello(join, pair, line):
    person = join()
    person.send_raw(line + b"\n")
    person.expect("error", code="bad_message")
    person.hello("Minou")
    person.expect("welcome")


# ---------------------------------------------------------------------- too many errors

BROKEN = [
    (b"nonsense\n", "bad_message"),
    (b'{"type": "meow"}\n', "unknown_type"),
    (b'{"type": "chat", "text": ""}\n', "bad_text"),
    (b'{"type": "hello", "name": "Again", "version": 1}\n', "bad_message")]


def test_the_twentieth_error_ends_it(gremlin, pair):
    for number in range(19):
        line, code = BROKEN[number % len(BROKEN)]
        gremlin.send_raw(line)
        gremlin.expect("error", code=code)
    gremlin.say("Nineteen")
    gremlin.send_raw(b"nonsense\n")
    gremlin.expect("error", code="bad_message")
    assert gremlin.expect("goodbye", reason="too_many_errors")["text"]
    assert gremlin.until_closed() == []
    for person in (pair.anna, pair.ben):
        person.expect("chat", skip=COMINGS, text="Nineteen")
    pair.see_leaving(gremlin.name, "error")


def test_errors_before_and_after_hello_count_together(join, pair):
    person = join()
    for _ in range(10):
        person.send({"type": "list"})
        person.expect("error", code="hello_first")
    person.hello("Gremlin")
    person.expect("welcome")
    for _ in range(10):
        person.send_raw(b"nonsense\n")
        person.expect("error", code="bad_message")
    person.expect("goodbye", reason="too_many_errors")


def test_too_many_errors_without_a_hello(join, pair):
    person = join()
    person.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    came = person.until_closed()
    assert [message["type"] for message in came] == ["error"] * 20 + ["goodbye"]
    assert came[-1]["reason"] == "too_many_errors"


def test_nothing_behind_the_twentieth_error_is_heard(gremlin, pair):
    loud = b'{"type": "chat", "text": "I am still here"}\n'
    gremlin.send_raw(b"nonsense\n" * 20 + loud * 500)
    came = gremlin.until_closed()
    assert [message["type"] for message in came] == ["error"] * 20 + ["goodbye"]
    pair.see_leaving(gremlin.name, "error")
    pair.anna.silence()


def test_private_lines_to_nobody_are_not_counted(gremlin):
    for _ in range(NOT_COUNTED):
        gremlin.send({"type": "chat", "text": "psst", "to": "Nobody"})
        gremlin.expect("error", code="no_such_person")
    gremlin.silence()


@pytest.mark.parametrize("name, code", [("Anna", "name_taken"), ("?", "bad_name")])
def test_refused_names_are_not_counted(join, pair, name, code):
    person = join()
    for _ in range(NOT_COUNTED):
        person.hello(name)
        person.expect("error", code=code)
    person.hello("Minou")
    person.expect("welcome")


# ------------------------------------------------------------------------ endless lines

def test_a_line_of_the_greatest_length(gremlin, join):
    gremlin.send_raw(line_of(LINE_LIMIT, type="list"))
    gremlin.expect("people")
    line = line_of(LINE_LIMIT, type="chat", text="long", to=gremlin.name)
    for start in range(0, len(line), 10000):
        gremlin.send_raw(line[start:start + 10000])
    gremlin.expect("chat", text="long")
    gremlin.send_raw(line_of(LINE_LIMIT - 1, type="list")[:-1] + b"\r\n")
    gremlin.expect("people")
    newcomer = join()
    newcomer.send_raw(line_of(LINE_LIMIT, type="hello", name="Minou", version=1))
    newcomer.expect("welcome")


@pytest.mark.parametrize("data", [
    line_of(LINE_LIMIT + 1, type="list"),
    line_of(LINE_LIMIT + 1, type="list")[:-1] + b"x",       # no end in sight
    line_of(LINE_LIMIT, type="list")[:-1] + b"\r\n",
    b"\0" * (LINE_LIMIT + 1),
    b" " * 500_000 + b"\n" + b'{"type": "list"}\n' * 1000,
], ids=["one byte", "no newline", "return", "zeros", "long"])
def test_a_line_that_is_too_long(gremlin, pair, data):
    gremlin.send_raw(data)
    assert gremlin.expect("error", code="line_too_long")["text"]
    assert gremlin.expect("goodbye", reason="line_too_long")["text"]
    assert gremlin.until_closed() == []
    pair.see_leaving(gremlin.name, "error")


def test_a_line_that_is_too_long_before_hello(join, pair):
    person = join()
    person.send_raw(b"x" * (LINE_LIMIT + 1))
    person.expect("error", code="line_too_long")
    person.expect("goodbye", reason="line_too_long")
    assert person.until_closed() == []


def test_the_lines_before_an_endless_one_are_heard(gremlin, pair):
    gremlin.send_raw(b'{"type": "chat", "text": "first"}\n' + b"x" * 100_000)
    gremlin.expect("chat", text="first")
    gremlin.expect("error", code="line_too_long")
    for person in (pair.anna, pair.ben):
        person.expect("chat", skip=COMINGS, text="first", from_=gremlin.name)


def memory(pid, field):
    """Kilobytes, e.g. VmRSS (what it holds now) or VmHWM (the most it ever held)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split(field + ":")[1].split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("inside", [True, False])
def test_ten_megabytes_without_an_end_cost_no_memory(join, start_server, inside):
    server = start_server()
    join("Anna", server).say("Hello")
    flooder = join("Flooder" if inside else None, server)
    before = memory(server.pid, "VmRSS")
    try:
        for _ in range(160):
            flooder.send_raw(b"x" * 65536)
    except ConnectionError:
        pass            # the server reads on for a second at most: enough for most
    flooder.expect("error", skip=["joined", "chat"], code="line_too_long")
    flooder.expect("goodbye", reason="line_too_long")
    assert memory(server.pid, "VmHWM") - before < 2048


# ------------------------------------------------------------------- broken connections

@pytest.mark.parametrize("sent", [
    b"", b'{"type": "hel', b'{"type": "hello", "name": "Minou", "version": 1}',
    b"nonsense\n" * 5, b"x" * 60000])
def test_a_reset_before_hello(join, pair, sent):
    for _ in range(10):
        person = join()
        person.send_raw(sent)
        person.reset()
    pair.talk()


@pytest.mark.parametrize("sent", [
    b"", b'{"type": "chat", "te', b"x" * 60000, b'{"type": "list"}\n' * 200,
    b'{"type": "chat", "text": "to myself", "to": "%s"}\n' * 200,
    b'{"type": "bye"}\n'],
    ids=["idle", "within a line", "long", "list", "chat", "bye"])
def test_a_reset_after_hello(gremlin, pair, sent):
    gremlin.send_raw(sent.replace(b"%s", gremlin.name.encode()))
    gremlin.reset()
    for person in (pair.anna, pair.ben):
        left = person.expect("left", skip=["joined"], name=gremlin.name)
        assert left["reason"] == "lost" or b"bye" in sent
    pair.talk()


@pytest.mark.parametrize("half", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_an_end_in_the_middle_of_a_line(gremlin, pair, half):
    gremlin.send_raw(b'{"type": "chat", "text": "unfinished"}')
    gremlin.socket.shutdown(half)
    pair.see_leaving(gremlin.name, "lost")
