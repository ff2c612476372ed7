"""The command lines of both scripts, and the one small file that the client keeps."""
import json
import os
import stat
import subprocess
import sys

import pytest

import ChattyCat_Client
import ChattyCat_Server
from ChattyCat_Client import LastLogin, user_folder
from people import SERVER
from test_connection import Client

CLIENT = SERVER.parent / "ChattyCat_Client.py"

both = pytest.mark.parametrize("module", [ChattyCat_Server, ChattyCat_Client],
                               ids=["server", "client"])


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("CHATTYCAT_HOME", str(folder))
    return folder


def run(script, *words):
    return subprocess.run(
        [sys.executable, str(script), *map(str, words)], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=30)


# -------------------------------------------------------------------- the command line

def test_what_the_server_does_where_nothing_is_said():
    options = ChattyCat_Server.read_options([])
    expected = {"host": "127.0.0.1", "port": 9999, "max_clients": 200, "recent": 50,
                "rate": 50, "clients": 0, "no_console": False}
    assert expected.items() <= vars(options).items()
    assert ChattyCat_Server.read_options(["--lan"]).host == "0.0.0.0"


def test_what_the_client_does_where_nothing_is_said(home):
    options = ChattyCat_Client.read_options([])
    expected = {"host": None, "port": None, "name": None, "plain": False,
                "theme": None, "log": None, "log_chat": None}
    assert expected.items() <= vars(options).items()
    login = Client().chat.login
    assert (login.host, login.port, login.name) == ("127.0.0.1", 9999, "")


def test_options_of_the_client():
    options = ChattyCat_Client.read_options(
        ["--host", "::1", "--port=1", "--name", "小猫", "--plain", "--theme", "dark"])
    assert (options.host, options.port, options.name, options.plain, options.theme) == (
        "::1", 1, "小猫", True, "dark")


@pytest.mark.parametrize("words", [
    ["--port", "0"], ["--port", "65536"], ["--port", "banana"], ["--port", ""],
    ["--port", "９９９９"], ["--port", "1_0"], ["--port", "9" * 5000], ["--port"],
    ["--theme", "pink"], ["--meow"], ["meow"], ["--na", "Minou"], ["--plain=yes"],
    ["@no such file"]], ids=lambda words: ascii(" ".join(words)[:20]))
def test_a_mistake_in_the_clients_options_is_one_sentence(words, capsys):
    with pytest.raises(SystemExit) as caught:
        ChattyCat_Client.read_options(words)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.endswith(".\n")
    assert words[-1].lstrip("@")[:20].split("=")[0] in printed.err


def test_a_mistake_ends_the_client_before_it_does_anything(home):
    done = run(CLIENT, "--port", "banana")
    assert (done.returncode, done.stdout) == (2, "")
    assert "banana" in done.stderr and done.stderr.count("\n") == 1
    assert not home.exists()


