"""`ChattyCat_Client.py --plain`: the chat in a terminal (a pty) and through pipes."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import unicodedata

import pytest

from people import COMINGS, as_module
from test_connection import TIME, OddServer, chat

CLIENT = pathlib.Path(__file__).resolve().parent.parent / "ChattyCat_Client.py"
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no pty and no signals")

# subprocess cannot give the new process a terminal of its own, which Ctrl+C needs: so
# it starts this, which takes the terminal that is its stdin, and becomes the client.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable] + sys.argv[1:])
"""

# A Python without Tk, as Debian's is without python3-tk.
WITHOUT_TK = """
import runpy, sys
sys.modules["_tkinter"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Plain:
    """A client in a process of its own, and all that it prints.

    `terminal=True`: on a pty, as when somebody sits there; else on pipes.
    """
    def __init__(self, server, *options, terminal=False, face=("--plain",), python=(),
                 **env):
        module, folder = as_module(CLIENT)
        words = [*python, str(CLIENT)] if python else module
        words = [*words, *face, *map(str, options)]
        if server:
            words += ["--host", server.host, "--port", str(server.port)]
        self.home = tempfile.TemporaryDirectory(prefix="chattycat-")
        # PYTHONUTF8: a pipe on Windows has another encoding.
        env = {"PYTHONUTF8": "1", **os.environ, "CHATTYCAT_HOME": self.home.name,
               "PYTHONPATH": folder, **env}
        self.env = {name: value for name, value in env.items() if value is not None}
        self.output = b""
        self.news = threading.Condition()
        if terminal:
            self.start_on_terminal(["-c", ON_A_TERMINAL, *words])
        else:
            self.start_on_pipes(words)
        self.reader = threading.Thread(target=self.collect, daemon=True)
        self.reader.start()

    def start_on_pipes(self, words):
        # Nothing may be on stderr, so what is there is treated as if it were printed.
        self.process = subprocess.Popen(
            [sys.executable, *words], env=self.env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.stdin = self.process.stdin.fileno()
        self.stdout = self.process.stdout.fileno()

    def start_on_terminal(self, words):
        import pty
        terminal, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, *words], env=self.env, stdin=slave, stdout=slave,
            stderr=slave, start_new_session=True)
        os.close(slave)
        self.stdin = self.stdout = terminal

    def collect(self):
        try:
            while piece := os.read(self.stdout, 65536):
                with self.news:
                    self.output += piece
                    self.news.notify_all()
        except OSError:
            pass                        # how a pty ends on Linux

    @property
    def text(self):
        return self.output.decode("utf-8").replace("\r\n", "\n")

    @property
    def printed(self):
        """The lines with their stamps taken off; what was typed is not among them."""
        return re.findall(f"^{STAMP}(.*)$", self.text, re.MULTILINE)

    def wait_for(self, pattern, limit=8):
        """Wait until something like this has been printed, and return the match."""
        with self.news:
            found = self.news.wait_for(
                lambda: re.search(pattern, self.text, re.MULTILINE), limit)
            assert found, f"waited for {pattern!r}, but there was:\n{self.text}"
        return found

    def write(self, data):
        os.write(self.stdin, data.encode() if isinstance(data, str) else data)

    def type_line(self, text):
        self.write(text + "\n")

    def close_input(self):
        self.process.stdin.close()

    def status(self, limit=8):
        """Wait for its end; return its exit status. A traceback is never right."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended; it printed:\n{self.text}")
        self.reader.join(5)
        assert "Traceback" not in self.text and "Fatal" not in self.text, self.text
        return status

    def close(self):
        """End it in good order if it can: who is killed was lost, and the server keeps
        the name for a minute; the next test may need it."""
        if os.name == "nt":
            self.close_input()
        else:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.reader.join(5)
        if self.process.stdout:
            self.process.stdout.close()
            self.process.stdin.close()
        else:
            os.close(self.stdin)
        self.home.cleanup()


@pytest.fixture
def plain():
    """A function that starts a client; afterwards none of them is left."""
    started = []

    def start(*arguments, **how):
        started.append(Plain(*arguments, **how))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def odd():
    server = OddServer().listen()
    yield server
    server.close()


