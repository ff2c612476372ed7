"""The crowd (tests/crowd.py): are its figures true, and does it see what is wrong?"""
import contextlib
import json
import os
import re
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import crowd
import measuring

PROGRAM = Path(crowd.__file__)
FAULT = 20              # the message at which a wrong server does what is wrong
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def run(*words, **how):
    """Run crowd.py to its end: what it printed, and its exit status."""
    return subprocess.run([sys.executable, str(PROGRAM), *map(str, words)],
                          capture_output=True, encoding="utf-8", timeout=60,
                          env={**os.environ, "PYTHONUTF8": "1"}, **how)


def figures(*words):
    """The figures of a run that must go well. In this process: that is quicker."""
    options = crowd.read_options([*map(str, words), "--json"])
    return json.loads(crowd.run(options, measuring.Progress()))


def trouble_of(*words):
    """What the crowd finds wrong."""
    with pytest.raises(crowd.Trouble) as trouble:
        figures(*words)
    return str(trouble.value)


def sentence(done):
    """The last line on stderr; above it there may be progress."""
    return done.stderr.splitlines()[-1]


class TinyServer:
    """A chat server of a few lines, right, or wrong in one way that a test chooses.

    `fault(number, lines)` gets what each is about to be sent of message `number`,
    as {name: bytes}, and may change it. None instead of bytes: cut that one off.
    """
    def __init__(self, fault=lambda number, lines: None):
        self.fault, self.count, self.ended = fault, 0, False
        self.names, self.rests = {}, {}     # of the sockets
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        for sock in [self.listener, *self.rests]:
            sock.close()

    def serve(self):
        while not self.ended:
            for key, _ in self.selector.select(0.05):
                if key.fileobj is self.listener:
                    self.accept()
                else:
                    # Who is gone is gone: the crowd's end is not what is tested.
                    with contextlib.suppress(OSError):
                        self.read(key.fileobj)

    def accept(self):
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rests[sock] = b""
        self.selector.register(sock, selectors.EVENT_READ)

    def read(self, sock):
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(sock)
            self.names.pop(sock, None)
            return sock.close()
        *lines, self.rests[sock] = (self.rests[sock] + data).split(b"\n")
        for line in lines:
            self.obey(sock, line.rstrip(b"\r"))

    def obey(self, sock, line):
        message = json.loads(line)
        if message["type"] == "hello":
            joined = {"type": "joined", "name": message["name"]}
            self.to_all({name: encode(joined) for name in self.names.values()})
            self.names[sock] = message["name"]
            sock.sendall(encode({"type": "welcome", "count": len(self.names)}))
        elif message["type"] == "chat":
            self.deliver({"type": "chat", "id": self.count, "text": message["text"],
                          "from": self.names[sock], "ref": message["ref"]})
        elif message["type"] == "bye":
            sock.shutdown(socket.SHUT_WR)

    def deliver(self, message):
        lines = dict.fromkeys(self.names.values(), encode(message))
        self.fault(self.count, lines)
        self.count += 1
        self.to_all(lines)

    def to_all(self, lines):
        for sock, name in list(self.names.items()):
            if lines.get(name) is None and name in lines:
                sock.close()
                del self.names[sock]
            else:
                with contextlib.suppress(OSError):
                    sock.sendall(lines.get(name, b""))


