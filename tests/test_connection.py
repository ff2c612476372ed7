"""The client without a screen: its connection, and what a face is told.

Against a real server, and against servers of our own that misbehave.
"""
import collections
import http.server
import json
import queue
import socket
import sys
import threading
import time

import pytest

import ChattyCat_Client
from ChattyCat_Client import Chat, Connection
from people import COMINGS

TIME = "2026-11-20T17:01:02.345Z"
WELCOME = {
    "type": "welcome", "name": "Minou", "color": 3, "session": "a secret",
    "resumed": False, "gap": False, "people": [{"name": "Minou", "color": 3}],
    "count": 1, "last_id": 0, "history": "one", "time": TIME, "server": "Odd 1.0",
    "limits": {"line": 65536, "text": 4000, "file": 0}}


def chat(number, text, author="Tigrou", **more):
    return {"type": "chat", "id": number, "from": author, "color": 1, "text": text,
            "time": TIME, **more}


class OddServer:
    """A server that does what the test tells it: the test is the server.

    It has its port from the start, but refuses until somebody calls listen().
    """
    def __init__(self):
        self.listener = socket.socket()
        self.listener.settimeout(10)
        self.listener.bind(("127.0.0.1", 0))
        self.host, self.port = self.listener.getsockname()
        self.accepted = []

    def listen(self):
        self.listener.listen()
        return self

    def accept(self):
        """Wait until a client connects; return the server's side of it."""
        sock, _ = self.listener.accept()
        self.accepted.append(OddConnection(sock))
        return self.accepted[-1]

    def let_in(self, **fields):
        """Accept somebody, read the hello and answer with a welcome."""
        connection = self.accept()
        hello = connection.read()
        assert hello["type"] == "hello"
        people = [{"name": hello["name"], "color": 3}, {"name": "Tigrou", "color": 1}]
        connection.send({**WELCOME, "name": hello["name"], "people": people,
                         "count": 2, **fields})
        return connection

    def close(self):
        for connection in self.accepted:
            connection.close()
        self.listener.close()