WAYS = pytest.mark.parametrize("terminal", [
    False, pytest.param(True, marks=POSIX)], ids=["pipe", "pty"])


def come_in(plain, server, name="Minou", **how):
    client = plain(server, "--name", name, **how)
    client.wait_for(f"You are in as {name}; ")
    return client


# ----------------------------------------------------------------------------- talking

@WAYS
def test_talking(server, join, plain, terminal):
    tigrou = join("Tigrou")
    minou = come_in(plain, server, terminal=terminal)
    minou.type_line("Hello Tigrou")
    said = tigrou.expect("chat", skip=COMINGS, text="Hello Tigrou", from_="Minou")
    # Our own line is printed when its receipt comes, with the server's time.
    minou.wait_for(f"^{STAMP}Minou: Hello Tigrou$")
    tigrou.say("Hello Minou")
    minou.wait_for(f"^{STAMP}Tigrou: Hello Minou$")
    tigrou.leave()
    minou.wait_for(f"^{STAMP}[*] Tigrou left$")
    assert minou.text.count("Minou: Hello Tigrou") == 1
    assert said["ref"] not in minou.text
    minou.type_line("/quit")
    assert minou.status() == 0


def test_private_lines(server, join, plain):
    tigrou = join("Tigrou")
    minou = come_in(plain, server)
    tigrou.say("psst", to="Minou")
    minou.wait_for(f"^{STAMP}Tigrou → you: psst$")
    minou.type_line("/msg tigrou Yes?")
    tigrou.expect("chat", skip=COMINGS, text="Yes?", to="Tigrou")
    minou.wait_for("goes to Tigrou alone; /everyone goes back")
    minou.wait_for(f"^{STAMP}Minou → Tigrou: Yes\\?$")
    minou.type_line("still between us")
    tigrou.expect("chat", text="still between us", to="Tigrou")
    minou.type_line("/everyone")
    minou.type_line("for all")
    assert "to" not in tigrou.expect("chat", text="for all")


def test_who_is_gone_is_not_everyone(server, join, plain):
    """Somebody may have typed half of a line when the other one leaves."""
    tigrou, felix, minou = join("Tigrou"), join("Félix"), come_in(plain, server)
    minou.type_line("/msg Tigrou first")
    tigrou.expect("chat", skip=COMINGS, text="first", to="Tigrou")
    tigrou.leave()
    minou.wait_for("Tigrou left")
    with minou.news:                    # the look once a second, that leads back others
        assert not minou.news.wait_for(lambda: "you are back" in minou.text, 1.5)
    minou.type_line("second, private too")
    minou.wait_for("Nobody of that name is here")
    minou.type_line("/everyone")
    minou.type_line("for all")
    assert felix.expect("chat", skip=COMINGS)["text"] == "for all"


def test_nothing_is_printed_twice(server, join, plain):
    """What somebody does stands in the room and in the conversation with them."""
    tigrou = join("Tigrou")
    minou = come_in(plain, server)
    minou.type_line("/msg Tigrou psst")
    tigrou.expect("chat", skip=COMINGS, text="psst")
    tigrou.leave()
    minou.wait_for("Tigrou left")
    join("Tigrou")
    minou.wait_for("Tigrou joined")
    for line in ("/nope", "/nope", "/disconnect", "exit"):
        minou.type_line(line)
    assert minou.status() == 0
    for text in ("Tigrou left", "Tigrou joined", "Minou → Tigrou: psst", "logged out"):
        assert minou.text.count(text) == 1, text
    assert minou.text.count("no command /nope") == 2    # but each question is answered


def test_why_a_private_line_was_refused(start_server, join, plain):
    """The same reason as before, in the room: it is said again."""
    server = start_server(console=True)
    join("Tigrou", server)
    minou = come_in(plain, server)
    server.type_line("/mute Minou")
    server.wait_for_line("can only read")
    for count, line in enumerate(("for all", "/msg Tigrou psst", "once more"), 1):
        minou.type_line(line)
        minou.wait_for(f"(?s)(The operator has muted you.*){{{count}}}")