class TinyIrcServer(TinyServer):
    """The same in IRC. `echo`: whoever says something gets it too, when they ask."""

    def __init__(self, fault=lambda number, lines: None, echo=True):
        super().__init__(fault)
        self.echo, self.nicks, self.pongs = echo, {}, set()

    def obey(self, sock, line):
        word, _, rest = line.decode().partition(" ")
        getattr(self, "on_" + word.lower())(sock, rest)

    def on_cap(self, sock, rest):
        if rest == "REQ :echo-message":
            answer = "ACK" if self.echo else "NAK"
            sock.sendall(f":tiny CAP * {answer} :echo-message\r\n".encode())

    def on_nick(self, sock, nick):
        self.nicks[sock] = nick

    def on_user(self, sock, _):
        sock.sendall(b":tiny 001 %s :Welcome\r\n" % self.nicks[sock].encode())

    def on_join(self, sock, room):
        nick = self.names[sock] = self.nicks[sock]
        self.to_all(dict.fromkeys(
            self.names.values(), f":{nick}!u@h JOIN :{room}\r\n".encode()))
        there = " ".join(self.names.values())
        sock.sendall(f":tiny 353 {nick} = {room} :{there}\r\n"
                     f":tiny 366 {nick} {room} :End\r\n".encode())

    def on_privmsg(self, sock, rest):
        line = f":{self.names[sock]}!u@h PRIVMSG {rest}\r\n".encode()
        lines = dict.fromkeys(self.names.values(), line)
        if not self.echo:
            lines[self.names[sock]] = b""
        if self.count == FAULT - 5:
            lines = {name: b"PING :%s\r\n" % name.encode() + line
                     for name, line in lines.items()}
        self.fault(self.count, lines)
        self.count += 1
        self.to_all(lines)

    def on_pong(self, sock, rest):
        self.pongs.add((self.names[sock], rest))

    def on_quit(self, sock, _):
        sock.shutdown(socket.SHUT_WR)


def encode(message):
    return json.dumps(message).encode() + b"\n"


# -------------------------------------------------------------------- the wrong servers

def only_at_fault(change):
    """A fault in one message, the first from FAULT on that these people are owed."""
    def make(*names):
        struck = set()

        def fault(number, lines):
            for name in names or list(lines):
                if number >= FAULT and lines.get(name) and name not in struck:
                    lines[name] = change(lines[name])
                    struck.add(name)
        return fault
    return make


def swapped(*names):
    """The message comes after the one that should have followed it."""
    held = {}

    def fault(number, lines):
        for name in names or list(lines):
            if number == FAULT:
                held[name], lines[name] = lines[name], b""
            elif number == FAULT + 1:
                lines[name] += held[name]
    return fault


def silent(*names):
    def fault(number, lines):
        for name in (names or list(lines)) if number >= FAULT else ():
            lines[name] = b""
    return fault


lost = only_at_fault(lambda line: b"")
doubled = only_at_fault(lambda line: line * 2)
garbled = only_at_fault(lambda line: line.replace(b"meow", b"meew", 1))
halved = only_at_fault(lambda line: line[:20])
cut_off = only_at_fault(lambda line: None)
same_id = only_at_fault(lambda line: line.replace(b'"id": 20', b'"id": 19'))
other_name = only_at_fault(lambda line: line.replace(b'"Cat', b'"Dog'))
other_ref = only_at_fault(lambda line: line.replace(b'"ref": "0:20"', b'"ref": "0:2"'))
refused = only_at_fault(lambda line: encode({"type": "error", "text": "No."}) + line)

# Whether others have read it before, or not.
NOT_DUE = "(where others got|where message [0-9]+ of Cat[01] is due)"
WRONG = {
    "lost for one": (lost("Cat2"), "Cat2: “.*0:21.*" + NOT_DUE),
    "lost for all": (lost(), "“0:21 .* where message 20 of Cat0 is due"),
    "doubled for one": (doubled("Cat2"), "Cat2: “.*0:20.*" + NOT_DUE),
    "doubled for all": (doubled(), "“0:20 .* where message 21 of Cat0 is due"),
    "garbled for one": (garbled("Cat2"), "Cat2: “.*0:20 meewmeow.*" + NOT_DUE),
    "garbled for all": (garbled(), "“0:20 meewmeow.* where message 20 of Cat0"),
    "half a line for one": (halved("Cat2"), "Cat2: a line is no JSON object"),
    "half a line for all": (halved(), "a line is no JSON object"),
    "swapped for one": (swapped("Cat2"), "Cat2: “.*0:21.*" + NOT_DUE),
    "swapped for all": (swapped(), "“0:21 .* where message 20 of Cat0 is due"),
    "another ref": (other_ref(), "the ref 0:2 with “0:20 meow"),
    "the same id": (same_id(), "the id 19 stands after the id 19"),
    "under another name": (other_name(), "“Dog0” talks, who is none of us"),
    "an error": (refused("Cat2"), "what came to Cat2: the server says: No."),
    "cut off": (cut_off("Cat2"), "Cat2 was cut off: "),
    "nothing more for one": (silent("Cat2"), "Cat2 lacks [0-9,]+ messages"),
    "nothing more for all": (silent(), "20 of 36 messages have arrived, but nothing")}


