"""The errors that a learner meets first: each is made to happen by the real programs.

Then two things are held: the page of the lesson shows this very text (numbers aside)
under “When it goes wrong”, and the mend that it names does help.
"""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading

import pytest

import ChattyCat_Server
import pages
from people import ServerProcess
from test_plain_lines import WITHOUT_TK, Plain
from test_start_of_tests import Project

PROJECT = pathlib.Path(__file__).resolve().parent.parent
SERVER = PROJECT / "ChattyCat_Server.py"
LESSONS = PROJECT / "lessons"
LINUX = sys.platform.startswith("linux")


# --------------------------------------------------------------------------- the pages

def folder_of(lesson):
    """The folder of a lesson; `lesson` as in "01"."""
    return next(LESSONS.glob(lesson + "_*"))


LESSON_01 = folder_of("01")


def goes_wrong(lesson):
    """The section “When it goes wrong” of a lesson's page."""
    page = (folder_of(lesson) / "README.md").read_text(encoding="utf-8")
    found = re.split("^## (.*)\n", page, flags=re.MULTILINE)
    return found[found.index("When it goes wrong") + 1]


def bare(text):
    """The text with N for each number: ports, addresses, a system's error numbers."""
    return " ".join(re.sub(r"\d+", "N", text).split())


def assert_shown(text, where):
    assert len(bare(text)) > 10
    assert bare(text) in bare(where), f"the page does not show: {text}"


def mend(text):
    """What lesson 00 says beside this text, in its table: why, and what to do."""
    rows = [line.split("|") for line in goes_wrong("00").split("\n") if line[:1] == "|"]
    found = [row[2] for row in rows if bare(text) in bare(row[1])]
    assert found, f"lesson 00 does not show: {text}"
    return found[-1]


# ------------------------------------------------------------------------ the programs

class Program:
    """A program in a process of its own, and all that it prints, errors too."""

    def __init__(self, path, *words):
        # -u: into a pipe, Python would keep 8 KiB of what it prints for itself.
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(path), *map(str, words)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUTF8": "1"})
        self.output, self.news = b"", threading.Condition()
        self.reader = threading.Thread(target=self.collect, daemon=True)
        self.reader.start()

    def collect(self):
        while piece := self.process.stdout.read1(65536):
            with self.news:
                self.output += piece
                self.news.notify_all()

    @property
    def text(self):
        return self.output.decode().replace("\r\n", "\n")

    @property
    def last_line(self):
        return self.text.strip().split("\n")[-1]

    def wait_for(self, pattern, limit=8):
        with self.news:
            found = self.news.wait_for(lambda: re.search(pattern, self.text), limit)
        assert found, f"waited for {pattern!r}, but there was:\n{self.text}"
        return found

    def status(self, limit=8):
        """Wait for its end; return its exit status."""
        status = self.process.wait(limit)
        self.reader.join(5)
        return status

    def end(self):
        self.process.kill()
        self.process.wait(8)
        self.reader.join(5)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def start():
    """A function that starts a program, as start(path, port)."""
    running = []

    def start(*words):
        running.append(Program(*words))
        return running[-1]

    yield start
    for program in running:
        program.end()


@pytest.fixture
def plain():
    """A function that starts the real client, in plain lines."""
    running = []

    def start(*options, **how):
        running.append(Plain(None, "--name", "Minou", *options, **how))
        return running[-1]

    yield start
    for client in running:
        client.close()


def free_port():
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def other_port(port):
    return free_port()


def serve(start, folder, port):
    server = start(folder / "server.py", port)
    server.wait_for("listening on")
    return server


# --------------------------------------------------------------- nobody answers at all