def test_what_looks_like_somebody_elses_line_is_indented(server, join, plain):
    tigrou = join("Tigrou")
    minou = come_in(plain, server)
    tigrou.say("Look:\n2026-11-20 17:01:02  Minou: I was stupid\nHa!")
    minou.wait_for("Ha!")
    assert re.search(f"^{STAMP}Tigrou: Look:\n    2026-11-20 17:01:02  Minou: I was "
                     "stupid\n    Ha!$", minou.text, re.MULTILINE)


@POSIX
def test_the_name_is_asked_for_and_remembered(server, plain):
    minou = plain(server, terminal=True)
    minou.wait_for(f"^{STAMP}[*] Hello. Type your name.$")
    minou.type_line("a b")
    minou.wait_for("letters, digits.* Type your name.$")
    minou.type_line("Minou")
    minou.wait_for("You are in as Minou; 1 here")
    minou.type_line("/quit")
    assert minou.status() == 0
    again = plain(server, terminal=True, CHATTYCAT_HOME=minou.home.name)
    again.wait_for("Type your name [(]Enter: Minou[)]")
    again.type_line("")
    again.wait_for("You are in as Minou")


@POSIX
def test_a_name_that_is_taken_is_asked_for_again(server, join, plain):
    join("Minou")
    late = plain(server, "--name", "Minou", terminal=True)
    late.wait_for("is taken.* Type your name")
    late.type_line("minou")
    late.wait_for("“minou” is taken")
    late.type_line("Tigrou")
    late.wait_for("You are in as Tigrou; 2 here")


def test_no_server_yet(plain):
    server = OddServer()
    try:
        minou = plain(server, "--name", "Minou")
        minou.wait_for("No server answers at .*ChattyCat_Server.py")
        server.listen().let_in()
        minou.wait_for("You are in as Minou")
        assert minou.text.count("No server answers") == 1
    finally:
        server.close()


# --------------------------------------------------------------- while not connected

def test_connect_and_exit_as_words_after_logging_out(server, join, plain):
    tigrou = join("Tigrou")
    minou = come_in(plain, server)
    tigrou.expect("joined", name="Minou")
    minou.type_line("/disconnect")
    tigrou.expect("left", name="Minou", reason="bye")
    minou.wait_for("“connect” tries again, “exit” ends")
    minou.type_line("Is anybody there?")
    minou.wait_for("You are not connected; your text was not sent")
    minou.type_line(" Connect ")
    tigrou.expect("joined", name="Minou")
    minou.type_line("exit")             # now it is a word like any other
    tigrou.expect("chat", text="exit")
    minou.type_line("/disconnect")
    tigrou.expect("left", name="Minou", reason="bye")
    minou.type_line("exit")
    assert minou.status() == 0


@POSIX
def test_exit_while_waiting_for_a_server(plain):
    server = OddServer()                # nobody listens there
    try:
        minou = plain(server, "--name", "Minou", terminal=True)
        minou.wait_for("Waiting for it")
        minou.type_line("exit")
        assert minou.status() == 0
    finally:
        server.close()


@POSIX
@pytest.mark.parametrize("word", ["exit", "/quit"])
def test_leaving_with_something_unsaid(plain, word):
    """It waits to be sent, but whoever types a command means now."""
    server = OddServer()
    try:
        minou = plain(server, "--name", "Minou", terminal=True)
        minou.wait_for("Waiting for it")
        minou.type_line("Hello, is anybody there?")
        minou.type_line(word)
        assert minou.status() == 0
    finally:
        server.close()


@POSIX
def test_connect_while_waiting_for_a_server(plain):
    server = OddServer()
    try:
        minou = plain(server, "--name", "Minou", terminal=True)
        minou.wait_for("Waiting for it")
        server.listen()
        minou.type_line("connect")
        server.let_in()
        minou.wait_for("You are in as Minou")
        minou.type_line("Hello")
        assert server.accepted[-1].read()["text"] == "Hello"
    finally:
        server.close()