def patience(words):
    """Silence alone takes time to be noticed; elsewhere it must not be what is seen."""
    return ("--patience", "0.4") if re.search("lacks|have arrived", words) else ()


@pytest.mark.parametrize("fault, words", WRONG.values(), ids=WRONG)
def test_a_wrong_server_is_caught(fault, words):
    with TinyServer(fault) as server:
        trouble = trouble_of("4", "--senders", "1", "--port", str(server.port),
                             "--seconds", "0.3", *patience(words))
    assert re.search(words, trouble)


IRC_WRONG = {
    "lost for a reader": (lost("Cat3"), "Cat3: “.*" + NOT_DUE),
    "lost for a sender": (lost("Cat0"), "Cat0: “.*" + NOT_DUE),
    "doubled for a sender": (doubled("Cat1"), "Cat1: “.*" + NOT_DUE),
    "garbled for a sender": (garbled("Cat0"), "Cat0: “1:.* meewmeow.*" + NOT_DUE),
    "nothing more for a sender": (silent("Cat0"), "Cat0 lacks [0-9,]+ messages")}


@pytest.mark.parametrize("fault, words", IRC_WRONG.values(), ids=IRC_WRONG)
def test_a_wrong_irc_server_is_caught(fault, words):
    """One without echo: there the senders are owed the others' messages only."""
    with TinyIrcServer(fault, echo=False) as server:
        trouble = trouble_of("4", "--senders", "2", "--port", str(server.port),
                             "--irc", "--seconds", "0.3", *patience(words))
    assert re.search(words, trouble)


class TinyTlsServer(TinyServer):
    """The same in TLS. A socket of Python's does it all: this server knows nothing of
    the filters of ours and of the crowd."""

    def __init__(self, fault, certificate):
        super().__init__(fault)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)

    def accept(self):
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = self.context.wrap_socket(sock, server_side=True)
        self.rests[sock] = b""
        self.selector.register(sock, selectors.EVENT_READ)


@pytest.mark.parametrize("why, fault", [
    ("lost for one", lost("Cat2")), ("garbled for all", garbled()),
    ("half a line for one", halved("Cat2")), ("cut off", cut_off("Cat2")),
    ("nothing more for one", silent("Cat2"))])
def test_a_wrong_server_is_caught_in_tls(why, fault, certificate):
    words = WRONG[why][1]
    with TinyTlsServer(fault, certificate) as server:
        trouble = trouble_of("4", "--senders", "1", "--port", server.port, "--tls",
                             "--seconds", "0.3", *patience(words))
    assert re.search(words, trouble)


@pytest.mark.parametrize("make", [
    TinyServer, TinyIrcServer, lambda: TinyIrcServer(echo=False)],
    ids=["ChattyCat", "IRC", "IRC without echo"])
def test_a_right_server_is_not_blamed(make):
    with make() as server:
        irc = isinstance(server, TinyIrcServer)
        found = figures(8, "--senders", 3, "--port", server.port, "--seconds", "0.2",
                        *["--irc"] * irc)
        owed = 8 if getattr(server, "echo", True) else 7
        assert server.count == found["messages"] > FAULT
        assert found["deliveries"] == found["messages"] * owed
        if irc:         # who had to answer a PING in the middle of the talk has done so
            assert server.pongs == {(f"Cat{n}", f":Cat{n}") for n in range(8)}


# -------------------------------------------------------------------------- the figures

