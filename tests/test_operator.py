"""The operator's console: over a pipe, and on a real terminal (a pty)."""
import inspect
import os
import re
import signal
import subprocess

import pytest

import ChattyCat_Server
from people import COMINGS, ServerProcess

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")
NO_PTY = "Windows has no pty"


class ServerOnTerminal(ServerProcess):
    """As when somebody starts it by hand: its stdin and stdout are a terminal."""

    def open_process(self, env):
        import pty                          # POSIX only, as this whole class
        self.terminal, slave = pty.openpty()
        # A session of its own, or Ctrl+C in the terminal where the tests run, or its
        # closing, would reach this server too.
        process = subprocess.Popen(
            self.command, env=env, stdin=slave, stdout=slave, stderr=subprocess.PIPE,
            start_new_session=True)
        os.close(slave)
        process.stdout = open(self.terminal, "rb", buffering=0, closefd=False)
        return process

    def type_line(self, text):
        os.write(self.terminal, text.encode() + b"\r")      # the Enter key's byte

    def close(self, failed=False):
        super().close(failed)
        os.close(self.terminal)


@pytest.fixture(params=["pipe", pytest.param("pty", marks=pytest.mark.skipif(
    os.name == "nt", reason=NO_PTY))])
def server(request):
    kind = ServerOnTerminal if request.param == "pty" else ServerProcess
    with kind("--rate", "0", "--recent", "0", console=True) as server:
        yield server


def console_words():
    """{"/kick": the first line of its docstring, …}, as the script has them."""
    words = {}
    for _, owner in inspect.getmembers(ChattyCat_Server, inspect.isclass):
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            if name.startswith("console_"):
                line = inspect.getdoc(method).splitlines()[0]
                words["/" + name[len("console_"):]] = line
    return words


def test_help_lists_every_word(server):
    words = console_words()
    assert {"/help", "/who", "/say", "/kick", "/stats", "/quit"} <= set(words)
    server.type_line("/help")
    for line in words.values():
        server.wait_for_line(re.escape(line))


def test_who(server, join):
    minou, felix = join("Minou", server), join("Félix", server)
    server.type_line("/who")
    for person in (minou, felix):
        address = person.socket.getsockname()
        server.wait_for_line(f"{person.name}.*{address[0]}:{address[1]}")
    felix.leave()
    server.wait_for_line("Félix left")
    del server.lines[:]
    server.type_line("/who")
    server.type_line("/stats")
    server.wait_for_line("Minou")
    server.wait_for_line("[Mm]essages")
    assert "Félix" not in "\n".join(server.lines)


def test_say_reaches_everybody(server, join):
    people = [join("Minou", server), join("Tigrou", server)]
    stranger = join(to=server)
    server.type_line("/say The bell rings 🔔 in five minutes")
    for person in people:
        notice = person.expect(
            "notice", skip=COMINGS, text="The bell rings 🔔 in five minutes")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", notice["time"])
        person.silence()
    stranger.hello("Late")
    stranger.expect("welcome")


def test_a_word_without_what_it_needs_is_a_sentence(start_server, join):
    server = start_server(console=True)
    minou = join("Minou", server)
    server.wait_for_line("Minou joined")
    before = len(server.lines)
    for line in ("/say", "/say    ", "/say a\x07b", "/kick", "/kick  ", "/stats"):
        server.type_line(line)
    stats = server.wait_for_line("[Mm]essages").string
    assert server.lines.index(stats) == before + 6      # the second line of /stats
    minou.silence()


def test_kick(server, join):
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    minou.expect("joined")
    server.type_line("/kick TIGROU")
    assert tigrou.expect("goodbye", reason="kicked")["text"]
    assert tigrou.until_closed() == []
    minou.expect("left", name="Tigrou", reason="kicked")
    minou.silence()
    join("Tigrou", server)              # thrown out, not locked out
    server.type_line("/kick Nobody")
    server.wait_for_line("Nobody")
    minou.expect("joined", name="Tigrou")
    minou.silence()


def test_who_is_kicked_in_the_middle_of_it_all(server, join):
    """What was sent behind the kick is not heard, and the goodbye is the last line.

    Two threads of the server meet here, the console's and the reader's. Ten times,
    because they rarely meet at the worst moment.
    """
    minou = join("Minou", server)
    for _ in range(10):
        tigrou = join("Tigrou", server)
        server.type_line("/kick Tigrou")
        try:
            for _ in range(300):
                tigrou.send_raw(b'{"type": "list"}\n{"type": "chat", "text": "Hi"}\n')
        except ConnectionError:
            pass
        came = [message["type"] for message in tigrou.until_closed()]
        assert came[-1] == "goodbye"
        assert set(came[:-1]) <= {"people", "chat"}
        minou.expect("joined", name="Tigrou")
        minou.expect("left", skip=["chat"], name="Tigrou", reason="kicked")
        tigrou.close()
    minou.silence()


