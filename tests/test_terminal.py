"""`--terminal`: the chat under curses, on a pty, with somebody who types and looks."""
import os
import pathlib
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

from parcels import digest, fetch, send_file, some_bytes
from people import COMINGS
from test_connection import chat, odd
from test_password import PASSWORD, Guarded
from test_plain_lines import (CLIENT, EVIL, ON_A_TERMINAL, WITHOUT_TK, Plain,
                              evil_messages, plain)
from tty_screen import TtyScreen

FIXTURES = (odd, plain)
LESSON = pathlib.Path("lessons", "21_another_face", "ChattyCat_Terminal.py")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no curses")
LEFT = b"\x1b[?1049l"                   # back to the terminal's own screen

# Keys, as an xterm sends them in the mode that curses asks for.
UP, DOWN, RIGHT, LEFT_KEY = "\x1bOA", "\x1bOB", "\x1bOC", "\x1bOD"
HOME, END, DELETE = "\x1bOH", "\x1bOF", "\x1b[3~"
PAGE_UP, PAGE_DOWN, SHIFT_TAB, F1, CTRL_END, ALT_UP, ALT_DOWN = (
    "\x1b[5~", "\x1b[6~", "\x1b[Z", "\x1bOP", "\x1b[1;5F", "\x1b[1;3A", "\x1b[1;3B")