def test_the_figures_fit_each_other():
    begin = time.monotonic()
    found = figures(20, "--seconds", "0.3", "--window", "4", "--senders", "5")
    took = time.monotonic() - begin
    assert (found["people"], found["senders"], found["window"]) == (20, 5, 4)
    assert 0.3 <= found["seconds"] < took and found["messages"] > 100
    assert found["deliveries"] == 20 * found["messages"]
    rate = found["deliveries"] / found["seconds"]
    assert found["deliveries_per_second"] == pytest.approx(rate, rel=0.01)
    for name in ("arrival_ms", "last_ms"):
        times = found[name]
        assert 0 < times["p50"] <= times["p99"] <= times["max"] < 1000 * took
    assert found["arrival_ms"]["p50"] <= found["last_ms"]["p50"]
    assert found["arrival_ms"]["max"] <= found["last_ms"]["max"]
    # Little's law: what is in flight = how many pass a second x how long each takes.
    # The sender has it back before the last one has it, or is the last one.
    assert found["messages_per_second"] * found["last_ms"]["p99"] / 1000 > 20 / 4
    assert 0 < found["join_seconds"] <= found["all_seen_seconds"] < took
    assert 0 < found["generator_cpu_share"] <= 1.1


    if os.name != "nt":
        use = found["server"]
        assert 8 * 2**20 < use["memory_joined"] <= use["memory"] * 1.5 < 300 * 2**20
        assert 1000 < use["memory_per_person"] < 200_000
        assert 0.01 <= use["cpu_seconds"] < 3 * took
        assert use["deliveries_per_cpu_second"] == pytest.approx(
            found["deliveries"] / use["cpu_seconds"], rel=0.01)


def test_rate_is_kept_and_each_text_is_as_long_as_asked_for():
    heard = []
    with TinyServer(lambda number, lines: heard.extend(lines.values())) as server:
        found = figures(10, "--port", server.port, "--rate", "200", "--seconds", "0.4",
                        "--size", "777")
    # However busy the computer is: what was due is said, late if need be.
    assert (found["rate"], found["messages"]) == (200, 80)
    assert 0.39 <= found["seconds"] < 5 and 0 <= found["late_ms"] < 4000
    assert {len(json.loads(line)["text"]) for line in heard} == {777}


def at_the_end(extra):
    """A fault of the very last message: all that was owed has come, and then more."""
    def fault(number, lines):
        if json.loads(lines["Cat2"])["text"].startswith("0:9 "):
            lines["Cat2"] += extra(lines["Cat2"])
    return fault


@pytest.mark.parametrize("extra, why", [
    (lambda line: line, "“0:9 .* where message 10 of Cat0 is due"),
    (lambda line: line[:30], "to Cat2 half a line came at the end: “")])
def test_too_much_at_the_very_end(extra, why):
    with TinyServer(at_the_end(extra)) as server:
        done = run(4, "--senders", "1", "--port", server.port, "--rate", "100",
                   "--seconds", "0.1", "--json")
    assert server.count == 10
    assert re.fullmatch(f"crowd.py: .*{why}.*[.]", sentence(done))
    assert (done.returncode, list(json.loads(done.stdout))) == (1, ["trouble"])


def test_a_server_that_runs_already(server, join):
    """Twice: the names of the first crowd are free again when it has gone."""
    join("Minou")
    for _ in range(2):
        found = figures(20, "--port", server.port, "--pid", server.pid, "--seconds",
                        "0.1")
        assert found["deliveries"] == 20 * found["messages"] > 0
        assert os.name == "nt" or found["server"]["cpu_seconds"] > 0
    assert figures(3, "--port", server.port, "--seconds", "0.1")["server"] is None