@both
def test_version(module):
    done = run(module.__file__, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ChattyCat {module.VERSION}\n"
    assert ChattyCat_Server.VERSION == ChattyCat_Client.VERSION


def test_help_of_the_client_names_every_option():
    done = run(CLIENT, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("--host", "--port", "--name", "--plain", "--theme", "auto", "light",
                 "dark", "--log FILE", "--log-chat DIR", "--version", "@FILE"):
        assert word in done.stdout


@both
def test_options_from_a_file(module, tmp_path):
    path = tmp_path / "my options.txt"
    # As Notepad writes it: with a byte order mark, and lines that end as on Windows.
    path.write_bytes("\ufeff# our classroom\r\n\r\n--host my host.example\r\n  --port "
                     "  1234 \r\n#--port 9\r\n".encode())
    options = module.read_options([f"@{path}"])
    assert (options.host, options.port) == ("my host.example", 1234)
    # Later words win, wherever they come from.
    assert module.read_options(["--port", "7", f"@{path}"]).port == 1234
    assert module.read_options([f"@{path}", "--port", "7"]).port == 7


def test_a_file_of_options_for_each_student(tmp_path):
    path = tmp_path / "minou"
    path.write_text("--plain\n--name Minou la Chatte\n--theme\nlight\n")
    options = ChattyCat_Client.read_options([f"@{path}"])
    assert (options.plain, options.name, options.theme) == (
        True, "Minou la Chatte", "light")


# ------------------------------------------------------------------- the user's folder

def test_the_folder_that_chattycat_home_says(home):
    assert user_folder() == str(home)


def test_the_folder_of_each_system(monkeypatch):
    monkeypatch.delenv("CHATTYCAT_HOME")
    with monkeypatch.context() as linux:
        linux.setattr(sys, "platform", "linux")
        linux.setattr(os, "name", "posix")
        linux.setenv("HOME", "/home/minou")
        linux.setenv("USERPROFILE", "/home/minou")      # what Windows calls it
        linux.delenv("XDG_CONFIG_HOME", raising=False)
        default = user_folder()
        linux.setenv("XDG_CONFIG_HOME", "/elsewhere")
        chosen = user_folder()
        linux.setenv("XDG_CONFIG_HOME", "")             # as good as not set
        assert user_folder() == default
        linux.setattr(sys, "platform", "darwin")
        mac = user_folder()
        linux.setenv("APPDATA", "C:/Users/minou/AppData/Roaming")
        linux.setattr(os, "name", "nt")
        windows = user_folder()
    as_posix = [path.replace("\\", "/") for path in (default, chosen, mac, windows)]
    assert as_posix == [
        "/home/minou/.config/chattycat", "/elsewhere/chattycat",
        "/home/minou/Library/Application Support/ChattyCat",
        "C:/Users/minou/AppData/Roaming/ChattyCat"]


# ---------------------------------------------------------------------- the last login

def test_the_last_login_is_remembered(home, server):
    minou = Client()
    assert minou.chat.login.trouble == ""       # the first time nothing is missing
    minou.connect(server, "Minou")
    minou.chat.leave()
    again = LastLogin().load()
    assert (again.host, again.port, again.name) == (server.host, server.port, "Minou")
    assert again.trouble == ""
    # What is said on the command line comes first, for itself.
    login = ChattyCat_Client.Chat(
        Client(), ChattyCat_Client.read_options(["--name", "Tigrou"])).login
    assert (login.port, login.name) == (server.port, "Tigrou")


def test_nothing_is_kept_where_nobody_wants_it(home, server):
    minou = Client()
    minou.chat.remember = False
    minou.connect(server, "Minou")
    minou.chat.leave()
    assert not home.exists()


def test_nothing_but_host_port_and_name_is_kept(home):
    LastLogin().save("a.example", 1234, "小猫")
    [path] = home.iterdir()
    assert json.loads(path.read_text()) == {
        "host": "a.example", "port": 1234, "name": "小猫"}
    LastLogin().save("b", 1, "x")               # shorter: nothing of the old may stay
    assert json.loads(path.read_text()) == {"host": "b", "port": 1, "name": "x"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_on_this_computer_may_read_it(home):
    old = os.umask(0)                           # the most generous that there is
    try:
        LastLogin().save("a.example", 1234, "Minou")
    finally:
        os.umask(old)
    [path] = home.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


SAVE_AGAIN_AND_AGAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from ChattyCat_Client import LastLogin
name = sys.argv[2]
for number in range(150):
    login = LastLogin()
    login.save(name * (1 + number % 60), 1 + number, name)
    if login.trouble:
        print(login.trouble)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is open")
def test_whoever_reads_meanwhile_finds_the_old_one_or_the_new_one(home):
    """`--clients 12` opens twelve programs that save it in the same moment."""
    LastLogin().save("first", 1, "first")
    savers = [subprocess.Popen(
        [sys.executable, "-c", SAVE_AGAIN_AND_AGAIN, str(SERVER.parent), letter * 3],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for letter in "abcd"]
    reads = 0
    while any(saver.poll() is None for saver in savers) or not reads:
        login = LastLogin().load()
        assert login.trouble == ""
        assert login.host.replace(login.name, "") == ""
        reads += 1
    assert [saver.communicate()[0] for saver in savers] == [b""] * 4
    assert [path.name for path in home.iterdir()] == ["last_login.json"]


BROKEN = {
    "empty": b"", "half": b'{"host": "a", "po', "not JSON": b"host=a",
    "zeros": b"\0" * 80,
    "not text": b"\xff\xfe\x00", "null": b"null", "a list": b"[]", "a string": b'"a"',
    "no host": b'{"port": 1, "name": "a"}', "no port": b'{"host": "a", "name": "a"}',
    "no name": b'{"host": "a", "port": 1}',
    "host 5": b'{"host": 5, "port": 1, "name": "a"}',
    "port as text": b'{"host": "a", "port": "1", "name": "a"}',
    "port true": b'{"host": "a", "port": true, "name": "a"}',
    "port 0": b'{"host": "a", "port": 0, "name": "a"}',
    "port 70000": b'{"host": "a", "port": 70000, "name": "a"}',
    "port -1": b'{"host": "a", "port": -1, "name": "a"}',
    "a huge port": b'{"host": "a", "port": ' + b"9" * 9000 + b', "name": "a"}',
    "name null": b'{"host": "a", "port": 1, "name": null}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_put_aside_with_a_sentence(home, data):
    home.mkdir()
    path = home / "last_login.json"
    path.write_bytes(data)
    login = LastLogin().load()
    assert (login.host, login.port, login.name) == ("127.0.0.1", 9999, "")
    assert "could not be read" in login.trouble and login.trouble.endswith(".")
    assert str(path) + ".broken" in login.trouble and "\n" not in login.trouble
    assert [each.name for each in home.iterdir()] == ["last_login.json.broken"]
    assert (home / "last_login.json.broken").read_bytes() == data
    login.save("a", 1, "Minou")                 # and the next one is kept as ever
    again = LastLogin().load()
    assert (again.name, again.trouble) == ("Minou", "")


def make_unusable(home, how, monkeypatch):
    """Ways to spoil the folder that also hold for root, as CI is."""
    if how == "the folder is a file":
        home.write_text("")
    elif how == "its parent is a file":
        home.parent.joinpath("file").write_text("")
        monkeypatch.setenv("CHATTYCAT_HOME", str(home.parent / "file" / "home"))
    elif how == "the file is a folder":
        (home / "last_login.json" / "x").mkdir(parents=True)
        (home / "last_login.json.broken" / "x").mkdir(parents=True)
    elif how == "read-only":
        home.mkdir()
        home.chmod(0o500)


@pytest.mark.parametrize("how", [
    "the folder is a file", "its parent is a file", "the file is a folder",
    pytest.param("read-only", marks=pytest.mark.skipif(
        os.name == "nt", reason="Windows has no such modes"))])
def test_a_folder_that_cannot_be_used_does_not_cost_the_chat(
        home, server, how, monkeypatch):
    make_unusable(home, how, monkeypatch)
    minou = Client()
    minou.connect(server, "Minou")
    minou.chat.typed("Hello")
    minou.until(lambda: not minou.chat.unconfirmed)
    trouble = minou.chat.login.trouble
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if how == "read-only":
        home.chmod(0o700)                       # or nobody could delete it afterwards
    assert "could not be remembered" in trouble or how == "read-only" and root
    assert (minou.chat.login.host, minou.chat.login.name) == (server.host, "Minou")
    minou.chat.leave()