def test_the_server_shuts_down_and_comes_back(start_server, plain):
    server = start_server()
    minou = come_in(plain, server)
    server.stop()
    minou.wait_for("shutting down")
    minou.wait_for("Waiting for it")
    start_server("--port", server.port)
    minou.wait_for("You are in as Minou.*(\n.*)+You are in as Minou")


# -------------------------------------------------------------------------------- pipes

def piped(plain, server, data, *options, **how):
    """Run it with this as its whole input; return (exit status, client)."""
    client = plain(server, *options, **how)
    client.write(data)
    client.close_input()
    return client.status(), client


def test_a_line_from_a_pipe(server, join, plain):
    minou = join("Minou")
    status, bot = piped(plain, server, "hi\n", "--name", "Bot")
    assert status == 0
    assert bot.printed[-1] == "Bot: hi"
    minou.expect("joined", name="Bot")
    minou.expect("chat", text="hi", from_="Bot")
    minou.expect("left", name="Bot", reason="bye")


def test_many_lines_from_a_pipe_and_the_last_without_an_end(server, join, plain):
    minou = join("Minou")
    lines = [f"line {number}" for number in range(500)]
    assert piped(plain, server, "\n".join(lines), "--name", "Bot")[0] == 0
    minou.expect("joined")
    for line in lines:
        minou.expect("chat", text=line)
    minou.expect("left", reason="bye")


def test_a_pipe_that_answers_the_question_for_a_name(server, join, plain):
    minou = join("Minou")
    assert piped(plain, server, "Bot\nhi\n")[0] == 0
    minou.expect("joined", name="Bot")
    minou.expect("chat", text="hi")


def test_commands_from_a_pipe_wait_until_we_are_in(server, join, plain):
    """In the order in which they stand there, and none is lost."""
    minou = join("Minou")
    status, bot = piped(plain, server, "one\n/msg Minou two\n/everyone\n/list\n"
                        "three\n/quit\n", "--name", "Bot")
    assert status == 0
    minou.expect("joined", name="Bot")
    minou.expect("chat", text="one", from_="Bot")
    minou.expect("chat", text="two", to="Minou")
    minou.expect("chat", text="three")
    minou.expect("left", reason="bye")


def test_a_pipe_may_say_exit(server, join, plain):
    """A command only for who is not connected; this line comes when the bot is in."""
    minou = join("Minou")
    assert piped(plain, server, "hi\nexit\nconnect\nend\n", "--name", "Bot")[0] == 0
    minou.expect("joined", name="Bot")
    for text in ("hi", "exit", "connect", "end"):
        minou.expect("chat", text=text)


def test_a_pipe_and_no_server(plain):
    server = OddServer()
    try:
        status, bot = piped(plain, server, "hi\n", "--name", "Bot")
        assert status == 1
        assert "No server answers" in bot.text
    finally:
        server.close()


def test_a_pipe_and_a_name_that_is_taken(server, join, plain):
    minou = join("Minou")
    assert piped(plain, server, "hi\n", "--name", "Minou")[0] == 1
    minou.silence()                     # so nobody came in as “hi” either


def test_bytes_that_are_no_text(server, join, plain):
    minou = join("Minou")
    assert piped(plain, server, b"one\n\xff\xfe\nthree\n", "--name", "Bot")[0] == 0
    minou.expect("joined")
    minou.expect("chat", text="one")
    while minou.expect("chat")["text"] != "three":
        pass                            # what becomes of the second is not fixed


@POSIX
def test_no_input_and_no_output_at_all(server, join, plain):
    """As under cron, or behind `<&- >&-`."""
    minou = join("Minou")
    for closing in ("<&-", "</dev/null >&- 2>&-"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, str(CLIENT),
             "--plain", "--name", "Bot", "--host", server.host, "--port",
             str(server.port)], capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stderr) == (0, "")
    for _ in range(2):
        minou.expect("joined", name="Bot")
        minou.expect("left", name="Bot", reason="bye")