def test_tls(start_server, certificate):
    """A server with --tls lets in nobody who does not speak it. In the second round the
    names are free, so the first one's `bye` has arrived, encrypted too."""
    server = start_server("--rate", "0", "--recent", "0", "--tls", "--cert",
                          certificate)
    for _ in range(2):
        found = figures(20, "--port", server.port, "--tls", "--seconds", "0.2",
                        "--size", "3000")
        assert found["deliveries"] == 20 * found["messages"] > 0
    done = run(3, "--port", server.port, "--tls", "--seconds", "0.1")
    assert "3 people, 3 of them talk, 16 in flight each, TLS, 0." in done.stdout
    with pytest.raises(crowd.NoStart, match="was not let in: .* speaks TLS only"):
        figures(3, "--port", server.port)


def test_tls_with_a_server_that_has_none(server):
    with pytest.raises(crowd.NoStart, match="was cut off: .*SSL"):
        figures(3, "--port", server.port, "--tls")




def test_it_is_readable_and_runs_from_any_folder(tmp_path):
    done = run(5, "--seconds", "0.1", cwd=tmp_path)
    assert done.returncode == 0
    words = ["5 people, 5 of them talk", "joins", "messages", "deliveries", "arrival",
             "last has it", "server memory", "this program", "deliveries came: once"]
    lines = done.stdout.splitlines()
    if os.name != "nt":
        words.insert(7, "server CPU")
    assert [word in line for word, line in zip(words, lines)] == [True] * len(lines)


IRC_PROGRAM = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from test_crowd import TinyIrcServer
with TinyIrcServer() as server:
    print(f"IRC tiny is listening on 127.0.0.1:{server.port}", flush=True)
    signal.sigwait([signal.SIGTERM])