class OddConnection:
    def __init__(self, sock):
        sock.settimeout(10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.file = sock.makefile("rb")

    def read(self):
        """The next message of the client, or None at the end."""
        line = self.file.readline()
        return json.loads(line) if line else None

    def send(self, *messages):
        self.send_raw(b"".join(json.dumps(message).encode() + b"\n"
                               for message in messages))

    def send_raw(self, data):
        self.sock.sendall(data)

    def close(self):
        self.file.close()
        self.sock.close()


class Client:
    """A chat and its face: one that shows nothing and writes down what it is told."""

    def __init__(self, *words):
        self.lines = []                 # texts of lines, in the order of their coming
        self.states = []
        self.shown_now = None
        self.has_quit = False
        self.chat = Chat(self, ChattyCat_Client.read_options(list(map(str, words))))

    def connect(self, server, name="Minou", wait="online"):
        self.states.clear()
        self.chat.connect(server.host, server.port, name)
        if wait:
            self.until_state(wait)

    # --- what the chat tells its face

    def line_added(self, conversation, line):
        self.lines.append(line.text)

    def line_changed(self, conversation, line):
        assert line in conversation.lines

    def status_changed(self):
        self.states.append(self.chat.status["state"])

    def people_changed(self):
        pass

    def shown(self, conversation):
        self.shown_now = conversation

    def quit(self):
        self.has_quit = True

    # --- what the tests ask

    @property
    def status(self):
        return self.chat.status["state"]

    def until(self, there, limit=8):
        """Take in what comes until there() is true: the face's main loop."""
        deadline = time.monotonic() + limit
        while not there():
            try:
                event = self.chat.connection.events.get(
                    timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"in vain; {self.chat.status}, {self.lines}")
            self.chat.take(*event)

    def until_state(self, state, **how):
        self.until(lambda: self.states[-1:] == [state], **how)
        return self.chat.status

    def until_line(self, text, times=1):
        self.until(lambda: self.lines.count(text) >= times)

    def last_line(self):
        return self.chat.current.lines[-1]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Each of these clients is the first one on its computer."""
    monkeypatch.setenv("CHATTYCAT_HOME", str(tmp_path))


@pytest.fixture
def odd():
    server = OddServer().listen()
    yield server
    server.close()


COMPLAINED_OF = set()           # threads left by a test that has failed for it


def threads_of_clients():
    return [thread for thread in threading.enumerate()
            if thread.name in ("receive", "send") and thread not in COMPLAINED_OF]


def no_thread_is_left(limit=5):
    deadline = time.monotonic() + limit
    for thread in threads_of_clients():
        thread.join(max(0, deadline - time.monotonic()))
    left = threads_of_clients()
    COMPLAINED_OF.update(left)
    assert left == []


@pytest.fixture
def client():
    """A function that opens clients; at the end none of their threads is left."""
    opened = []

    def open_client(*arguments, words=(), **how):
        client = Client(*words)
        opened.append(client)
        if arguments:
            client.connect(*arguments, **how)
        return client

    yield open_client
    for each in opened:
        each.chat.hang_up()
    no_thread_is_left()


def at_once(function, *arguments):
    """The main thread must never wait for the network: the window would freeze."""
    begin = time.monotonic()
    result = function(*arguments)
    assert time.monotonic() - begin < 0.5
    return result


# ------------------------------------------------------------------------- getting in

def test_in_and_out(server, client, join):
    minou = client(server)
    assert list(dict.fromkeys(minou.states)) == ["connecting", "greeting", "online"]
    assert minou.chat.me == "Minou" and minou.chat.count == 1
    tigrou = join("Tigrou")
    minou.until_line("Tigrou joined")
    at_once(minou.chat.typed, "/disconnect")
    tigrou.expect("left", name="Minou", reason="bye")
    assert minou.status == "offline"
    no_thread_is_left()


def test_client_first_and_server_later(client):
    server = OddServer()
    try:
        minou = client(server, wait="waiting")
        status = minou.chat.status
        assert str(server.port) in status["text"] and status["attempt"] == 1
        assert 0 < status["until"] - time.monotonic() < 1.2
        assert "1 s (attempt 1)" in minou.chat.countdown()
        server.listen().let_in()
        minou.until_state("online")
        assert minou.chat.countdown() == ""
    finally:
        server.close()


def test_retry_now(client):
    server = OddServer()
    try:
        minou = client(server, wait="waiting")
        pause_ends = minou.chat.status["until"]
        server.listen()
        minou.chat.retry_now()
        server.let_in()
        minou.until_state("online")
        assert time.monotonic() < pause_ends
    finally:
        server.close()


def test_retry_now_is_for_this_countdown_and_no_later_one(server, client):
    """Somebody presses it in the very moment in which we get in by ourselves."""
    minou = client(server)
    minou.chat.retry_now()
    minou.chat.connection.sock.shutdown(socket.SHUT_RDWR)
    minou.until_state("waiting")
    pause_ends = minou.chat.status["until"]
    minou.until_state("online")
    assert time.monotonic() >= pause_ends


@pytest.mark.parametrize("host", [
    "no.such.host.invalid", "a..b", "x" * 70, "é" * 70, "my computer", "a\0b", "\udc80",
    "256.256.256.256"], ids=lambda host: ascii(host[:20]))
def test_no_such_computer(client, host):
    minou = client()
    minou.chat.connect(host, 9999, "Minou")
    minou.until_state("offline")
    assert ChattyCat_Client.clean(host) in minou.chat.status["text"]
    assert "waiting" not in minou.states        # trying on would be idle
    no_thread_is_left()


@pytest.mark.parametrize("host, name, word", [
    ("", "Minou", "127.0.0.1"), ("  ", "Minou", "127.0.0.1"),
    ("127.0.0.1", "", "letters"), ("127.0.0.1", "a b", "letters"),
    ("127.0.0.1", "Server", "Server"), ("127.0.0.1", "\ud83d", "letters")])
def test_a_login_that_cannot_be_right(client, host, name, word):
    minou = client()
    with pytest.raises(ValueError, match=word):
        minou.chat.connect(host, 9999, name)
    assert minou.chat.connection is None and threads_of_clients() == []


def test_name_taken_and_another_name_on_the_same_connection(start_server, client, join):
    server = start_server()
    join("Minou", server)
    tigrou = client(server, "minou", wait="choose_name")
    assert "minou" in tigrou.chat.status["text"]
    connection = tigrou.chat.connection
    at_once(tigrou.chat.connect, server.host, server.port, "Tigrou")
    tigrou.until_state("online")
    assert tigrou.chat.connection is connection and tigrou.chat.me == "Tigrou"
    server.wait_for_line("Tigrou joined")
    assert "offline" not in tigrou.states and "waiting" not in tigrou.states


def test_a_name_travels_as_it_will_be_shown(client, odd):
    client(odd, "Ｍinou", wait=None)
    hello = odd.accept().read()
    assert hello == {"type": "hello", "name": "Minou", "version": 1}


def test_server_full(start_server, client, join):
    server = start_server("--max-clients", "1")
    join("Minou", server)
    tigrou = client(server, "Tigrou", wait="offline")
    assert "people are here" in tigrou.chat.status["text"]
    assert "waiting" not in tigrou.states
    no_thread_is_left()


@pytest.mark.parametrize("code", ["bad_version", "bad_message", "muted"])
def test_a_hello_that_is_refused(client, odd, code):
    """The user must learn why nothing happens."""
    minou = client(odd, wait=None)
    side = odd.accept()
    assert side.read()["type"] == "hello"
    side.send({"type": "error", "code": code, "text": "Your program is too old."})
    minou.until(lambda: "Your program is too old." in
                minou.lines + [minou.chat.status["text"]])


# ---------------------------------------------------------------- servers that are none

def test_a_web_server(client):
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    server.host, server.port = server.server_address
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    try:
        minou = client(server, wait="offline")
        assert "not a ChattyCat server" in minou.chat.status["text"]
        assert minou.lines == []
        no_thread_is_left()
    finally:
        thread.join(5)
        server.server_close()


@pytest.mark.parametrize("greeting", [
    b"220 mail.example.org ESMTP\r\n", b"\xff\xfe\x00\x01\n", b"{}\n", b"[]\n", b"5\n",
    b"x" * 70_000], ids=lambda data: ascii(data[:20]))
def test_garbage_before_the_welcome(client, odd, greeting):
    minou = client(odd, wait=None)
    odd.accept().send_raw(greeting)
    minou.until_state("offline")
    assert "not a ChattyCat server" in minou.chat.status["text"]
    no_thread_is_left()


def test_a_server_that_says_nothing(client, odd):
    minou = client(odd, wait="greeting")
    assert "welcome" in minou.chat.status["text"]
    at_once(minou.chat.hang_up)
    side = odd.accept()
    assert [side.read()["type"], side.read()["type"], side.read()] == [
        "hello", "bye", None]


def test_a_server_that_closes_at_once(client, odd):
    minou = client(odd, wait=None)
    for attempt in (1, 2):
        odd.accept().close()
        minou.until(lambda: minou.chat.status.get("attempt") == attempt)
        assert "lost" in minou.chat.status["text"]
        minou.chat.retry_now()
    odd.let_in()
    minou.until_state("online")


NONSENSE = [b"not JSON", b"\xff\xfe", b"{}", b"[]", b'{"type": 5}', b"[" * 60_000,
            b'{"type": "a", "n": ' + b"9" * 20_000 + b", NaN}", b'{"type": "nonsense"}']


@pytest.mark.parametrize("line", NONSENSE, ids=lambda line: ascii(line[:25]))
def test_garbage_after_the_welcome(client, odd, line):
    """A note in the chat, and the chat goes on."""
    minou = client(odd, wait=None)
    side = odd.let_in()
    side.send_raw(line + b"\n\n\r\n")
    side.send(chat(1, "Hello"))
    minou.until_line("Hello")
    assert minou.status == "online"
    notes = [line for line in minou.chat.everyone.lines if line.kind == "error"]
    assert len(notes) == (b"nonsense" not in line)


def test_a_line_of_a_megabyte(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    with pytest.raises(OSError):        # nobody reads it to its end
        side.send_raw(b"x" * 2**20 + b"\n" + b"x" * 2**24)
        side.send_raw(b"x")
    minou.until_state("offline")
    no_thread_is_left()


def test_types_that_nobody_knows_are_ignored(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in()
    for kind in ("", "dance", "upload_ready", "chunk", "hello", "status", "__class__",
                 "upload", "\ud83d", "x" * 60_000):
        side.send({"type": kind, "text": "x"})
    side.send(chat(1, "Hello"))
    minou.until_line("Hello")
    assert minou.lines == ["Hello"]


# ------------------------------------------------------- fields that are not as agreed

RIGHT = {
    "welcome": WELCOME,
    "chat": chat(0, "x", to="Minou", ref="r"),
    "joined": {"type": "joined", "name": "Garfield", "color": 2, "time": TIME},
    "left": {"type": "left", "name": "Garfield", "reason": "lost", "time": TIME},
    "people": {"type": "people", "people": WELCOME["people"], "count": 1},
    "notice": {"type": "notice", "text": "x", "time": TIME},
    "file": {"type": "file", "id": 1, "file": "x-y", "name": "x.txt", "size": 3,
             "sha256": "0" * 64, "from": "Tigrou", "color": 1, "time": TIME},
    "error": {"type": "error", "code": "bad_text", "text": "x", "ref": "r"},
    "goodbye": {"type": "goodbye", "reason": "shutdown", "text": "x"},
}
REQUIRED = {
    "welcome": ["name", "people", "count", "history", "session", "resumed", "gap",
                "last_id"],
    "chat": ["id", "from", "color", "text", "time"], "joined": ["name", "color"],
    "left": ["name", "reason"], "people": ["people", "count"],
    "file": ["id", "file", "name", "size", "sha256", "from", "color", "time"],
    "notice": ["text", "time"], "error": ["code", "text"], "goodbye": []}
WRONG = [
    None, True, False, 0, -1, 10 ** 400, 0.5, 1e300, "", "x", " ", "\0", "\x1b[2J",
    "\ud83d", "x" * 30_000, "Server", "0001-01-01T00:00:00.000Z",
    "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000+23:59", [], [None], [[]],
    [{}], [{"name": 5, "color": 1}], [{"name": "x", "color": "x"}], {}, {"name": "x"}]


def broken(kind):
    """(what is wrong, message): each field wrong in every way, and each missing."""
    right = RIGHT[kind]
    for field in sorted(set(right) - {"type"}):
        for value in WRONG:
            yield f"{field}: {value!r:.40}", {**right, field: value}
        yield f"no {field}", {name: right[name] for name in right if name != field}
    yield "nothing", {"type": kind}


@pytest.mark.parametrize("kind", RIGHT)
def test_fields_of_the_wrong_kind_cost_a_note_and_no_more(client, odd, kind):
    minou = client(odd, wait=None)
    side = odd.let_in()
    number = 10 ** 401                 # some of these ids are large
    for what, message in broken(kind):
        number += 2
        if "id" in message and message["id"] == 0:
            message["id"] = number
        side.send(message, chat(number + 1, what))
        minou.until_line(what)          # so it was neither an exception nor the end
    assert minou.status == "online"


@pytest.mark.parametrize("kind, field", [
    (kind, field) for kind, fields in REQUIRED.items() for field in fields])
def test_a_required_field_that_is_missing_is_noted(client, odd, kind, field):
    minou = client(odd, wait=None)
    side = odd.let_in()
    message = {name: value for name, value in RIGHT[kind].items() if name != field}
    if field != "id" and kind == "chat":
        message["id"] = 1
    side.send(message, chat(2, "Hello"))
    minou.until_line("Hello")
    notes = [line.text for line in minou.chat.everyone.lines if line.kind == "error"]
    assert len(notes) == 1 and f"“{field}”" in notes[0]


# ------------------------------------------------------------- the end of a connection

def test_kicked(start_server, client):
    server = start_server(console=True)
    minou = client(server)
    server.type_line("/kick Minou")
    minou.until_state("offline")
    assert "operator" in minou.chat.status["text"]
    no_thread_is_left()
    assert "waiting" not in minou.states


@pytest.mark.parametrize("reason", [
    "bye", "kicked", "replaced", "too_many_errors", "server_full", "banned",
    "bad_password", "line_too_long"])
def test_goodbyes_after_which_coming_back_would_be_rude(client, odd, reason):
    minou = client(odd, wait=None)
    side = odd.let_in()
    side.send({"type": "goodbye", "reason": reason, "text": "Go \x1b[2Jaway."})
    side.close()
    minou.until_state("offline")
    assert minou.chat.status["text"] == "Go \ufffd[2Jaway."
    no_thread_is_left()


def test_who_waited_at_the_door_in_vain_tries_again(client, odd):
    """Our hello was said in time; others at our address had tried wrong passwords."""
    minou = client(odd, wait=None)
    side = odd.let_in()
    side.send({"type": "goodbye", "reason": "hello_timeout", "text": "Too late."})
    side.close()
    minou.until_state("waiting")
    odd.let_in()
    minou.until_state("online")


def test_shutdown_and_the_server_comes_back(start_server, client, join):
    server = start_server("--recent", "5")
    minou = client(server)
    minou.chat.typed("before")
    minou.until(lambda: not minou.chat.unconfirmed)
    server.stop()
    assert "shutting down" in minou.until_state("waiting")["text"]
    again = start_server("--recent", "5", "--port", server.port)
    join("Tigrou", again).say("Ids began anew: this is the first again")
    minou.chat.retry_now()
    minou.until_line("Ids began anew: this is the first again")
    assert any(line.startswith("Connected again, but") for line in minou.lines)
    assert minou.lines.count("before") == 1


def test_lines_seen_before_the_connection_broke_come_once(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in(history="H", last_id=2)
    side.send(*[chat(number, f"line {number}") for number in (1, 2, 3)])
    minou.until_line("line 3")
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    side = odd.let_in(history="H", last_id=4)
    side.send(*[chat(number, f"line {number}") for number in (1, 2, 3, 4)],
              chat(4, "line 4"), chat(5, "line 5"))
    minou.until_line("line 5")
    said = [line for line in minou.lines if line.startswith("line")]
    assert said == [f"line {number}" for number in (1, 2, 3, 4, 5)]
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    odd.let_in(history="another").send(chat(1, "a new line 1"))
    minou.until_line("a new line 1")


def test_a_line_that_breaks_and_the_same_server(start_server, client, join):
    server = start_server()
    tigrou = join("Tigrou", server)
    minou = client(server)
    tigrou.say("Hello")
    minou.until_line("Hello")
    minou.chat.connection.sock.shutdown(socket.SHUT_RDWR)
    minou.until_state("waiting")
    tigrou.expect("left", skip=["joined"], name="Minou", reason="lost")
    tigrou.say("While you were away")
    minou.chat.retry_now()
    minou.until_line("While you were away")
    assert minou.lines.count("Hello") == 1


def test_logging_out_is_for_good_and_connect_comes_back(server, client, join):
    tigrou = join("Tigrou")
    minou = client(server)
    tigrou.expect("joined", name="Minou")
    minou.chat.typed("/disconnect")
    tigrou.expect("left", name="Minou", reason="bye")
    no_thread_is_left()
    tigrou.silence()                    # so nobody has joined
    minou.chat.typed("connect")
    minou.until_state("online")
    tigrou.expect("joined", name="Minou")


def test_another_server_is_another_room(client, odd, server, join):
    join("Tigrou").say("in the real one")
    minou = client(odd, wait=None)
    odd.let_in().send(chat(70, "in the odd one"))
    minou.until_line("in the odd one")
    at_once(minou.chat.typed, f"/connect {server.host}:{server.port}")
    assert list(minou.chat.everyone.lines) == []
    # We are nowhere yet, and who types on must be told so.
    assert minou.chat.typed("Hello?") is False
    assert "not connected" in minou.lines[-1]
    minou.until_state("online")
    assert set(minou.chat.people) == {"minou", "tigrou"}
    assert minou.chat.last_id < 70 and minou.chat.unconfirmed == {}


def test_the_same_name_again_before_the_server_has_read_our_bye(server, client):
    """Ours would be taken by ourselves."""
    minou = client(server)
    for _ in range(5):
        minou.connect(server)
        assert "choose_name" not in minou.states


# --------------------------------------------------------------------------- receipts

def test_a_line_waits_for_its_receipt(server, client, join):
    tigrou = join("Tigrou")
    minou = client(server)
    before = len(minou.lines)
    assert at_once(minou.chat.typed, "Hello") is True
    line = minou.last_line()
    assert (line.text, line.state) == ("Hello", "waiting")
    minou.until(lambda: line.state == "")
    came = tigrou.expect("chat", skip=COMINGS, text="Hello")
    assert came["ref"] == line.ref and minou.chat.unconfirmed == {}
    assert line.time == ChattyCat_Client.local_time(came["time"])
    assert len(minou.lines) == before + 1       # the receipt is no line of its own


def test_a_private_line_and_its_answer(server, client, join):
    tigrou = join("Tigrou")
    garfield = join("Garfield")
    minou = client(server)
    assert minou.chat.typed("/msg tigrou psst") is True
    conversation = minou.chat.current
    assert minou.shown_now is conversation and conversation.name == "Tigrou"
    minou.until(lambda: minou.last_line().state == "")
    tigrou.expect("chat", skip=COMINGS, text="psst", to="Tigrou")
    minou.chat.typed("/everyone")
    tigrou.say("Yes?", to="Minou")
    minou.until_line("Yes?")
    assert [line.text for line in conversation.lines] == ["psst", "Yes?"]
    assert conversation.unread == 1
    garfield.expect("joined", name="Minou")
    garfield.silence()


def test_what_one_says_to_oneself_comes_once(server, client):
    minou = client(server)
    minou.chat.typed("/msg Minou note to myself")
    minou.until(lambda: minou.last_line().state == "")
    minou.chat.typed("/list")
    minou.until_line("1 here: Minou")
    assert minou.lines.count("note to myself") == 1


def test_a_line_that_is_refused(server, client, join):
    tigrou = join("Tigrou")
    minou = client(server)
    minou.chat.typed("/msg Tigrou Are you there?")
    tigrou.leave()
    conversation = minou.chat.current
    minou.until_line("Tigrou left")
    assert minou.chat.say("Hello?", conversation) is True
    line = conversation.lines[-1]
    minou.until(lambda: line.state == "failed")
    assert conversation.lines[-1].kind == "error"
    assert minou.chat.unconfirmed == {}


def test_nobody_knows_whether_it_arrived(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    for text in ("one", "two", "three"):
        minou.chat.typed(text)
    lines = list(minou.chat.everyone.lines)
    refs = [side.read()["ref"] for _ in lines]
    assert refs == [line.ref for line in lines] and len(set(refs)) == 3
    side.send(chat(1, "one", "Minou", ref=refs[0]),
              {"type": "error", "code": "muted", "text": "Hush.", "ref": refs[1]})
    side.close()
    minou.until_state("waiting")
    # A server that knows us again will say; so there is nothing to tell yet.
    assert [line.state for line in lines] == ["", "failed", "waiting"]
    minou.chat.retry_now()
    side = odd.let_in(history="another")
    minou.until_state("online")
    assert [line.state for line in lines] == ["", "failed", "unknown"]
    notes = [text for text in minou.lines if "not known whether" in text]
    assert len(notes) == 1 and "whether 1 of" in notes[0]
    minou.chat.typed("four")
    assert side.read()["text"] == "four"        # “three” is not sent behind our back


def test_a_ref_of_somebody_else_is_no_receipt(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    minou.chat.typed("Hello")
    ref = side.read()["ref"]
    line = minou.last_line()
    side.send(chat(1, "not yours", "Tigrou", ref=ref), chat(2, "end"))
    minou.until_line("end")
    assert line.state == "waiting" and "not yours" in minou.lines
    side.send(chat(3, "Hello", "Minou", ref=ref))
    minou.until(lambda: line.state == "")


# ------------------------------------------------------------------------ what is typed

@pytest.mark.parametrize("typed, done", [
    ("/dance", False), ("/", False), ("/ msg", False), ("/msg", False),
    ("/msg Nobody psst", False), ("/MSG Nobody psst", False),
    ("a\x1bb", False), ("x" * 4001, False), ("", True), ("  \n ", True),
    ("/help", True)], ids=lambda typed: ascii(typed)[:20])
def test_what_is_never_sent(client, odd, typed, done):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    assert minou.chat.typed(typed) is done
    assert minou.status == "online"
    minou.chat.typed("The next line")
    assert side.read()["text"] == "The next line"


@pytest.mark.parametrize("typed, sent", [
    ("Hello", "Hello"), ("  Hello ", "Hello"), ("//help", "/help"), ("// hi", "/ hi"),
    ("a /help", "a /help"), ("exit", "exit"), ("connect", "connect"), ("🐱", "🐱"),
    ("a\nb", "a\nb")])
def test_what_is_sent(client, odd, typed, sent):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    assert minou.chat.typed(typed) is True
    assert side.read()["text"] == sent


def test_nothing_is_sent_while_nobody_is_connected(client):
    minou = client()
    for text in ("Hello", "/list", "/disconnect"):
        minou.chat.typed(text)
        assert "not connected" in minou.lines[-1], text
    assert minou.chat.typed("Hello") is False   # it stays in the box
    minou.chat.typed("exit")
    assert minou.has_quit


def test_a_command_is_one_method():
    """What coursework does first, and /help tells of it."""
    class MyChat(Chat):
        def command_dance(self, rest):
            """/dance [STYLE]: dance"""
            self.note(f"You dance {rest or 'waltz'}.")

    face = Client()
    mine = MyChat(face, ChattyCat_Client.read_options([]))
    assert mine.typed("/dance  tango ") is True
    assert face.lines[-1] == "You dance tango."
    mine.typed("/help")
    assert "/dance [STYLE]: dance" in face.lines[-1].split("\n")
    assert "/msg NAME [TEXT]: talk to one person alone" in face.lines[-1].split("\n")


# --------------------------------------------------------- the main thread never waits

def test_a_server_that_stops_reading(client, odd):
    minou = client(odd, wait=None)
    odd.let_in()
    minou.until_state("online")
    for number in range(2000):          # 8 MB: more than the kernels take
        at_once(minou.chat.typed, f"{number:04}" + "x" * 3990)
    at_once(minou.chat.drain, 200, 0.05)
    at_once(minou.chat.hang_up)
    # It does not read our bye either, and does not close: it is a hung server.
    no_thread_is_left()


def test_a_flood_is_taken_in_small_portions(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    side.send(*[chat(number, f"line {number}") for number in range(1, 3001)])
    portions = []
    while len(minou.lines) < 3000:
        before = len(minou.lines)
        minou.chat.drain(200, 0.015)
        portions.append(len(minou.lines) - before)
    assert max(portions) <= 200
    assert minou.lines == [f"line {number}" for number in range(1, 3001)]


def flood(side, over):
    """Send lines of no meaning for as long as they are read."""
    side.sock.settimeout(0.2)
    lines = b'{"type":"x"}\n' * 5000
    try:
        while not over.is_set():
            side.send_raw(lines)
    except OSError:
        over.set()                      # nobody reads any more


def test_hanging_up_in_a_flood(client, odd):
    """More than the queue of events holds: the receive thread stands there waiting."""
    minou = client(odd, wait=None)
    side, over = odd.let_in(), threading.Event()
    flood(side, over)
    assert over.is_set()
    assert minou.chat.connection.events.qsize() == ChattyCat_Client.EVENTS
    at_once(minou.chat.hang_up)
    side.close()
    no_thread_is_left()


def test_another_name_in_a_flood(client, odd):
    minou = client(odd, wait=None)
    side, over = odd.accept(), threading.Event()
    side.read()
    side.send({"type": "error", "code": "name_taken", "text": "Taken."})
    minou.until_state("choose_name")
    flood(side, over)
    answered = threading.Thread(daemon=True, target=minou.chat.connect,
                                args=(odd.host, odd.port, "Tigrou"))
    answered.start()
    answered.join(2)
    assert not answered.is_alive(), "the main thread waits for the network"
    assert side.read()["name"] == "Tigrou"


@pytest.fixture
def black_hole(odd):
    """A server that nobody gets through to: its backlog is full, and Linux drops what
    comes then, as a firewall would."""
    odd.listener.listen(0)
    fillers = []
    while True:
        filler = socket.socket()
        fillers.append(filler)
        filler.settimeout(0.2)
        try:
            filler.connect((odd.host, odd.port))
        except socket.timeout:
            break
    odd.fillers = [filler.getsockname() for filler in fillers]
    yield odd
    for filler in fillers:
        filler.close()


linux = pytest.mark.skipif(sys.platform != "linux", reason="others refuse where the "
                           "backlog is full; there is no black hole to be had")


@linux
def test_hanging_up_while_connecting(black_hole, client):
    minou = client(black_hole, wait="connecting")
    at_once(minou.chat.hang_up)
    # Now there is room, and we get through after all. But we do not want any more:
    # the others must not read that somebody came and was lost.
    side = black_hole.accept()
    while side.sock.getpeername() in black_hole.fillers:
        side = black_hole.accept()
    assert side.read() is None
    no_thread_is_left()


@linux
def test_another_server_while_connecting(black_hole, server, client):
    minou = client(black_hole, wait="connecting")
    begin = time.monotonic()
    minou.connect(server)
    assert time.monotonic() - begin < 3
    black_hole.listener.close()         # or its thread would wait for ten seconds


def test_a_crowd_of_clients_leaves_nothing_behind(server, client):
    crowd = [client(server, f"Cat{number}") for number in range(30)]
    assert collections.Counter(thread.name for thread in threads_of_clients()) == {
        "receive": 30, "send": 30}
    for each in crowd:
        at_once(each.chat.hang_up)
    no_thread_is_left()


def test_a_connection_knows_no_screen(server):
    """It can be used alone: a bot needs no more (lesson 11)."""
    connection = Connection(server.host, server.port, "Bot")
    kinds = []
    while "welcome" not in kinds:
        kind, data = connection.events.get(timeout=5)
        kinds.append(data["type"] if kind == "message" else data["state"])
    assert kinds == ["connecting", "greeting", "welcome"]
    connection.send({"type": "chat", "text": "Beep"})
    assert connection.events.get(timeout=5)[1]["text"] == "Beep"
    connection.close()
    no_thread_is_left()