class OnScreen(Plain):
    """A client on a terminal that somebody looks at: `sees()` is what is there now."""

    def __init__(self, server, *options, face=("--terminal",), size=(24, 80),
                 words=None, **how):
        self.screen, self.size, self.words = TtyScreen(*size), size, words
        self.hung_up = False
        env = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "LINES": None,
               "COLUMNS": None, "PYTHONUTF8": None}
        super().__init__(server, *options, terminal=True, face=face, **{**env, **how})

    def start_on_terminal(self, words):
        import pty
        terminal, slave = pty.openpty()
        self.stdin = self.stdout = terminal
        self.set_size(*self.size)
        command = [sys.executable, *words] if self.words is None else self.words(words)
        self.process = subprocess.Popen(command, env=self.env, stdin=slave,
                                        stdout=slave, stderr=slave,
                                        start_new_session=True)
        os.close(slave)

    def set_size(self, rows, columns):
        import fcntl
        import termios
        fcntl.ioctl(self.stdin, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def collect(self):
        """What Plain does, but a terminal that is to hang up is not in the middle of a
        read then, which would keep it open."""
        try:
            while not self.hung_up:
                if not select.select([self.stdout], [], [], 0.05)[0]:
                    continue
                piece = os.read(self.stdout, 65536)
                with self.news:
                    self.output += piece
                    self.screen.feed(piece)
                    self.news.notify_all()
        except OSError:
            pass
        except AssertionError as error:     # what no terminal should ever be sent
            self.output += f"\nTraceback of the screen: {error}".encode()
            raise

    def hang_up(self):
        """The terminal goes away: somebody has closed its window."""
        self.hung_up = True
        self.reader.join(5)
        os.close(self.stdin)
        self.stdin = os.open(os.devnull, os.O_RDONLY)       # for close()

    def sees(self, pattern, limit=8):
        """Wait until something like this is on the screen, and return the match."""
        with self.news:
            found = self.news.wait_for(
                lambda: re.search(pattern, self.screen.text, re.MULTILINE), limit)
            assert found, f"looked for {pattern!r}, but saw:\n{self.screen.text}"
        return found

    def sees_not(self, pattern, limit=8):
        with self.news:
            gone = self.news.wait_for(
                lambda: not re.search(pattern, self.screen.text, re.MULTILINE), limit)
            assert gone, f"{pattern!r} is still there:\n{self.screen.text}"

    def box(self, text, limit=8):
        """Wait until exactly this stands in the box (of spaces at its end one cannot
        tell)."""
        self.sees(rf"^> {re.escape(text.rstrip())}\Z", limit)

    def pull(self, rows, columns):
        """Make the window another size. (Of the same size no program is told.)"""
        if (rows, columns) == (self.screen.rows, self.screen.columns):
            return
        with self.news:
            self.screen.resize(rows, columns)
        self.set_size(rows, columns)

    def behind_the_picture(self):
        """What is printed when the terminal is itself again."""
        return self.output.rpartition(LEFT)[2].decode()

    def close(self):
        if self.process.poll() is None:
            super().close()
        else:
            self.reader.join(5)
            os.close(self.stdin)
            self.home.cleanup()


@pytest.fixture
def enter():
    """A function that starts a client on a terminal; the next one waits until it is in.
    """
    started = []

    def start(server, *options, name="Minou", **how):
        words = ("--name", name) if name else ()
        started.append(OnScreen(server, *words, *options, **how))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def come_in(enter):
    def come(server, *options, **how):
        minou = enter(server, *options, **how)
        minou.sees("connected .*:")
        return minou
    return come


@pytest.fixture(scope="module")
def one_for_many(server):
    client = OnScreen(server, "--name", "Minette")
    client.sees("connected .*:")
    yield client
    client.close()


@pytest.fixture
def minette(one_for_many):
    """Somebody who has been there for some time: to start a client for each of the
    tests below takes longer than they do."""
    yield one_for_many
    one_for_many.pull(24, 80)
    one_for_many.write(CTRL_END + END + "\x15")
    one_for_many.box("Message everyone…")


def ends(minou, status=0):
    """It ends so, and leaves the terminal as it was."""
    import termios
    assert minou.status() == status
    assert not minou.screen.on & {"1049", "2004", "1"}
    assert "25" in minou.screen.on      # the cursor is there again
    modes = termios.tcgetattr(minou.stdin)[3]
    assert modes & termios.ECHO and modes & termios.ICANON


# ------------------------------------------------------------- from login to goodbye

def test_from_login_to_goodbye(server, join, enter):
    minou = enter(server, name=None)
    minou.sees("Hello. Type your name")
    # Keys for which there is nothing to do yet. (\x0c is Ctrl+L.)
    minou.write(PAGE_UP + PAGE_DOWN + UP + DOWN + "\t\x0c\x0e\x7f" + DELETE)
    minou.write("a b\r")
    minou.sees("letters, digits(.*\\n)*digit. Type your name")
    minou.write("\x15Minou\r")          # (what was wrong is still there, to be mended)
    minou.sees(rf" ChattyCat — # Everyone · Minou · connected {server.host}:")
    tigrou = join("Tigrou")
    minou.sees(r"^ +│ PEOPLE \(2\)$(.*\n)*\d\d:\d\d \* +Tigrou joined ")
    minou.sees("│ ● Minou .you.$(.*\n)*.*│ ● Tigrou$")
    minou.sees("^> Message everyone…")
    minou.write("Hello Tigrou\r")
    tigrou.expect("chat", skip=COMINGS, text="Hello Tigrou", from_="Minou")
    minou.sees(r"^\d\d:\d\d Minou +Hello Tigrou ")
    tigrou.say("Look at https://example.org/ now")
    minou.sees(r"^\d\d:\d\d Tigrou +Look at https://example.org/ now ")
    assert minou.screen.looks_of("https://example.org/") == {4}
    assert minou.screen.looks_of("Look at ") == set()
    tigrou.say("I said: Minou!")
    minou.sees("I said: Minou!")
    assert minou.screen.looks_of("I said: ") == {1}
    assert 7 in minou.screen.looks_of("Tigrou       I said")
    assert {1, "38;5;166"} <= minou.screen.looks_of("Tigrou       Look")
    minou.write("/nope\r")
    minou.sees(r"\* +There is no command /nope(.*\n)*> /nope\Z")
    assert minou.screen.looks_of("There is no") == {"38;5;1"}
    minou.write("\x15" + F1)
    minou.sees("Ctrl.C: leave")
    minou.write("/quit\r")
    ends(minou)
    tigrou.expect("left", skip=("chat",), name="Minou", reason="bye")
    again = enter(server, name=None, CHATTYCAT_HOME=minou.home.name)
    again.sees(r"Your name: Minou\Z")
    again.write("\r")
    again.sees("Minou · connected")


def test_the_operator_cannot_be_played(start_server, join, come_in):
    server = start_server(console=True)
    minou = come_in(server)
    server.type_line("/say Hello all")
    minou.sees(r"^\d\d:\d\d \[Server\] +Hello all ")
    server.type_line("/kick Minou")
    minou.sees("operator has asked you to leave.* /connect tries again, /quit ends")
    minou.write("exit\r")
    ends(minou)


def test_a_line_of_ours_is_dim_until_its_receipt(odd, enter):
    minou = enter(odd)
    side = odd.let_in()
    minou.sees("connected")
    minou.write("Hello\r")
    minou.sees("Minou +Hello")
    assert minou.screen.looks_of("Hello ") == {"38;5;244"}
    side.send(chat(1, "Hello", "Minou", ref=side.read()["ref"]))
    minou.write("Bad\r")
    side.send({"type": "error", "code": "bad_text", "text": "No!",
               "ref": side.read()["ref"]})
    minou.sees(r"Minou +Bad \(not sent\)(.*\n)+.*\* +No!")
    assert minou.screen.looks_of("Bad (not sent)") == {"38;5;1"}
    side.send(chat(2, "Hi"))
    minou.sees("Tigrou +Hi")
    assert minou.screen.looks_of("Hello ") == set()
    side.send(chat(3, "two\nrows, " + "long " * 12, time="2026-11-23T12:00:00Z"))
    minou.sees(r"^─+ Monday 23 November 2026 ─+ +│(.*\n).*Tigrou +two +│.*\n {19}rows, "
               r"long.*\n {19}long")


# ---------------------------------------------------------------------------- typing

def test_editing(join, minette):
    tigrou = join("Tigrou")
    minette.write("one two three")
    minette.box("one two three")
    for keys, left in (
            ("\x17", "one two "), ("four", "one two four"),         # Ctrl+W
            ("\x01zero " + END + "!", "zero one two four!"),        # Ctrl+A
            (HOME + DELETE, "ero one two four!"), ("Z", "Zero one two four!"),
            ("\x05" + LEFT_KEY * 5 + "\x0b", "Zero one two"),       # Ctrl+E, Ctrl+K
            (LEFT_KEY * 4 + "\x15", "two"), (RIGHT * 9 + "\x7f" * 2, "tw"),
            ("\x15👩‍🚀e\u0301👍🏽🇫🇷", "👩🚀e\u0301👍🏽🇫🇷"),
            ("\x7f", "👩🚀e\u0301👍🏽"), ("\x7f", "👩🚀e\u0301"), ("\x7f", "👩🚀"),
            (LEFT_KEY + DELETE + "小" + LEFT_KEY + "猫", "猫小"),
            ("\x0a.", "猫↵.小"), ("\x1b\r", "猫↵.↵小")):
        minette.write(keys)
        minette.box(left)
    minette.write("\r")
    tigrou.expect("chat", skip=COMINGS, text="猫\n.\n小")
    minette.sees(r"Minette +猫 +│.*\n +\. +│.*\n +小")
    # Longer than the row: what stands around the cursor.
    minette.write(" ".join(map(str, range(60))))
    minette.box("".join(f"{number} " for number in range(34, 59))[1:] + "59")
    assert (minette.screen.y, minette.screen.x) == (23, 78)
    minette.write(HOME)
    minette.sees(r"^> 0 1 2 3 4 5[ \d]+\Z")
    minette.write(END + "\x15" + "x" * 4001 + "\r")
    minette.sees("one has 4001(.*\n)*> x{76}")


def test_escape_sequences_of_unknown_keys_are_no_text(minette):
    minette.write("a\x1b[25;5~b\x1b[Ic\x1bOed\x1bxe")
    minette.box("abcde")


def test_esc_held_down_ends_nothing(minette):
    minette.write("\x1b" * 600)
    minette.write("xy")                 # (Alt+x, if the last Esc had none to go with)
    minette.sees(r"^> x?y\Z")


def test_what_was_sent_and_what_begins_so(server, join, come_in):
    join("Tigrou"), join("Tiger")
    minou = come_in(server)
    minou.write("first\rsecond\r/connect nowhere nowhere\r")
    minou.sees("A port is a number")
    minou.write("\x15draft" + UP)
    minou.box("/connect nowhere nowhere")
    for keys, left in (
            (UP, "second"), (UP * 2, "first"), (DOWN, "second"), (DOWN * 2, "draft"),
            ("\x15ti\t", "Tiger, "), ("\t", "Tigrou, "), (SHIFT_TAB, "Tiger, "),
            ("and ti\t\t", "Tiger, and Tigrou "), ("\x15/ev\t", "/everyone ")):
        minou.write(keys)
        minou.box(left)


def test_conversations_drafts_and_unread_marks(server, join, come_in):
    tigrou, felix = join("Tigrou"), join("Félix")
    minou = come_in(server)
    tigrou.say("psst", to="Minou")
    tigrou.say("Minou?", to="Minou")
    felix.say("hey", to="Minou")
    minou.sees(r"^ \(3\) ChattyCat(.*\n)*.*● Félix \(1\)\n(.*\n)*.*● Tigrou \(2!\)")
    assert 7 in minou.screen.looks_of("(2!)") and 7 not in minou.screen.looks_of("(1)")
    minou.write("for all")
    minou.box("for all")
    minou.write("\x0e")                                     # Ctrl+N
    minou.sees(r"^ \(2\) ChattyCat — Félix(.*\n)*> Message Félix, privately…")
    minou.sees("─ New messages ─+.*\n.*Félix +hey")
    minou.write("for Félix" + ALT_DOWN)
    minou.sees(r"^ ChattyCat — Tigrou · (.*\n)*> Message Tigrou, privately…")
    minou.write("/msg Félix now\r")
    minou.sees("ChattyCat — Félix")
    minou.box("for Félix")
    felix.expect("chat", skip=COMINGS, text="now", to="Félix")
    felix.leave()
    minou.sees(r"OFFLINE \(1\)\n.*> Félix$")
    for keys, pattern in (("\x10", "Tigrou"), ("\x1b3", "Félix"),      # Ctrl+P
                          (ALT_DOWN, "Félix"), (ALT_UP, "Tigrou"),   # no way round
                          ("\x1b1", "# Everyone"), ("\x1b9", "# Everyone")):
        minou.write(keys)
        minou.sees(f"ChattyCat — {pattern} ·")
    minou.box("for all")
    minou.write("\r")
    tigrou.expect("chat", skip=COMINGS, text="for all")


def test_a_paste_of_several_lines_is_one_message(join, minette):
    tigrou = join("Tigrou")
    assert "2004" in minette.screen.on
    minette.write("\x1b[200~one\rtwo\n\x15\x1b[A\tthree\r\x1b[201~")
    minette.box("one↵two↵    three↵")
    minette.write("\r")
    tigrou.expect("chat", skip=COMINGS, text="one\ntwo\n\tthree")


def test_a_paste_whose_end_comes_in_two_pieces(join, minette):
    """As over a slow line. Else the paste would go on for ever, and Enter send nothing.
    """
    tigrou = join("Tigrou")
    minette.write("\x1b[200~abc\x1b[20")
    time.sleep(0.05)                    # this is the slow line
    minette.write("1~\r")
    tigrou.expect("chat", skip=COMINGS, text="abc")


def test_a_book_is_pasted(minette):
    minette.write(f"\x1b[200~{'word ' * 20_000}\x1b[201~")
    minette.write("the end")
    minette.sees(r"word the end\Z")


# ------------------------------------------------------------------------- the picture

def say_lines(person, count, start=1):
    person.send_raw(b"".join(b'{"type":"chat","text":"line %d"}\n' % number
                             for number in range(start, start + count)))


def lines_of(minou):
    return [int(number) for number in re.findall(r"line (\d+)", minou.screen.text)]


def test_scrolling(server, join, come_in):
    tigrou = join("Tigrou")
    minou = come_in(server)
    say_lines(tigrou, 100)
    minou.sees("line 100")
    assert lines_of(minou) == list(range(80, 101))
    minou.write(PAGE_UP)
    minou.sees("↓ more")
    assert lines_of(minou) == list(range(60, 81))
    say_lines(tigrou, 3, 101)
    minou.sees("↓ 3 new")
    assert lines_of(minou) == list(range(60, 81))
    minou.write("typed meanwhile" + PAGE_UP)
    minou.sees("line 40 ")
    minou.pull(10, 50)                  # what stood at the bottom still does
    minou.sees(r"\A.*\n" + "".join(rf".*line {n}\n" for n in range(54, 61)) + "─+ ↓ 3")
    minou.pull(24, 80)
    minou.sees("line 40 ")
    minou.write(PAGE_DOWN * 2)
    minou.sees("line 100 ")
    minou.write(PAGE_UP * 9)
    minou.sees(r"line 1 (.*\n)+.*line 20 .*\n─+ ↓ ")     # the top, and a full screen
    minou.write(CTRL_END)
    minou.sees("line 103 .*\n─+\n> typed meanwhile")
    minou.write(PAGE_UP + "\x1b")
    minou.sees("line 103 .*\n─+\n")
    minou.write(PAGE_UP + "\r")         # who speaks wants to see the answer
    minou.sees("typed meanwhile .*\n─+\n> Message")


def test_a_message_longer_than_the_screen_can_be_read(join, minette):
    tigrou = join("Tigrou")
    tigrou.say(" ".join(f"word{number}" for number in range(400)))
    minette.sees("word399")
    seen = set()
    while True:
        seen.update(re.findall(r"word\d+", minette.screen.text))
        if "word0" in seen:
            break
        # The highest row becomes the lowest one, which is drawn last.
        highest = minette.screen.row(1).partition("│")[0].rstrip()
        minette.write(PAGE_UP)
        minette.sees("^" + re.escape(highest) + r" *│.*\n─")
    assert len(seen) == 400


def test_every_size(join, minette):
    tigrou = join("Tigrou")
    tigrou.say("x" * 4000)              # one word, and no space in it
    tigrou.say("The end.")
    minette.sees("x{40} │.*\n.*The end. +│")
    minette.pull(10, 50)
    minette.sees(r"\A.*\n( {15}x{34}\n){5} {15}x+\n"
               r"\d\d:\d\d Tigrou   The end.\n─{50}\n> Mess")
    assert "│" not in minette.screen.text
    minette.pull(30, 100)
    minette.sees(r"The end. +│\n─{100}\n> Mess.*\Z")
    minette.pull(3, 10)
    minette.sees(r"\AWindow\ntoo small\n?\Z")
    minette.write("typed blindly" + PAGE_UP + PAGE_DOWN + CTRL_END)
    minette.pull(5, 24)
    minette.sees(r"\A.*\n.*\n.*The end.\n─{24}\n> typed blindly\Z")
    minette.pull(24, 80)
    minette.sees("x{40} │.*\n.*The end. +│")
    minette.box("typed blindly")
    assert minette.screen.cells[23][79][0] == " "


@pytest.mark.long
def test_many_people(server, join, come_in):
    people = [join(f"Somebody_number_{number:03d}") for number in range(40)]
    minou = come_in(server)
    people[39].say("hello")
    people[39].say("psst", to="Minou")
    minou.sees(r"^ \(1\) ")
    minou.write("\x0e")
    minou.sees(r"│ > Somebody_number_\n─")
    people[3].say("psst", to="Minou")
    minou.write("\x1b1")
    minou.sees(r"PEOPLE \(4\d\)")
    minou.sees(r"│ ● Somebody_num \(1\)$")


def test_a_thousand_messages_in_a_second(server, join, come_in, tmp_path):
    tigrou = join("Tigrou")
    minou = come_in(server, "--log-chat", tmp_path)
    started = time.monotonic()
    for batch in range(20):
        say_lines(tigrou, 50, 1 + batch * 50)
        # Not all at once: the load is a thousand a second, and not a burst.
        time.sleep(max(0, started + (batch + 1) * 0.05 - time.monotonic()))
    minou.write("still awake")
    minou.sees("line 1000 ", limit=2)
    minou.box("still awake")
    file, = tmp_path.iterdir()
    logged = re.findall(r"Tigrou: line (\d+)$", file.read_text("utf-8"), re.MULTILINE)
    assert logged == [str(number) for number in range(1, 1001)]


# ------------------------------------------------------------------- the text of others

def test_no_text_of_others_drives_the_terminal(odd, enter):
    """The screen raises whatever it does not know; and curses sends nothing of this."""
    minou = enter(odd)
    side = odd.let_in(server=EVIL, session=EVIL, time=EVIL)
    side.send(*evil_messages())
    side.send_raw(EVIL.encode("utf-8", "surrogatepass") + b"\n")
    side.send(chat(50, "\u200b\u200d\ufe0f e\u0301\u0301 \U000e0041x"),
              chat(51, "one\ntwo\u2028three\tfour"), chat(99, "That was all"))
    minou.sees("That was all")
    minou.sees(r"Tigrou +one +│.*\n +two +│.*\n +three +four")
    minou.write(PAGE_UP * 2)
    minou.sees("a\ufffd")
    side.send({"type": "goodbye", "reason": "kicked" + EVIL, "text": "k" + EVIL})
    side.close()
    minou.sees("k\ufffd.*/connect tries again")
    minou.write("exit\r")
    ends(minou)
    text = minou.output.decode()
    assert "owned" in text and "\x1b]" not in text
    assert not re.search("[\x80-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text)


@pytest.mark.parametrize("term, env", [
    pytest.param("linux", {}, marks=pytest.mark.long), ("vt100", {"LC_ALL": "C"}),
    pytest.param("xterm", {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
                 marks=pytest.mark.long)], ids=["linux", "vt100-C", "xterm-POSIX"])
def test_terminals_that_can_do_less(server, join, come_in, term, env):
    cat = join("小猫")
    minou = come_in(server, TERM=term, **env)
    cat.say("喵 🐱 — Minou")
    minou.sees("小猫 +喵 🐱 — Minou +│")
    assert 1 in minou.screen.looks_of("— Minou")
    minou.write("猫\r")
    cat.expect("chat", text="猫")
    minou.sees("Minou +猫 ")
    assert minou.screen.text.count("has only ASCII") == bool(env)
    minou.write("\x15/quit\r")
    ends(minou)


# --------------------------------------------------------------------- the connection

def test_reconnecting(start_server, join, come_in):
    server = start_server()
    tigrou = join("Tigrou", server)
    minou = come_in(server)
    tigrou.say("before")
    minou.sees("Tigrou +before")
    server.stop()
    minou.sees(r"\A ChattyCat — .* · reconnecting .*\n.*Trying\sagain in \d s \(att")
    minou.sees(r"\* +The server is shutting down")
    minou.sees(r"● Tigrou$")
    assert minou.screen.looks_of("● Tigrou") == {"38;5;244"}         # nobody knows
    minou.write("typed while cut off\r")
    minou.sees("What you type now is sent when you are")
    again = start_server("--port", server.port)
    felix = join("Félix", again)
    felix.expect("joined", name="Minou", limit=8)
    felix.expect("chat", text="typed while cut off")
    minou.sees("Connected again")
    minou.sees_not("Trying again")


def test_nobody_answers_and_connect_tries_at_once(odd, enter):
    odd.listener.close()
    minou = enter(odd)
    minou.sees(rf"No server answers at {odd.host}:{odd.port}.*")
    minou.sees("/connect tries at once")
    minou.write("Hello?\r")
    minou.sees(r"You are not connected; your text(.*\n)*> Hello\?\Z")
    minou.write("\x15/quit\r")
    ends(minou)


def test_a_name_that_is_taken(server, join, enter):
    join("Minou")
    minou = enter(server)
    minou.sees(r"“Minou” is taken.* Type your name(.*\n)*Your name: Minou\Z")
    minou.write("2\r")
    minou.sees("Minou2 · connected")
    minou.box("Message everyone…")


def test_a_name_that_was_taken_meanwhile_costs_no_draft(odd, enter):
    minou = enter(odd)
    side = odd.let_in()
    minou.sees("connected")
    minou.write("half a sentence")
    minou.box("half a sentence")
    side.close()
    side = odd.accept()
    side.read()
    side.send({"type": "error", "code": "name_taken", "text": "Somebody has it."})
    # The other half, typed meanwhile, is no name: all could read it.
    minou.sees(r"Somebody has it. To choose another one, first press Enter")
    minou.write("and the code 4711\r")
    minou.sees(r"Somebody has it. Type your name(.*\n)*Your name: Minou\Z")
    minou.write("2\r")
    assert side.read()["name"] == "Minou2"
    minou.box("half a sentence")


def test_a_password(enter):
    with Guarded() as server:
        minou = enter(server)
        minou.status()
        assert minou.process.returncode == 1
        assert minou.behind_the_picture().endswith(
            "Start again with --password.\r\n")
        minou = enter(server, CHATTYCAT_PASSWORD=PASSWORD)
        minou.sees("Minou · connected")
        minou.write("/quit\r")
        ends(minou)


def test_an_unknown_server_with_tls(start_server, certificate, enter):
    server = start_server("--tls", "--cert", certificate)
    minou = enter(server, "--tls")
    minou.sees("a server that you do not know yet")
    minou.sees(f"^{server.fingerprint()}$")
    minou.sees("/trust accepts it")
    minou.write("/trust\r")
    minou.sees("Minou · connected by TLS")


# ------------------------------------------------------------------------------- files

def test_files(server, join, come_in, tmp_path):
    tigrou, data = join("Tigrou"), some_bytes(100_000)
    minou = come_in(server, HOME=str(tmp_path))
    send_file(tigrou, data, "photo.png")
    minou.sees(r"Tigrou +1: photo.png \(97.7 KiB\) — /save 1 saves +│.*\n +it ")
    target = tmp_path / "saved.png"
    minou.write(f"/save 1 {target}\r")
    minou.sees("saved as", limit=8)
    assert digest(target.read_bytes()) == digest(data)
    minou.write(f"/file {target}\r")
    line = tigrou.expect("file", skip=COMINGS, from_="Minou", name="saved.png")
    assert fetch(tigrou, line) == data
    minou.sees(r"Minou +2: saved.png \([^)]*\) +│")
    minou.write(f"/file {tmp_path / 'none'}\r")
    minou.sees("No such file")


def test_how_far_a_file_has_come(odd, enter, tmp_path):
    (tmp_path / "cats.bin").write_bytes(bytes(200_000))
    minou = enter(odd)
    side = odd.let_in(limits={"line": 65536, "text": 4000, "file": 10**6})
    minou.sees("connected")
    minou.write(f"/file {tmp_path / 'cats.bin'}\r")
    upload = side.read()
    side.send({"type": "upload_ready", "ref": upload["ref"], "file": "f",
               "offset": 65536})
    minou.sees(r"^─+ cats.bin: 32 %, 64.0 KiB of 195.3 KiB")
    minou.sees("/cancel 1 stops it")
    minou.write("/cancel 1\r")
    minou.sees("1: cats.bin .* — .*[cC]ancelled")
    minou.sees("^─{80}$")


# ----------------------------------------------------------------------------- the end

@pytest.mark.parametrize("end", [
    "Ctrl+C", pytest.param("SIGTERM", marks=pytest.mark.long), "SIGHUP",
    pytest.param("hang up", marks=pytest.mark.long), "nohup"])
def test_leaving(server, join, come_in, end):
    tigrou = join("Tigrou")
    # `nohup` has SIGHUP ignored, so that a terminal can go without a word.
    python = ("-c", "import os, signal, sys; signal.signal(signal.SIGHUP, "
              "signal.SIG_IGN); os.execv(sys.executable, [sys.executable] + "
              "sys.argv[1:])") if end == "nohup" else ()
    minou = come_in(server, python=python)
    if end == "Ctrl+C":
        minou.write("not sent\x03")
    elif end.startswith("SIG"):
        minou.process.send_signal(getattr(signal, end))
    else:
        minou.hang_up()
        assert minou.process.wait(5) == 0
    tigrou.expect("left", skip=("joined",), name="Minou", reason="bye")
    if end[:2] in ("Ct", "SI"):
        ends(minou)


# A shell that has the terminal and lends it to the client, as everybody's does.
UNDER_A_SHELL = ON_A_TERMINAL.replace(
    "os.execv(sys.executable, [sys.executable] + sys.argv[1:])",
    """os.execv("/bin/sh", ["sh", "-mc", '"$@"; echo STOPPED; read x; fg', "sh",
                        sys.executable] + sys.argv[1:])""")


def test_ctrl_z_and_back(server, join, enter):
    """Under a shell, as nothing else could wake us: without one Ctrl+Z does nothing."""
    tigrou = join("Tigrou")
    minou = enter(server, words=lambda words: [
        sys.executable, "-c", UNDER_A_SHELL, *words[2:]])
    minou.sees("connected")
    minou.write("draft")
    minou.box("draft")
    # While it draws, for a millisecond, curses does not want to be stopped, and so that
    # Ctrl+Z is lost. A person would press it again, too.
    for _ in range(10):
        minou.write("\x1a")
        with minou.news:
            if minou.news.wait_for(lambda: b"STOPPED" in minou.output, 0.5):
                break
    minou.wait_for("STOPPED")
    assert "1049" not in minou.screen.on
    tigrou.say("while you slept")
    minou.write("\n")
    minou.sees("Tigrou +while you slept")
    minou.sees(r"\A ChattyCat — # Everyone")
    minou.box("draft")
    assert {"1049", "2004"} <= minou.screen.on
    minou.write("\x15/quit\r")
    ends(minou)


MISTAKES = """
import sys
from ChattyCat_Client import Chat, main

sys.argv.pop(1)

class MyChat(Chat):
    def command_broken(self, _):
        print("this too")
        return 1 / 0

    def command_worse(self, _):
        self.current = "no conversation at all"

sys.exit(main(MyChat))
"""


def test_a_mistake_is_shown_when_the_terminal_is_itself_again(server, join, come_in):
    tigrou = join("Tigrou")
    minou = come_in(server, python=("-c", MISTAKES), PYTHONPATH=str(CLIENT.parent))
    minou.write("/broken\r")
    minou.sees("/broken has a mistake in it")
    assert b"ZeroDivisionError: " not in minou.output
    minou.write("\x15/worse\r")
    assert minou.process.wait(8) == 1
    tigrou.expect("left", skip=("joined",), name="Minou", reason="bye")
    minou.reader.join(5)
    printed = minou.behind_the_picture()
    assert re.search("this too\r\nTraceback(.*\n)*ZeroDivisionError: (.*\n)*Traceback"
                     "(.*\n)*AttributeError: ", printed), printed


def test_what_has_not_arrived_is_said(odd, enter):
    minou = enter(odd)
    odd.let_in()
    minou.sees("connected")
    minou.write("Hello\r/quit\r")
    ends(minou)
    assert "1 of your lines have not arrived" in minou.behind_the_picture()


# ------------------------------------------------------------------------ which face

def test_run_by_itself(server, come_in):
    minou = come_in(server, words=lambda words: [
        sys.executable, "-c", ON_A_TERMINAL, str(CLIENT.parent / LESSON), *words[4:]])
    minou.sees("Minou · connected")


def test_without_a_display_it_starts_by_itself(server, enter):
    minou = enter(server, face=(), DISPLAY=None, WAYLAND_DISPLAY=None)
    minou.sees("Minou · connected")
    before = minou.output.partition(b"\x1b")[0].decode()
    assert re.fullmatch(r"[^\n]*\. The chat goes on in this terminal\.\r\n", before)


@pytest.mark.long
def test_without_tk_too(server, enter):
    minou = enter(server, face=(), python=("-c", WITHOUT_TK))
    minou.sees("Minou · connected")


NO_CURSES = WITHOUT_TK.replace("_tkinter", "_curses")


@pytest.mark.parametrize("how, sentence", [
    ({"TERM": "nosuch"}, "Nothing is known of a terminal called “nosuch”"),
    pytest.param({"TERM": "dumb"}, "Nothing is known of a terminal called “dumb”",
                 marks=pytest.mark.long),
    ({"python": ("-c", NO_CURSES)}, "cannot draw on a terminal .*_curses")],
    ids=["nosuch", "dumb", "no curses"])
def test_a_terminal_that_cannot_be_drawn_on(server, plain, how, sentence):
    minou = plain(server, "--name", "Minou", face=("--terminal",), terminal=True, **how)
    minou.wait_for(rf"\A[^\n]*{sentence}[^\n]*\. The chat goes on in plain lines\.\n")
    minou.wait_for("You are in as Minou")
    assert "\x1b" not in minou.text


def test_no_terminal_at_all_and_plain_lines_are_wanted(server, plain):
    minou = plain(server, "--name", "Minou", face=("--terminal",))
    minou.wait_for(r"\A[^\n]* no terminal [^\n]* The chat goes on in plain lines\.\n")
    minou.wait_for("You are in as Minou")
    tigrou = plain(server, "--name", "Tigrou", face=("--plain", "--terminal"),
                   terminal=True)
    tigrou.wait_for("You are in as Tigrou")
    assert "\x1b" not in tigrou.text and "goes on" not in tigrou.text


def test_the_client_alone(server, plain, tmp_path):
    """Copied to another computer without the lessons."""
    alone = shutil.copy(CLIENT, tmp_path)
    minou = plain(server, "--name", "Minou", face=("--terminal",), terminal=True,
                  python=("-c", "import runpy, sys; sys.argv[:2] = "
                          f"[{str(alone)!r}]; runpy.run_path({str(alone)!r}, "
                          "run_name='__main__')"))
    minou.wait_for(r"\A[^\n]*ChattyCat_Terminal.py is missing\. The chat goes on in")
    minou.wait_for("You are in as Minou")