"""


@POSIX
def test_versus(tmp_path):
    """With one that speaks IRC, as what it prints tells."""
    script = tmp_path / "irc.py"
    script.write_text(IRC_PROGRAM)
    found = figures(3, "--seconds", "0.1", "--pairs", "2", "--versus",
                    f'"{sys.executable}" "{script}" "{PROGRAM.parent}"')
    ours, [other] = found["ours"], found["others"]
    assert len(ours) == len(other["runs"]) == len(other["pairs"]) == 2
    for our_run, their_run, pair in zip(ours, other["runs"], other["pairs"]):
        our, their, ratio = pair["deliveries a second"]
        assert our == our_run["deliveries_per_second"]
        assert their == their_run["deliveries_per_second"]
        assert ratio == pytest.approx(our / their, abs=0.001)
    # To IRC they come a few at a time, so that is nothing to compare.
    assert "joining, s" in measuring.compare(*ours)
    assert "joining, s" not in measuring.compare(ours[0], other["runs"][0])
    check_table(measuring.report_comparison(other))
    for their_run in other["runs"]:
        their_run["generator_cpu_share"] = 0.97
    assert "97% of one core to keep up" in measuring.report_comparison(other)


def check_table(text):
    rows = re.findall(r"^(.{8}) (\S.+?) +([\d.,]+) +([\d.,]+) +([\d.]+)$", text,
                      re.MULTILINE)
    assert [row[0].strip() for row in rows if row[0].strip()] == [
        "round 1", "round 2", "median"]
    for _, what, ours, theirs, ratio in rows[:-len(rows) // 3]:
        ours, theirs = (float(figure.replace(",", "")) for figure in (ours, theirs))
        assert float(ratio) == pytest.approx(ours / theirs, abs=0.006), what


@POSIX
def test_versus_plain(certificate):
    """What TLS costs: a server with it, in turn with one that has none."""
    found = figures(5, "--seconds", "0.2", "--pairs", "2", "--tls", "--versus-plain")
    ours, [other] = found["ours"], found["others"]
    assert [run["tls"] for run in ours + other["runs"]] == [True, True, False, False]
    text = measuring.report_comparison(other)
    check_table(text)
    assert "ChattyCat, plain" in text
    assert "this program, % of one core" in other["median"]


@POSIX
def test_what_ps_says_is_understood_too():
    """Where there is no /proc, as on a Mac. It is asked here as well."""
    for source in {measuring.processes_by_ps, measuring.processes}:
        parent, memory, spent = source()[os.getpid()]
        assert parent == os.getppid()
        assert 5 * 2**20 < memory < 2**30
        # One tells of this process alone, the other of its ended children too.
        assert sum(os.times()[:2]) - 2 < spent < sum(os.times()[:4]) + 2
    assert list(map(measuring.seconds_of, ("12:34.56", "02:03:04", "1-00:00:07"))) == [
        754.56, 7384, 86_407]


def test_delays():
    delays = measuring.Delays()
    assert delays.figures() == {"p50": None, "p99": None, "max": None}
    delays.add(1_000_000_000, [1_000_000_000 - n * 1_000_000 for n in range(200)])
    assert delays.figures() == {"p50": 99.01, "p99": 197.01, "max": 199.01}


# ---------------------------------------------------------------- beginning, and ending

@pytest.mark.parametrize("words, why", [
    ([], "arguments are required: N"), (["0"], "from 1 to"), (["cat"], "from 1 to"),
    (["5", "--senders", "6"], "6 senders are more than 5 people"),
    (["5", "--window", "3", "--rate", "3"], "not allowed with"),
    (["5", "--seconds", "-1"], "from 0.1 to"), (["5", "--seconds", "nan"], "from 0.1"),
    (["5", "--pid", "1"], "say --port"),
    (["5", "--versus", "a'b"], "--versus: invalid command"),
    (["5", "--versus", ""], "--versus: invalid command"),
    (["5", "--nonsense"], "unrecognized")])
def test_a_wrong_command_line_is_one_sentence(words, why, capsys):
    with pytest.raises(SystemExit) as end:
        crowd.read_options(words)
    out, err = capsys.readouterr()
    assert re.fullmatch(f"crowd.py: .*{re.escape(why)}.*[.]\n", err)
    assert (out, end.value.code) == ("", 2)


@pytest.mark.parametrize("words, why", [
    (["5", "--port", "1"], "nobody listens on 127.0.0.1:1"),
    (["5", "--port", "1", "--size", "4000", "--irc"], "may have 350 characters"),
    (["5", "--versus", "/no/such/thing", "--seconds", "0.1"], "cannot run /no/such"),
    (["5", "--seconds", "0.1", "--versus", f'"{sys.executable}" -c "print(2 * 21)"'],
     "does not listen; it says “42”")])
def test_what_cannot_begin_is_told(words, why):
    with pytest.raises(crowd.NoStart, match=re.escape(why)):
        figures(*words)


def test_who_is_not_let_in(start_server):
    server = start_server("--max-clients", "3")
    done = run(5, "--port", server.port)
    assert re.fullmatch(r"crowd.py: Cat\d was not let in: .*[^.]\.", sentence(done))
    server.wait_for_line("turned away [(]see --max-clients[)]")
    assert run(3, "--port", server.port, "--seconds", "0.1").returncode == 0
    assert (done.stdout, done.returncode) == ("", 2)


def test_a_joined_that_is_lost():
    with TinyServer() as server:
        to_all = server.to_all
        server.to_all = lambda lines: to_all({**lines, "Cat1": b""})
        trouble = trouble_of(5, "--port", server.port, "--patience", "0.4")
    assert re.search(r"Cat1 knows of \d of 5 people", trouble)


def test_help():
    done = run("--help")
    assert done.returncode == 0 and "crowd.py 100 --versus" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def children(pid):
    return {child for child, facts in measuring.processes().items() if facts[0] == pid}


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_can_be_stopped_and_leaves_no_server_behind(name):
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "5", "--seconds", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert re.search("are in|have arrived", process.stderr.readline())
    servers = children(process.pid)
    assert len(servers) == 1
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=10)
    assert (out, process.returncode) == ("", 130)
    assert err.splitlines()[-1] == "crowd.py: stopped."
    assert not servers & set(measuring.processes())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_five_thousand_people():
    found = figures(5000, "--rate", "1", "--seconds", "5", "--patience", "60")
    assert found["deliveries"] == 5000 * found["messages"] > 0