@POSIX
def test_whoever_reads_our_output_has_gone(server, join, plain):
    """`… --plain | head -1`"""
    tigrou = join("Tigrou")
    minou = subprocess.Popen(
        [sys.executable, str(CLIENT), "--plain", "--name", "Minou", "--host",
         server.host, "--port", str(server.port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        tigrou.expect("joined", name="Minou")
        minou.stdout.close()
        tigrou.say("Hello?")
        assert minou.wait(8) == 1
        assert minou.stderr.read() == b""
        tigrou.expect("left", name="Minou", reason="bye")
    finally:
        minou.kill()
        minou.communicate()


# ------------------------------------------------------------------------------ the end

@WAYS
def test_quit(server, join, plain, terminal):
    tigrou = join("Tigrou")
    minou = come_in(plain, server, terminal=terminal)
    minou.type_line("/quit")
    assert minou.status() == 0
    tigrou.expect("joined", name="Minou")
    tigrou.expect("left", name="Minou", reason="bye")


def press_ctrl_c(client, terminal):
    if terminal:
        client.write(b"\x03")
    else:
        client.process.send_signal(signal.SIGINT)


@POSIX
@WAYS
def test_ctrl_c(server, join, plain, terminal):
    tigrou = join("Tigrou")
    minou = come_in(plain, server, terminal=terminal)
    press_ctrl_c(minou, terminal)
    assert minou.status() == 0
    tigrou.expect("joined", name="Minou")
    tigrou.expect("left", name="Minou", reason="bye")


@POSIX
@pytest.mark.parametrize("where", ["name", "waiting", "hanging"])
def test_ctrl_c_before_we_are_in(plain, odd, where):
    if where == "waiting":
        odd.listener.close()
    minou = plain(odd, *["--name", "Minou"] * (where != "name"), terminal=True)
    if where == "hanging":
        odd.accept().read()
    else:
        minou.wait_for("Type your name" if where == "name" else "Waiting for it")
    press_ctrl_c(minou, terminal=True)
    assert minou.status() == 0


@POSIX
def test_ctrl_d(server, join, plain):
    tigrou = join("Tigrou")
    minou = come_in(plain, server, terminal=True)
    minou.type_line("one more thing")
    minou.write(b"\x04")
    assert minou.status() == 0
    tigrou.expect("joined", name="Minou")
    tigrou.expect("chat", text="one more thing")
    tigrou.expect("left", name="Minou", reason="bye")


def test_kicked(start_server, plain):
    server = start_server(console=True)
    minou = come_in(plain, server)
    server.type_line("/kick Minou")
    minou.wait_for("“connect” tries again")
    assert minou.text.count("operator has asked you to leave") == 1
    minou.type_line("exit")
    assert minou.status() == 0


# ------------------------------------------------------- what must not reach a terminal

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b5m\x7f\r\b\x00\u202e\u2066\ud83d\x85"


def evil_messages():
    """Every field of every message that somebody could put such text into."""
    name = "Evil" + EVIL
    people = [{"name": "Minou", "color": 0}, {"name": name, "color": 1}]
    return [
        chat(1, "a" + EVIL), chat(2, "b\nc" + EVIL, to="Minou"), chat(3, "d", name),
        chat(4, "e", to=name), {**chat(5, "f"), "time": EVIL}, chat(6, "g", ref=EVIL),
        {"type": "joined", "name": name, "color": 1, "time": TIME},
        {"type": "left", "name": "Tigrou", "reason": EVIL, "time": TIME},
        {"type": "left", "name": name, "reason": "bye", "time": TIME},
        {"type": "people", "people": people, "count": 2},
        {"type": "people", "people": people[:1], "count": EVIL},
        {"type": "notice", "text": "h" + EVIL, "time": TIME},
        {"type": "error", "code": EVIL, "text": "i" + EVIL},
        {"type": EVIL, "text": EVIL}, {"type": "nonsense", "text": EVIL},
        {"type": "welcome", "name": name, "text": EVIL}]


@WAYS
def test_no_control_character_of_others_reaches_the_terminal(odd, plain, terminal):
    minou = plain(odd, "--name", "Minou", terminal=terminal)
    side = odd.let_in(server=EVIL, session=EVIL, time=EVIL)
    side.send(*evil_messages())
    side.send_raw(EVIL.encode("utf-8", "surrogatepass") + b"\n")
    side.send(chat(99, "That was all"))
    minou.wait_for("That was all")
    side.send({"type": "goodbye", "reason": "kicked" + EVIL, "text": "k" + EVIL})
    side.close()
    minou.wait_for("“connect” tries again")
    text = minou.text                   # so it is UTF-8, or this would have failed
    assert {unicodedata.category(character) for character in text if character != "\n"
            }.isdisjoint({"Cc", "Cs"}), ascii(text)
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)
    for letter in "achik":
        assert re.search(f"{letter}\ufffd", text), (letter, text)
    minou.type_line("exit")
    assert minou.status() == 0


def test_a_server_that_sends_garbage_before_the_welcome(odd, plain):
    minou = plain(odd, "--name", "Minou")
    odd.accept().send_raw(b"\x1b[2JHello\r\n")
    minou.wait_for("not a ChattyCat server.*“connect” tries again")
    assert "\x1b" not in minou.text


# --------------------------------------------------- terminals that cannot show it all

@POSIX
@pytest.mark.parametrize("env", [
    {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=lambda env: ",".join(env))
def test_a_terminal_that_cannot_show_a_name(server, join, plain, env):
    """Written another way, and no crash; our own keyboard included."""
    cat = join("小猫")
    env = {"PYTHONUTF8": None, "LANG": None, "LC_CTYPE": None, **env}
    minou = come_in(plain, server, **env)
    cat.say("喵 🐱")
    minou.wait_for(r"^.*(小猫: 喵 🐱|\\u5c0f\\u732b: \\u55b5 \\U0001f431)$")
    minou.type_line("小猫!")
    minou.type_line("The next line")
    while cat.expect("chat", skip=COMINGS)["text"] != "The next line":
        pass                            # what became of the first is not fixed
    minou.close_input()
    assert minou.status() == ("Not sent" in minou.text or "control char" in minou.text)


# ------------------------------------------------------------------ no window to be had

ONE_SENTENCE = r"\A[^\n]*\. The chat goes on in this terminal\.\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"),
                    reason="other systems always have a screen")
def test_no_screen(server, join, plain):
    tigrou = join("Tigrou")
    minou = come_in(plain, server, face=(), DISPLAY=None, WAYLAND_DISPLAY=None)
    assert re.match(ONE_SENTENCE, minou.text)
    minou.type_line("Hello")
    tigrou.expect("chat", skip=COMINGS, text="Hello", from_="Minou")
    minou.type_line("/quit")
    assert minou.status() == 0


def test_a_python_without_tk(server, join, plain):
    tigrou = join("Tigrou")
    minou = come_in(plain, server, face=(), python=["-c", WITHOUT_TK])
    assert re.match(ONE_SENTENCE, minou.text)
    assert "python3-tk" in minou.text.split("\n")[0]
    minou.type_line("Hello")
    tigrou.expect("chat", skip=COMINGS, text="Hello", from_="Minou")


def test_plain_needs_no_tk_and_says_nothing_of_it(server, plain):
    minou = come_in(plain, server, python=["-c", WITHOUT_TK])
    assert "Tk" not in minou.text


def test_a_broken_last_login_is_one_sentence(server, plain, tmp_path):
    (tmp_path / "last_login.json").write_text("{broken")
    minou = come_in(plain, server, CHATTYCAT_HOME=str(tmp_path))
    assert "Your last login could not be read" in minou.printed[0]
    assert (tmp_path / "last_login.json.broken").read_text() == "{broken"


def test_a_login_that_cannot_be_remembered_is_said(server, plain, tmp_path):
    (tmp_path / "file").write_text("")
    minou = plain(server, CHATTYCAT_HOME=str(tmp_path / "file" / "below"))
    minou.wait_for("Type your name")
    minou.type_line("Minou")
    minou.wait_for("could not be remembered")
    minou.wait_for("You are in as Minou")