class Silence:
    """A port of which one hears nothing, as behind a firewall that drops packets.

    With a backlog of 0 one connection waits to be accepted. Linux drops whatever comes
    while the queue is full, and does not even refuse it. The two clients wait 5 and
    10 s: so they are started before all tests of this file, and looked at last.
    """
    def __init__(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        address = self.listener.getsockname()
        self.port = address[1]
        self.first = socket.create_connection(address, timeout=5)
        self.lesson_client = Program(LESSON_01 / "client.py", self.port)
        self.real_client = Plain(None, "--name", "Minou", "--port", self.port)

    def let_in(self):
        """What the mend is: nothing stands in the way any more, and a server is there.
        """
        self.first.close()
        self.listener.close()
        return ServerProcess("--port", self.port)

    def close(self):
        self.first.close()
        self.listener.close()
        self.lesson_client.end()
        self.real_client.close()


@pytest.fixture(scope="module", autouse=LINUX)
def silence():
    if not LINUX:
        pytest.skip("other systems refuse what does not fit into the backlog")
    silence = Silence()
    yield silence
    silence.close()


# ------------------------------------------------------------------- no server is there

def test_no_server_runs_in_lesson_01(start, port):
    client = start(LESSON_01 / "client.py", port)
    assert client.status() == 1
    assert client.last_line.startswith("ConnectionRefusedError: ")
    assert_shown(client.last_line, goes_wrong("01"))
    serve(start, LESSON_01, port)
    client = start(LESSON_01 / "client.py", port)
    assert client.status() == 0 and "Hello" in client.last_line


def test_no_server_runs_in_lesson_00(plain, start_server, port):
    client = plain("--port", port)
    sentence = client.wait_for("No server answers at .*running[?]")[0]
    assert "Start the server" in mend(sentence)
    start_server("--port", port)
    client.wait_for("You are in as Minou")


# ----------------------------------------------------------------- the port is in use

def test_the_port_is_in_use_in_lesson_01(start, port, other_port):
    first = serve(start, LESSON_01, port)
    second = start(LESSON_01 / "server.py", port)
    assert second.status() == 1
    assert second.last_line.startswith("OSError: ") and "in use" in second.last_line
    assert_shown(second.last_line, goes_wrong("01"))
    # Another port, or the end of the first one.
    serve(start, LESSON_01, other_port)
    assert start(LESSON_01 / "client.py", other_port).status() == 0
    first.end()
    serve(start, LESSON_01, port)
    assert start(LESSON_01 / "client.py", port).status() == 0


def test_the_port_is_in_use_in_lesson_00(start, start_server):
    first = start_server()
    second = start(SERVER, "--no-console", "--port", first.port)
    assert second.status() == 2
    assert second.text == second.last_line + "\n"
    assert "`--port " in mend(second.last_line)
    other = start(SERVER, "--no-console", "--port", "0")
    other.wait_for("is listening on")
    first.stop()
    start(SERVER, "--no-console", "--port", first.port).wait_for("is listening")


# ------------------------------------------------------------- localhost, two computers

ON_A_SECOND_COMPUTER = "On a second computer: No server answers at 127.0.0.1:9999."


def other_address():
    """An address of this computer that is not the one its own servers listen on.

    Another computer would come to such a one; 127.0.0.1 always means the own computer.
    """
    return "127.0.0.2" if LINUX else ChattyCat_Server.lan_address()


def test_a_server_for_this_computer_alone_lets_no_other_computer_in(
        plain, start_server):
    server = start_server()
    assert server.host == "127.0.0.1"
    client = plain("--host", other_address(), "--port", server.port)
    client.wait_for("No server answers at .*running[?]")
    assert "`--lan`" in mend(ON_A_SECOND_COMPUTER)
    server.stop()
    again = start_server("--lan", "--port", server.port)
    # “it shows the address that the others type”
    again.wait_for_line(r"On the other computers type in: [\d.]+, port \d+")
    client.wait_for("You are in as Minou")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_on_the_other_computer_it_means_that_other_computer(plain, start_server, host):
    """The server is “on another computer”: not at 127.0.0.1."""
    server = start_server("--host", other_address())
    client = plain("--host", host, "--port", server.port)
    client.wait_for(f"No server answers at {host}:{server.port}[.]")
    there = mend(ON_A_SECOND_COMPUTER)
    assert all(f"`{word}`" in there for word in (host, "--lan", "--host"))
    plain("--host", other_address(), "--port", server.port).wait_for("You are in as")


# ------------------------------------------------------------------ the wrong Python

def in_a_shell(command, path):
    """Run a command in a shell that finds its programs in `path` alone."""
    return subprocess.run(
        [shutil.which("bash"), "-c", command], cwd=PROJECT, text=True, timeout=20,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": str(path), "LC_ALL": "C"})


@pytest.mark.skipif(os.name == "nt", reason="there the command is called py")
def test_there_is_no_python_but_a_python3(tmp_path):
    os.symlink(sys.executable, tmp_path / "python3")
    done = in_a_shell("python ChattyCat_Server.py --version", tmp_path)
    assert done.returncode == 127
    error = re.search("python: command not found$", done.stdout.strip())[0]
    assert "`python3`" in mend(error)
    done = in_a_shell("python3 ChattyCat_Server.py --version", tmp_path)
    assert done.stdout == f"ChattyCat {ChattyCat_Server.VERSION}\n"


# What other systems say nobody can make happen here, so it is sealed.
def test_there_is_no_python_on_windows():
    """The words of the shortcut that stands in for Python there."""
    assert "`py`" in mend("Python was not found; run without arguments to install "
                          "from the Microsoft Store")


def test_the_error_numbers_of_other_systems():
    """Windows: winerror.h; macOS: sys/errno.h."""
    refused, in_use = goes_wrong("01").split("Address already in use")
    assert "macOS: Errno 61." in refused and "WinError 10061," in refused
    assert "macOS: Errno 48." in in_use and "Windows: 10048." in in_use


# ------------------------------------------------------------------------- no window

def test_a_python_without_tk(plain, start_server):
    server = start_server()
    client = plain("--port", server.port, face=(), python=["-c", WITHOUT_TK])
    client.wait_for("You are in as Minou")
    assert_shown(client.text.split("\n")[0], goes_wrong("00"))


# --------------------------------------------------- pip may not touch this Python

# Lets a Python think that its system manages it: pip looks for a file in this folder.
MANAGED = """
import os, sysconfig
ask = sysconfig.get_path
def get_path(name, *more, **options):
    return FOLDER if name == "stdlib" else ask(name, *more, **options)
sysconfig.get_path = get_path
"""
MARKER = """[externally-managed]
Error=To install Python packages system-wide, try apt install
 python3-xyz, where xyz is the package you are trying to
 install.
"""


class ManagedPython:
    """The Python under this one (no venv), as Debian and Ubuntu ship it."""

    def __init__(self, folder):
        pip = pytest.importorskip("pip", minversion="23")   # older ones do not look
        self.path = os.path.join(
            sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
        # pip, but not the pytest that lies beside it.
        (folder / "pip").symlink_to(pathlib.Path(pip.__file__).parent)
        marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
        if not os.path.exists(marker):
            (folder / "EXTERNALLY-MANAGED").write_text(MARKER)
            (folder / "sitecustomize.py").write_text(
                f"FOLDER = {str(folder)!r}\n" + MANAGED)
        # Some computers have settings for pip that would let it do what it likes.
        self.env = {name: value for name, value in os.environ.items()
                    if not name.startswith("PIP_")}
        self.env.update(PYTHONPATH=str(folder), PIP_CONFIG_FILE=os.devnull,
                        PIP_NO_INDEX="1", DISPLAY=":no-screen")

    def run(self, *words, folder=PROJECT):
        return subprocess.run(
            [self.path, *words], cwd=folder, text=True, timeout=60, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such Python")
def test_pip_may_not_touch_this_python(tmp_path):
    (tmp_path / "python").mkdir()
    (tmp_path / "project").mkdir()
    managed, project = ManagedPython(tmp_path / "python"), Project(tmp_path / "project")
    refused = managed.run("-m", "pip", "install", "--dry-run", "pytest")
    assert refused.returncode == 1
    first = refused.stdout.split("\n")[0]
    assert first == "error: externally-managed-environment"
    assert "`python3 -m tests`" in mend(first)
    # “The tests make a place of their own”. In it pip is not refused, but complains of
    # the network, which it does not get here. (That they make it is tested in
    # test_start_of_tests.py. Here it is there already, without a pip: saves 3 s.)
    managed.run("-m", "venv", "--without-pip", str(project.venv))
    tests = managed.run("-m", "tests", "-k", "good", folder=project.folder)
    assert "externally-managed" not in tests.stdout
    assert "Could not install pytest into .venv" in tests.stdout or (
        "1 passed" in tests.stdout)     # this Python has a pytest already


# ------------------------------------------------------------------ bytes and streams

def step(lesson, mark, folder):
    """Write the student's programs as they are at the first step with `mark` in it.

    That is not the lesson's own program, which is how they are after the last step.
    """
    page = pages.Page(folder_of(lesson) / "README.md")
    files = next(files for _, files in page.story if mark in files["server.py"])
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def say_once(start, folder, text, port):
    client = start(folder / "client.py", port)
    client.process.stdin.write(text.encode() + b"\n")
    client.process.stdin.flush()
    client.status()
    return client.text


def test_half_an_emoji(start, port, other_port, tmp_path):
    """Lesson 02's server decodes each piece at first; in the end it waits for all."""
    hasty, cat = step("02", "piece.decode()", tmp_path), "cat 🐈"
    server = serve(start, hasty, port)
    say_once(start, hasty, cat, port)
    assert server.status() == 1
    assert server.last_line.startswith("UnicodeDecodeError: ")
    assert server.last_line.endswith(": unexpected end of data")
    assert_shown(server.last_line, goes_wrong("02"))
    serve(start, folder_of("02"), other_port)
    answer = say_once(start, folder_of("02"), cat, other_port)
    assert answer.endswith(f"You said: {cat}\n")


def test_two_messages_glued(start, port, other_port, tmp_path):
    """Lesson 03's server takes a recv() for a message at first; in the end a line."""
    naive = step("03", '"message:"', tmp_path)
    pieces = folder_of("03") / "start" / "pieces.py"
    glued = serve(start, naive, port)
    apart = serve(start, folder_of("03"), other_port)
    clients = [start(pieces, to) for to in (port, other_port)]
    assert [client.status() for client in clients] == [0, 0]
    shown = glued.wait_for(r"message: b'one\\ntwo\\n'")[0]
    assert_shown(shown, goes_wrong("03"))
    apart.wait_for(r"line: b'hello'\nline: b'one'\nline: b'two'\n")


# ------------------------------------------------------------------------ the silence

def test_nobody_answers_at_all_in_lesson_01(silence):
    client = silence.lesson_client
    assert client.status(15) == 1
    name, _, text = client.last_line.partition(": ")
    assert name == "TimeoutError" or (
        name == "socket.timeout" and sys.version_info < (3, 10))
    assert_shown(f"TimeoutError: {text}", goes_wrong("01"))
    assert "Python 3.9: `socket.timeout`" in goes_wrong("01")


def test_nobody_answers_at_all_in_lesson_00(silence):
    client = silence.real_client
    sentence = client.wait_for(
        r"127[.]0[.]0[.]1:\d+ gives no answer.* firewall keeps us out[.]", 15)[0]
    assert "firewall let Python in" in mend(sentence)
    with silence.let_in():
        client.wait_for("You are in as Minou")
