"""The README's "Extend it": its two files run as they stand there."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from people import ServerProcess

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """The README's two programs as files, where they find the scripts."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    server, client = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "my_server.py").write_text(server, encoding="utf-8")
    (tmp_path / "my_client.py").write_text(client, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    return tmp_path


@pytest.fixture
def own_server(own_files):
    process = ServerProcess("--rate", "0", console=True, quiet_stderr=False)
    process.command[1] = str(own_files / "my_server.py")
    with process:
        yield process


def plain_client(script, server, typed):
    """What a client with --plain prints, that is given these lines by a pipe."""
    return subprocess.run(
        [sys.executable, str(script), "--plain", "--name", "Minou",
         "--host", server.host, "--port", str(server.port)],
        input=typed, encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True,
        timeout=20)


def test_a_message_of_ones_own(own_files, own_server, join):
    tigrou = join("Tigrou", own_server)
    # /list last: its answer comes after the wave, and a pipe waits for it.
    done = plain_client(own_files / "my_client.py", own_server, "/wave\n/list\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Minou waves!" in done.stdout
    tigrou.expect("wave", skip=("joined",), from_="Minou")


def test_a_word_of_ones_own_for_the_operator(own_server, join):
    join("Tigrou", own_server)
    for word in ("/count", "count"):
        own_server.type_line(word)
    own_server.type_line("/help")
    own_server.wait_for_line("/count: how many people are here")
    answers = [line for line in own_server.lines if re.search(r":\d\d  1$", line)]
    assert len(answers) == 2


MISTAKES = '''
import sys
from ChattyCat_Server import ChatServer, clean_text, main

class MyServer(ChatServer):
    def on_wave(self, person, message):
        return message["nofield"]

    def on_exit(self, person, message):
        sys.exit("for the whole program, I thought")

    def console_broken(self, _):
        return 1 / 0

    def console_shout(self, text):
        self.room.post({"type": "shout", "text": clean_text(text)})

if __name__ == "__main__":
    main(MyServer)
'''

CLIENT_MISTAKES = '''
from ChattyCat_Client import Chat, main

class MyChat(Chat):
    def command_broken(self, _):
        return 1 / 0

    def on_people(self, message):
        super().on_people(message)
        message["nofield"]

if __name__ == "__main__":
    main(MyChat)
'''


def test_a_mistake_of_ones_own_ends_nobodys_chat(own_files, join):
    script = own_files / "my_server.py"
    script.write_text(MISTAKES, encoding="utf-8")
    process = ServerProcess("--rate", "0", console=True)
    process.command[1] = str(script)
    with process as server:
        minou = join("Minou", server)
        minou.send({"type": "wave", "ref": "w"})
        minou.expect("error", code="bad_message", ref="w")
        # However often: the mistakes are not Minou's.
        for _ in range(25):
            minou.send({"type": "exit"})
            minou.expect("error", code="bad_message")
        minou.say("still here")
        server.type_line("/shout")
        server.wait_for_line("A message has 1 to")
        server.type_line("/broken")
        server.wait_for_line("ZeroDivisionError")
        server.type_line("/who")
        server.wait_for_line("Minou from")
        # On the operator's terminal, with date and time as every line there.
        server.wait_for_line(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  KeyError: 'nofield'")


PARTS = '''
import sys
from ChattyCat_Server import ChatServer, Postman, Room, decode, main, say

class MyRoom(Room):
    def line_up(self, line, to=None, numbered=False):
        super().line_up(line, to, numbered)
        say("new: " + decode(line)["type"])

class MyPostman(Postman):
    def send(self, person, data):
        super().send(person, data)
        if b"stumble" in data:
            MISTAKE

class MyServer(ChatServer):
    room_class, postman_class = MyRoom, MyPostman

if __name__ == "__main__":
    sys.exit(main(MyServer))
'''


@pytest.mark.parametrize("mistake", ["raise KeyError('a mistake')", "sys.exit(3)"])
def test_a_room_and_a_postman_of_ones_own(own_files, join, mistake):
    """All new lines are seen; and without a postman the server says so, and ends."""
    (own_files / "my_server.py").write_text(
        PARTS.replace("MISTAKE", mistake), encoding="utf-8")
    process = ServerProcess()
    process.command[1] = str(own_files / "my_server.py")
    with process as server:
        minou = join("Minou", server)
        for kind in ("joined", "welcome"):
            server.wait_for_line(f"new: {kind}$")
        minou.send({"type": "list"})
        server.wait_for_line("new: people$")
        tom = join("Tom", server)
        tom.send({"type": "bye"})
        server.wait_for_line("new: goodbye$")
        minou.send({"type": "chat", "text": "I stumble"})
        server.wait_for_line("KeyError: 'a mistake'|SystemExit: 3")
        server.wait_for_line("Nothing can be sent any more.")
        assert server.process.wait(10) == 1


AT_THE_END = '''
import sys
from ChattyCat_Server import ChatServer, Room, main

class MyRoom(Room):
    def line_up(self, line, to=None, numbered=False):
        super().line_up(line, to, numbered)
        if b"goodbye" in line:
            raise IndexError("at the end")

class MyServer(ChatServer):
    room_class = MyRoom

if __name__ == "__main__":
    sys.exit(main(MyServer))
'''


def test_a_mistake_of_ones_own_at_the_end_leaves_no_folder(
        own_files, join, monkeypatch):
    """The main thread makes the last goodbyes, and it is what removes the files."""
    (own_files / "my_server.py").write_text(AT_THE_END, encoding="utf-8")
    folder = own_files / "temporary"
    folder.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(folder))
    process = ServerProcess(quiet_stderr=False)
    process.command[1] = str(own_files / "my_server.py")
    with process as server:
        minou = join("Minou", server)
        minou.send({"type": "upload", "ref": "f", "name": "f", "size": 9,
                    "sha256": "0" * 64})
        minou.expect("upload_ready")
        assert list(folder.glob("chattycat-files-*"))
        server.process.terminate()
        assert server.process.wait(10) == 1
        assert not list(folder.glob("chattycat-files-*"))


def test_a_mistake_in_a_client_of_ones_own(own_files, start_server):
    script = own_files / "my_client.py"
    script.write_text(CLIENT_MISTAKES, encoding="utf-8")
    server = start_server()
    done = plain_client(script, server, "/broken\n/list\nstill here\n")
    assert done.returncode == 0
    assert "/broken has a mistake in it: ZeroDivisionError" in done.stdout
    assert "Minou: still here" in done.stdout
    assert "ZeroDivisionError" in done.stderr and "'nofield'" in done.stderr
