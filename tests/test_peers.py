"""The servers that ours is measured against: they talk, or say what is missing."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from peers import irc
from people import Person

PEERS = Path(__file__).resolve().parent / "peers"
# Others are free not to have them. An empty parameter list counts as a skip, so
# what is not there gets no test at all.
INSTALLED = [name for name in irc.SERVERS if irc.find(name)]
WAYS = [[], ["--nodelay"]] if irc.find("cc") else [[]]

both_asyncios = pytest.mark.parametrize("peer", ["streams", "batches"])


@contextlib.contextmanager
def running(program, *options, status, **how):
    """Start it, and end it with SIGTERM: what it is, where it listens, its status."""
    process = subprocess.Popen(
        [sys.executable, str(PEERS / program), *options], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **how)
    with process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"(.+) is listening on 127\.0\.0\.1:(\d+)\n", line)
            assert found, f"{line!r}, and on stderr: {process.stderr.read()}"
            yield SimpleNamespace(title=found[1], host="127.0.0.1", port=int(found[2]))
        finally:
            process.terminate()
            errors = process.communicate(timeout=10)[1]
    assert errors == ""
    assert process.returncode == status


def running_asyncio(peer):
    # They are short and leave SIGTERM to the system; Windows calls that status 1.
    status = 1 if os.name == "nt" else -signal.SIGTERM
    return running(f"asyncio_{peer}.py", "--port", "0", status=status)


# ------------------------------------------------------------------------ with asyncio

@both_asyncios
def test_two_people_get_each_others_lines(peer):
    with running_asyncio(peer) as server, Person(server, "Minou") as minou:
        assert server.title == f"asyncio {peer} server"
        assert minou.welcome["people"] == [
            {"name": "Minou", "color": minou.welcome["color"]}]
        with Person(server, "Tigrou") as tigrou:
            assert tigrou.welcome["count"] == 2
            minou.expect("joined", name="Tigrou")
            receipt = minou.say("Hello", ref="r1")
            tigrou.expect("chat", id=receipt["id"], from_="Minou", text="Hello",
                          ref="r1", color=receipt["color"], time=receipt["time"])
            answer = tigrou.say("Hello yourself")
            assert answer["id"] > receipt["id"] and "ref" not in answer
            minou.expect("chat", text="Hello yourself", from_="Tigrou")
            # What is for her alone comes behind what was told to all before.
            minou.send_raw(b'{"type": "chat", "text": "And"}\n{"type": "list"}\n')
            minou.expect("chat", text="And")
            assert minou.expect("people")["count"] == 2
            tigrou.send_raw(b'{"type": "chat", "text": "So"}\n{"type": "bye"}\n')
            tigrou.expect("chat", text="And")
            tigrou.expect("chat", text="So")
            tigrou.expect("goodbye", reason="bye")
            assert tigrou.until_closed() == []
        minou.expect("chat", text="So")
        minou.expect("left", name="Tigrou", reason="bye")
        Person(server, "Félix").reset()
        minou.expect("joined", name="Félix")
        minou.expect("left", name="Félix", reason="lost")
        assert minou.silence()["count"] == 1


@both_asyncios
def test_everybody_sees_the_same_order_also_who_comes_in_the_middle(peer):
    with running_asyncio(peer) as server, Person(server, "Minou") as minou, \
            Person(server, "Tigrou") as tigrou, Person(server) as felix:
        # Two bursts and a hello, all on their way at once.
        for person, sign in ((minou, "m"), (tigrou, "t")):
            person.send_raw(b"".join(
                b'{"type": "chat", "text": "%s%d"}\n' % (sign.encode(), number)
                for number in range(500)))
        felix.hello("Félix")
        first = felix.expect("welcome")["last_id"]
        seen = [[person.expect("chat", skip=("joined",)) for _ in range(1000)]
                for person in (minou, tigrou)]
        assert seen[0] == seen[1]
        assert [chat["id"] for chat in seen[0]] == list(range(1, 1001))
        for sign in "mt":
            texts = [chat["text"] for chat in seen[0] if chat["text"][0] == sign]
            assert texts == [f"{sign}{number}" for number in range(500)]
        # Félix: every line after the welcome, none from before, and no own joined.
        for number in range(first, 1000):
            assert felix.expect("chat") == seen[0][number]
        felix.silence()


@both_asyncios
def test_what_is_wrong_is_refused_and_the_connection_stays(peer):
    with running_asyncio(peer) as server, Person(server, "Minou"), \
            Person(server) as person:
        person.send({"type": "chat", "text": "Hello"})
        person.expect("error", code="hello_first")
        for name, code in (("minou", "name_taken"), ("-", "bad_name"), ("", "bad_name"),
                           ("x" * 21, "bad_name"), (7, "bad_message")):
            person.hello(name)
            person.expect("error", code=code)
        for line in (b"What?\n", b"[]\n", b"{}\n", b"\xff\n", b'{"type": 1}\n'):
            person.send_raw(line)
            person.expect("error")
        person.hello("Tigrou")
        person.expect("welcome", name="Tigrou")
        for message, code in (({"text": ""}, "bad_text"), ({"text": 1}, "bad_message"),
                              ({}, "bad_message")):
            person.send({"type": "chat", **message})
            person.expect("error", code=code)
        person.say("Hello")


# --------------------------------------------------------------------------- with IRC

class Chatter:
    """Somebody with a socket who speaks IRC, as far as a room needs."""

    def __init__(self, server, name):
        self.socket = socket.create_connection((server.host, server.port), 10)
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\r\n")
        self.send(f"NICK {name}", f"USER {name} 0 * :{name}")

    def enter(self):
        self.wait_for(" 001 ")
        self.send("JOIN #room")
        self.wait_for(" 366 ")          # the end of the names of who is there

    def send(self, *lines):
        self.socket.sendall("".join(line + "\r\n" for line in lines).encode())

    def wait_for(self, word):
        """The next line that has it; a PING on the way gets its answer."""
        for line in self.lines:
            if line.startswith("PING"):
                self.send(line.strip().replace("PING", "PONG", 1))
            if word in line:
                return line.strip()
        raise AssertionError(f"the server closed; there was no {word!r}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.lines.close()
        self.socket.close()


if INSTALLED:
    @pytest.mark.parametrize("way", WAYS, ids=lambda way: "".join(way) or "as it is")
    @pytest.mark.parametrize("name", INSTALLED)
    def test_an_irc_server_talks_and_leaves_nothing_behind(name, way, tmp_path):
        env = dict(os.environ, TMPDIR=str(tmp_path))
        with running("irc.py", name, *way, status=0, env=env) as server:
            assert server.title == f"IRC {name}"
            with Chatter(server, "Minou") as minou, Chatter(server, "Tigrou") as tigrou:
                # inspircd lets people in once a second: so both have knocked by now.
                minou.enter()
                tigrou.enter()
                # As many at once as would be a flood elsewhere: none is held back.
                minou.send(*(f"PRIVMSG #room :Hello {n}" for n in range(50)))
                for n in range(50):
                    line = tigrou.wait_for("PRIVMSG")
                    assert re.fullmatch(f":Minou!.* PRIVMSG #room :Hello {n}", line)
                tigrou.send("PRIVMSG #room :Hello yourself")
                minou.wait_for("PRIVMSG #room :Hello yourself")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port), 10).close()

    def test_without_a_compiler_it_says_so(tmp_path):
        # An empty folder: the servers' own, where no compiler is, is always looked in.
        done = run_irc(INSTALLED[0], "--nodelay", PATH=str(tmp_path))
        assert done.returncode == 2 and done.stdout == ""
        assert re.fullmatch(r"--nodelay needs a C compiler: apt install .*\n",
                            done.stderr)


def run_irc(*arguments, **env):
    command = [sys.executable, str(PEERS / "irc.py"), *arguments]
    return subprocess.run(command, env=dict(os.environ, **env), text=True, timeout=30,
                          stdin=subprocess.DEVNULL, capture_output=True)


@pytest.mark.parametrize("name", irc.SERVERS)
def test_what_is_not_installed_is_one_sentence(name):
    done = run_irc(name, PATH="")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"{name} is not installed here: apt install {name}\n"


if sys.platform == "linux" and shutil.which("cc"):
    def test_nodelay_is_set_on_what_a_program_accepts(tmp_path):
        """In a program of our own, since only the owner of a socket can ask it."""
        program = (
            "import socket\n"
            "with socket.create_server(('127.0.0.1', 0)) as server:\n"
            "    here = socket.create_connection(server.getsockname())\n"
            "    there = server.accept()[0]\n"
            "    print(*(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)\n"
            "            for end in (here, there)))\n")
        for env, expected in ((None, "0 0"), (irc.nodelay_library(tmp_path), "0 1")):
            done = subprocess.run([sys.executable, "-c", program], env=env,
                                  capture_output=True, text=True, timeout=30)
            assert done.stdout.strip() == expected, done.stderr