def test_quit(server, join):
    people = [join("Minou", server), join("Tigrou", server)]
    server.type_line("/quit")
    assert server.process.wait(5) == 0
    for person in people:
        person.expect("goodbye", skip=COMINGS, reason="shutdown")
        assert person.until_closed() == []


def test_an_unknown_word_is_a_sentence(start_server):
    server = start_server(console=True)
    server.wait_for_line("/help")       # the greeting names it: wait until it is out
    greeting = len(server.lines)
    strange = ["/meow", "/", "//", "hello there", "/__init__", "/help_", "kicks Minou"]
    for line in strange + ["/stats"]:
        server.type_line(line)
    server.wait_for_line("[Mm]essages")
    for line, answer in zip(strange, server.lines[greeting:]):
        assert STAMP.match(answer), (line, answer)
        assert line.split()[0] in answer and "/help" in answer, (line, answer)


def test_blank_lines_are_no_words(start_server):
    server = start_server(console=True)
    server.wait_for_line("/help")
    greeting = len(server.lines)
    for line in ("", "   ", "\t", "/stats"):
        server.type_line(line)
    server.wait_for_line("[Mm]essages")
    assert re.search("[Mm]essages", server.lines[greeting + 1])   # its second line


def test_every_line_of_every_answer_has_a_stamp(start_server, join):
    server = start_server(console=True)
    minou = join("Minou", server)
    for line in ("/help", "/who", "/say Hello", "/kick Nobody", "/meow", "/stats"):
        server.type_line(line)
    minou.expect("notice", text="Hello")
    server.wait_for_line("[Mm]essages")
    server.type_line("/kick Minou")
    server.wait_for_line("Minou left")
    server.type_line("/quit")
    assert server.process.wait(5) == 0
    server.readers[0].join(5)
    assert [line for line in server.lines[1:] if not STAMP.match(line)] == []


def test_bytes_that_are_no_text_do_not_end_the_console(start_server, monkeypatch):
    # So it is with most people's LANG, and not with the LANG=C of many test machines.
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    server = start_server(console=True)
    server.process.stdin.write(b"/say caf\xe9\n")           # Latin-1
    server.process.stdin.write(b"\xff\xfe\n")
    server.process.stdin.flush()
    server.type_line("/stats")
    server.wait_for_line("[Mm]essages")


def test_a_very_long_line_is_an_answer_as_others(start_server, join):
    server = start_server(console=True)
    minou = join("Minou", server)
    server.type_line("/say " + "x" * 100_000)
    server.type_line("/say the next one")
    minou.expect("notice", text="the next one")


def test_the_server_goes_on_where_its_input_ends(start_server, join):
    server = start_server(console=True)
    server.type_line("/stats")
    server.process.stdin.close()
    server.wait_for_line("[Mm]essages")
    join("Minou", server).say("Hello")


@pytest.mark.skipif(os.name == "nt", reason=NO_PTY)
def test_the_end_of_what_is_typed_is_said_on_a_terminal(join):
    with ServerOnTerminal(console=True) as server:
        os.write(server.terminal, b"\x04")                  # Ctrl+D
        server.wait_for_line("the end of your commands")
        join("Minou", server).say("Hello")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_a_hangup_is_an_end_in_good_order(start_server, join, tmp_path):
    """What a shell sends to its programs when somebody closes its window."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)   # `nohup python3 -m tests`
    server = start_server("--history", tmp_path / "history")
    signal.signal(signal.SIGHUP, before)
    minou = join("Minou", server)
    minou.say("Hello")
    server.process.send_signal(signal.SIGHUP)
    minou.expect("goodbye", reason="shutdown")
    assert server.process.wait(10) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_who_was_started_by_nohup_outlives_the_terminal(join):
    server = ServerProcess()
    server.command.insert(0, "nohup")
    with server:
        server.process.send_signal(signal.SIGHUP)
        join("Minou", server).say("Hello")  # the signal would have ended it by now


@pytest.mark.skipif(os.name == "nt", reason=NO_PTY)
def test_the_server_goes_on_where_its_terminal_was_closed(join):
    """It prints who comes and goes, and now there is nowhere to print it. (Nobody sends
    a SIGHUP: it is not this session's terminal.)"""
    with ServerOnTerminal(console=True) as server:
        minou = join("Minou", server)
        with open(os.devnull, "r+b") as nowhere:
            os.dup2(nowhere.fileno(), server.terminal)      # closes the terminal
        tigrou = join("Tigrou", server)
        minou.expect("joined", name="Tigrou")
        server.readers[0].join(5)
        assert not server.readers[0].is_alive(), "the terminal is still open"
        minou.say("Hello")
        tigrou.expect("chat", text="Hello")
        tigrou.leave()
        minou.expect("left", name="Tigrou")
        server.process.terminate()
        minou.expect("goodbye", reason="shutdown")
        assert server.process.wait(10) == 0
