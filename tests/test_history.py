"""What is said is not lost: --history, through `kill -9` too; and --log."""
import json
import os
import pathlib
import random
import selectors
import sqlite3
import statistics
import subprocess
import sys
import time

import pytest

from ChattyCat_Server import (
    Session, SQLiteHistory, encode, new_session, open_log)
from people import COMINGS, SERVER, Person, ServerProcess, as_module

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has nothing like it")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history"


@pytest.fixture
def serve(start_server, path):
    """A function that starts a server on this test's history."""
    servers = []

    def start(*options):
        servers.append(start_server("--rate", "0", "--history", path, *options))
        return servers[-1]

    yield start
    for server in servers:      # these may be killed: that is what they are made for,
        server.kill()           # and it is quicker than a goodbye


def come_back(join, server, welcome, **fields):
    """Who had this welcome once comes with its session, under whatever name."""
    person = join(to=server)
    person.hello("Whoever", session=welcome["session"], **fields)
    person.expect("welcome", name=welcome["name"], resumed=True, gap=False)
    return person


def chats(person, count):
    return [person.expect("chat", skip=COMINGS) for _ in range(count)]


# ---------------------------------------------------------------------- what survives

def test_all_of_it_survives_a_kill(serve, join):
    server = serve()
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    said = [minou.say(f"line {number}", ref=f"r{number}") for number in range(10)]
    said.append(minou.say("for you alone", to="Tigrou", ref="private"))
    assert chats(tigrou, 11) == said
    said.append(tigrou.say("Thank you"))
    server.kill()
    server = serve()
    again = come_back(join, server, minou.welcome, since=said[4]["id"])
    for field in ("history", "session", "color"):
        assert again.welcome[field] == minou.welcome[field]
    assert again.welcome["last_id"] == said[-1]["id"]
    assert chats(again, 7) == said[5:]
    assert again.silence()["count"] == 1
    tigrou = come_back(join, server, tigrou.welcome)
    assert chats(tigrou, 12) == said            # without `since`: all that is kept
    assert tigrou.say("New")["id"] == said[-1]["id"] + 1


def test_a_ref_from_before_the_kill_is_answered_with_the_first_receipt(serve, join):
    server = serve()
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    public = minou.say("Hello", ref="1")
    private = minou.say("Psst", ref="2", to="Tigrou")
    assert chats(tigrou, 2) == [public, private]
    same_label = tigrou.say("A label is one's own", ref="1")
    server.kill()
    server = serve()
    tigrou = come_back(join, server, tigrou.welcome, since=same_label["id"])
    minou = come_back(join, server, minou.welcome, since=same_label["id"])
    tigrou.expect("joined")
    assert minou.say("Hello", ref="1") == public
    assert minou.say("Psst", ref="2", to="Tigrou") == private
    tigrou.silence()                            # nobody reads it twice
    assert tigrou.say("A label is one's own", ref="1") == same_label
    minou.silence()
    assert minou.say("Hello", ref="3")["id"] == same_label["id"] + 1


def test_the_newest_thousand_refs_are_known_after_a_kill(serve, join):
    server = serve()
    minou = join("Minou", server)
    minou.send_raw(b"".join(encode({"type": "chat", "text": "x", "ref": f"r{number}"})
                            for number in range(1001)))
    said = chats(minou, 1001)
    server.kill()
    minou = come_back(join, serve(), minou.welcome, since=said[-1]["id"])
    assert [minou.say("x", ref=f"r{number}") for number in (1, 500, 1000)] == [
        said[1], said[500], said[1000]]
    minou.silence()


class Talker:
    """Somebody who talks through one kill after the other, and remembers it all."""

    def __init__(self, name):
        self.name = name
        self.session = None
        self.seen = {}              # id -> the line's bytes, of all that ever came
        self.owed = {}              # ref -> line, of those without a receipt
        self.refs = 0

    def come(self, server):
        self.person = Person(server)
        self.person.hello(self.name, **({"session": self.session, "since": 0}
                                        if self.session else {}))
        welcome = self.person.expect("welcome", name=self.name)
        assert welcome["resumed"] == (self.session is not None)
        self.session = welcome["session"]
        return welcome

    def talk(self, count, other):
        """Send what has no receipt again, and `count` new lines; every third alone."""
        for _ in range(count):
            line = {"type": "chat", "text": f"{self.name} {self.refs}",
                    "ref": f"{self.name} {self.refs}"}
            if self.refs % 3 == 0:
                line["to"] = other.name
            self.owed[line["ref"]] = encode(line)
            self.refs += 1
        self.person.send_raw(b"".join(self.owed.values()))

    def take(self, line):
        """Remember a line; whatever has an id must always come as it came first."""
        message = json.loads(line)
        if "id" in message:
            assert self.seen.setdefault(message["id"], line) == line
            if message["from"] == self.name:
                self.owed.pop(message["ref"], None)
        return message

    def drain(self):
        """Read what is still on its way from a server that is dead."""
        try:
            while True:
                self.take(self.person.read_line())
        except (ConnectionError, TypeError, AssertionError):
            pass                    # reset, the end, or half a line and the end
        self.person.close()

    def read_until_id(self, last):
        ids = []
        while not ids or ids[-1] < last:
            message = self.take(self.person.read_line())
            ids += [message["id"]] if "id" in message else []
        return ids


def test_what_anybody_has_seen_is_never_lost_nor_its_id_given_again(serve):
    """Ten times `kill -9` while three people talk, and come back for everything."""
    dice = random.Random(3)
    talkers = [Talker(name) for name in ("Minou", "Tigrou", "Felix")]
    everything = {}                 # id -> line, whoever saw it
    for _ in range(10):
        server = serve()
        for talker in talkers:
            welcome, before = talker.come(server), set(talker.seen)
            if before:
                ids = talker.read_until_id(max(before))
                assert ids == sorted(set(ids))
                assert before <= set(ids), "a line that was seen is not kept"
                assert max(everything) <= welcome["last_id"]
        for place, talker in enumerate(talkers):
            talker.talk(dice.randint(20, 80), talkers[place - 1])
        for _ in range(dice.randint(1, 100)):
            talkers[0].take(talkers[0].person.read_line())
        server.kill()
        for talker in talkers:
            talker.drain()
            for number, line in talker.seen.items():
                assert everything.setdefault(number, line) == line
    everything_is_there_once(serve(), talkers, everything)


def everything_is_there_once(server, talkers, everything):
    """In the end each label has one line, and each line is what was seen of it."""
    for place, talker in enumerate(talkers):
        talker.come(server)
        talker.talk(1, talkers[place - 1])
        while talker.owed:
            talker.take(talker.person.read_line())
        everything.update(talker.seen)
        talker.person.close()
    refs = [json.loads(line)["ref"] for line in everything.values()]
    assert len(refs) == len(set(refs))
    assert set(refs) == {f"{talker.name} {number}" for talker in talkers
                         for number in range(talker.refs)}


# ------------------------------------------------------------------------------ names

def stop_in_good_order(server, person):
    """With a goodbye; who does not close at once would hold it up for a second."""
    server.process.terminate()
    assert person.expect("goodbye")["reason"] == "shutdown"
    person.close()
    assert server.process.wait(10) == 0


@pytest.mark.parametrize("end", [
    pytest.param(lambda server, _: server.kill(), id="kill"),
    pytest.param(stop_in_good_order, marks=POSIX, id="shutdown")])
def test_names_wait_for_their_sessions(serve, join, end):
    server = serve()
    minou, lost = join("Minou", server), join("Lost", server)
    gone = join("Gone", server)
    minou.expect("joined", name="Lost")
    minou.expect("joined", name="Gone")
    lost.reset()
    minou.expect("left", name="Lost", reason="lost")
    gone.leave()
    minou.expect("left", name="Gone", reason="bye")
    end(server, minou)
    server = serve()
    thief = join(to=server)
    for name in ("Minou", "MINOU", "Lost"):
        thief.hello(name)
        thief.expect("error", code="name_taken")
    thief.hello("Gone")                         # who says bye wants no name kept
    thief.expect("welcome", name="Gone", resumed=False)
    # What is said meanwhile to those whose names are kept waits for them.
    private = thief.say("Welcome back", to="lost")
    lost = come_back(join, server, lost.welcome, since=0)
    assert chats(lost, 1) == [private]
    come_back(join, server, minou.welcome, since=0).silence()


def test_a_name_that_is_not_kept_can_be_somebody_elses(path, serve, join):
    """Two minutes after somebody's connection broke, another one has their name."""
    session, secret = new_session("Minou")
    session.left_at, session.kept = time.time() - 120, True
    write_history(path, [], [session])
    server = serve()
    join("Minou", server)
    minou = join(to=server)
    minou.hello("Minette", session=secret)      # `name` counts only when asked again
    minou.expect("error", code="name_taken")
    minou.hello("Minette", session=secret)
    minou.expect("welcome", name="Minette", resumed=True)


def test_a_session_lives_for_a_day(path, serve, join):
    day = 24 * 3600
    secrets = {}
    for name, age in (("Young", day - 60), ("Old", day + 60)):
        session, secrets[name] = new_session(name)
        session.left_at = time.time() - age
        write_history(path, [], [session])
    server = serve()
    for name, resumed in (("Young", True), ("Old", False)):
        person = join(to=server)
        person.hello(name, session=secrets[name])
        person.expect("welcome", skip=COMINGS, resumed=resumed)


# ---------------------------------------------------------------------------- secrets

def test_no_secret_is_in_the_file(path, serve, join):
    server = serve()
    people = [join(name, server) for name in ("Minou", "Tigrou")]
    people[0].say("this can be found")
    people[1].expect("chat", text="this can be found")
    people[1].reset()
    people[0].expect("left", skip=["joined"])
    people[1] = come_back(join, server, people[1].welcome)
    server.kill()
    data = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"this can be found" in data
    for person in people:
        number, _, secret = person.welcome["session"].partition(".")
        assert len(secret) >= 32
        assert secret.encode() not in data
        assert person.welcome["session"].encode() not in data


@POSIX
def test_others_on_this_computer_cannot_read_the_file(path, serve, join):
    mask = os.umask(0)              # so that nothing but the server hides it
    try:
        server = serve()
        join("Minou", server).say("Hello")
    finally:
        os.umask(mask)
    files = list(path.parent.iterdir())
    assert pathlib.Path(f"{path}-wal") in files
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {
        file.name: "0o600" for file in files}


def test_private_lines_stay_private_after_a_kill(serve, join):
    server = serve()
    minou, tigrou, felix = (join(name, server) for name in ("Minou", "Tigrou", "Felix"))
    public = minou.say("for all")
    secret = minou.say("for Tigrou", to="Tigrou")
    note = minou.say("a note of mine", to="Minou")
    tigrou.expect("chat", skip=COMINGS, text="for all")
    tigrou.expect("chat", text="for Tigrou")
    tigrou.leave()
    server.kill()
    server = serve()
    felix = come_back(join, server, felix.welcome, since=0)
    # The name is not the person: this is somebody else called Tigrou.
    other = join("Tigrou", server)
    for person in (felix, other):
        assert chats(person, 1) == [public]
        person.say("that was all")
    other.leave()
    felix.leave()
    minou = come_back(join, server, minou.welcome, since=0)
    assert chats(minou, 3) == [public, secret, note]
    tigrou = come_back(join, server, tigrou.welcome, since=0)
    assert chats(tigrou, 2) == [public, secret]


# -------------------------------------------------------------------------- newcomers

def test_newcomers_get_the_newest_lines_of_before(serve, join):
    server = serve("--recent", "5")
    minou, _ = join("Minou", server), join("Tigrou", server)
    public = []
    for number in range(60):
        public.append(minou.say(f"public {number}"))
        minou.say(f"private {number}", to="Tigrou")
    server.kill()
    for options, kept in (([], 50), (["--recent", "3"], 3), (["--recent", "0"], 0),
                          (["--recent", "100"], 60)):
        server = serve(*options)
        felix = join("Felix", server)
        assert felix.welcome["last_id"] == public[-1]["id"] + 1
        assert chats(felix, kept) == public[len(public) - kept:]
        felix.silence()
        felix.leave()
        server.kill()


def test_an_empty_file_is_a_new_history(path, serve, join):
    path.touch()
    server = serve()
    minou = join("Minou", server)
    assert minou.welcome["last_id"] == 0
    said = minou.say("Hello")
    server.kill()
    assert chats(come_back(join, serve(), minou.welcome), 1) == [said]


def test_killed_while_it_begins_a_history(tmp_path):
    """At whatever moment: the next server can use what lies there."""
    module, folder = as_module(SERVER)
    for number in range(12):
        path = tmp_path / str(number)
        process = subprocess.Popen(
            [sys.executable, *module, "--port", "0", "--history", str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": folder})
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(number / 2000)   # from 0 to 6 ms after the file has come to be
        process.kill()
        process.wait(10)
        write_history(path, [a_row(1)])
        write_history(path, [a_row(2)])


@pytest.mark.parametrize("name", [
    ":memory:", "with spaces", "é小猫", "file:x", "100%25", pytest.param(
        "a?mode=memory#b", marks=POSIX)])
def test_a_file_may_have_any_name(join, tmp_path, monkeypatch, name):
    if os.name == "nt" and ":" in name:
        name = name.replace(":", "_")           # what Windows does not allow
    monkeypatch.chdir(tmp_path)
    for lines in (0, 1):
        with ServerProcess("--history", name) as server:
            minou = Person(server, "Minou" if lines == 0 else "Felix")
            chats(minou, lines)
            minou.say("Hello")
            server.kill()
            minou.close()
    assert {file.name for file in tmp_path.iterdir()} == {name, f"{name}-wal"}


# -------------------------------------------------------------------------- bad files

def write_history(path, rows=(), sessions=()):
    """Write into a history as the server does, in this process."""
    history = SQLiteHistory(50, str(path))
    history.write(list(rows), list(sessions))
    history.close()


def a_row(number, text="Hello", sender=1, receiver=None):
    """A row of a history: (id, sender's session, receiver's, ref, line)."""
    line = encode({"type": "chat", "id": number, "from": "Minou", "color": 0,
                   "text": text, "time": "2026-11-20T17:01:02.345Z"})
    return number, sender, receiver, None, line


def sql(path, *commands):
    database = sqlite3.connect(str(path))
    for command in commands:
        database.execute(command)
    database.commit()
    database.close()


def a_good_history(path):
    """With a session in it that is too old: there is something to tidy up."""
    old = Session(7, b"digest", "Old", left_at=1.0)
    write_history(path, [a_row(number) for number in range(1, 500)], [old])


def spoil(path, change):
    """Make a good history, and then `change(bytes)` of its bytes."""
    a_good_history(path)
    path.write_bytes(change(path.read_bytes()))


def our_own(*commands):
    """A kind of bad file: a good one, and then these SQL commands."""
    def make(path):
        a_good_history(path)
        sql(path, *commands)
    return make


BAD_FILES = {
    "text": lambda path: path.write_text("Dear diary,\n" * 100, encoding="utf-8"),
    "a little text": lambda path: path.write_text("Dear diary"),
    "somebody's tables": lambda path: sql(
        path, "CREATE TABLE songs (name)", "INSERT INTO songs VALUES ('Memory')"),
    "somebody's tables, WAL": lambda path: sql(
        path, "PRAGMA journal_mode=WAL", "CREATE TABLE lines (name)"),
    "somebody's application_id": lambda path: sql(path, "PRAGMA application_id=5"),
    "somebody's user_version": lambda path: sql(path, "PRAGMA user_version=1"),
    "somebody's large user_version": lambda path: sql(path, "PRAGMA user_version=77"),
    "ours, newer": our_own("PRAGMA user_version=2"),
    "ours, cut in half": lambda path: spoil(path, lambda data: data[:len(data) // 2]),
    "ours, cut in a page": lambda path: spoil(path, lambda data: data[:5000]),
    "ours, begun with zeros": lambda path: spoil(
        path, lambda data: bytes(4096) + data[4096:]),
    "ours, begun with garbage": lambda path: spoil(
        path, lambda data: random.Random(1).getrandbits(8 * 4096).to_bytes(
            4096, "big") + data[4096:]),
    "ours without lines": our_own("DROP TABLE lines"),
    "ours without sessions": our_own("DROP TABLE sessions"),
    "ours without its id": our_own("DELETE FROM about"),
    "ours without about": our_own("DROP TABLE about"),
}


def refuses(*words):
    """Exit status 2 and one sentence on stderr, which is returned."""
    module, folder = as_module(SERVER)
    command = [sys.executable, *module, "--port", "0", "--no-console", *map(str, words)]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, timeout=10, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": folder})
    assert (result.returncode, result.stdout) == (2, ""), result
    assert result.stderr.count("\n") == 1 and result.stderr.endswith(".\n"), result
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_history_of_ours_is_left_alone(path, kind):
    BAD_FILES[kind](path)
    before = path.read_bytes()
    sentence = refuses("--history", path)
    assert str(path) in sentence and "--history" in sentence
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_somebodys_database_that_was_killed_is_left_alone(path):
    """Its newest changes are in its -wal yet, and it is not for us to put them in."""
    code = ("import os, sqlite3, sys; database = sqlite3.connect(sys.argv[1]);"
            "database.execute('PRAGMA journal_mode=WAL');"
            "database.execute('CREATE TABLE songs (name)'); os._exit(0)")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=30)
    files = [path, pathlib.Path(f"{path}-wal")]
    before = [file.read_bytes() for file in files]
    assert all(before)
    refuses("--history", path)
    assert [file.read_bytes() for file in files if file.exists()] == before


def test_where_there_can_be_no_file(tmp_path):
    for bad in (tmp_path, tmp_path / "no such folder" / "history", ""):
        assert "--history" in refuses("--history", bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="Linux has such a file")
def test_a_file_that_may_not_be_written():
    assert "/proc/version" in refuses("--history", "/proc/version")     # not by root


def test_a_name_that_no_system_takes(tmp_path):
    """From a file of options; on a command line no such character can stand."""
    options = tmp_path / "options"
    for option in ("--history", "--log"):
        options.write_bytes(option.encode() + b" a\0b\n")
        refuses(f"@{options}")


def test_two_servers_do_not_share_a_file(path, serve, join):
    server = serve()
    minou = join("Minou", server)
    first = minou.say("Before")
    sentence = refuses("--history", path)
    assert str(path) in sentence and "another server" in sentence
    second = minou.say("After")                 # the first one goes on unharmed
    server.kill()
    minou = come_back(join, serve(), minou.welcome, since=0)
    assert chats(minou, 2) == [first, second]


# -------------------------------------------------------------------------- full disk

# What no disk would take: a file beyond this size (RLIMIT_FSIZE). Python ignores the
# signal that comes with it, and so gets an error, as from a disk that is full.
SMALL_DISK = """
import resource, runpy, sys
size, sys.argv = int(sys.argv[1]), sys.argv[2:]
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class ServerOnSmallDisk(ServerProcess):
    def __init__(self, size, *options):
        super().__init__(*options)
        self.command[1:1] = ["-c", SMALL_DISK, str(size)]


def talk_until_the_end(talker, others):
    """Say more and more; return {id: message} of all that anybody has seen."""
    seen = {}
    ends = {talker: [], **{other: [] for other in others}}
    while not ends[talker]:
        talker.send({"type": "chat", "text": "x" * 1000, "ref": str(len(seen))})
        message = talker.read()
        (seen.update({message["id"]: message}) if "id" in message
         else ends[talker].append(message))
        assert len(seen) < 10_000, "that disk is never full"
    for person in ends:
        for message in person.until_closed():
            if "id" in message:
                assert seen.get(message["id"]) == message
            elif message["type"] not in COMINGS:
                ends[person].append(message)
        person.close()              # or the server would wait for it for a second
    for came in ends.values():
        assert [(m["type"], m.get("reason")) for m in came] == [("goodbye", "shutdown")]
    return seen


@POSIX
def test_a_full_disk_ends_the_server_and_nothing_is_lost(path, serve, join):
    # A good server at first, so that there is something to lose.
    server = serve()
    old = join("Old", server).say("from before")
    assert server.stop() == 0
    server = ServerOnSmallDisk(500_000, "--rate", "0", "--history", path)
    with server:
        people = [Person(server, name) for name in ("Minou", "Tigrou", "Felix")]
        for person in people:
            chats(person, 1)
        for person, count in zip(people, (2, 1, 0)):
            for _ in range(count):
                person.expect("joined")
        seen = talk_until_the_end(people[0], people[1:])
        assert server.process.wait(10) == 1
    assert len(seen) > 20
    sentences = [line for line in server.lines if "cannot be used" in line]
    assert len(sentences) == 1 and str(path) in sentences[0], server.lines
    server = serve("--recent", "10000")
    minou = come_back(join, server, people[0].welcome, since=0)
    kept = chats(minou, 1 + len(seen))
    assert kept == [old] + [seen[number] for number in sorted(seen)]
    # What had no receipt is sent again, and has got through then.
    again = minou.say("x" * 1000, ref=str(len(seen)))
    assert again["id"] > kept[-1]["id"]


# -------------------------------------------------------------------------------- log

def test_the_log_is_what_stands_in_the_terminal(start_server, join, tmp_path):
    log = tmp_path / "my log é.txt"
    log.write_text("from before\n", encoding="utf-8")
    server = start_server("--log", log, console=True)
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    minou.expect("joined")
    minou.say("a-secret", to="Tigrou")
    minou.say("said to all")
    server.type_line("/who")
    server.wait_for_line("Tigrou from")
    tigrou.leave()
    server.wait_for_line("Tigrou left")
    minou.leave()
    server.stop()
    for reader in server.readers:
        reader.join(5)
    written = log.read_text(encoding="utf-8").split("\n")
    if os.name == "nt":             # where terminate() leaves no time for last words
        server.lines = server.lines[:len(written) - 2]
    assert written == ["from before", *server.lines, ""]
    assert "a-secret" not in "\n".join(written)


def test_the_log_is_renamed_at_one_mebibyte_and_five_are_kept(tmp_path):
    path = tmp_path / "log"
    log = open_log(str(path))
    line = "é" * 1000
    for number in range(8 * 2**20 // 2000):
        log.info(f"{number} {line}")
    for handler in log.handlers:
        handler.close()
    names = ["log"] + [f"log.{number}" for number in range(1, 6)]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    numbers = []
    for name in reversed(names):
        data = (tmp_path / name).read_bytes()
        # (The handler counts the last line in characters, and these have two bytes.)
        assert len(data) < 2**20 + 2000
        assert name == "log" or len(data) > 2**20 - 3000
        numbers += [int(text.split()[0]) for text in data.decode().splitlines()]
    newest = 8 * 2**20 // 2000
    assert numbers == list(range(numbers[0], newest))       # the oldest go, no other


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    for bad in (tmp_path, tmp_path / "no such folder" / "log"):
        sentence = refuses("--log", bad)
        assert str(bad) in sentence and "--log" in sentence


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a full disk")
def test_a_log_on_a_full_disk_does_not_end_the_chat(start_server, join):
    server = start_server("--log", "/dev/full")
    minou = join("Minou", server)
    server.wait_for_line("Minou joined")
    minou.say("Hello")


# ---------------------------------------------------------------------- a long history

def write_long_history(path, public, private=0, newest=0):
    """So many public lines, then private ones of others, then public ones again.

    Return the secret of the session that has said what is public.
    """
    session, secret = new_session("Minou")
    session.left_at = time.time() - 3600
    history = SQLiteHistory(50, str(path))
    history.write([], [session])
    count = public + private + newest
    # Cut where the numbers belong: to make 200,000 lines of JSON would take a second.
    *_, before = a_row(777)
    before, between, after = before.replace(b"Hello", b"line 777").split(b"777")
    for start in range(1, count + 1, 10_000):
        history.write([
            (number, *((5, 6) if public < number <= public + private else
                       (session.number, None)), None,
             b"%b%d%b%d%b" % (before, number, between, number, after))
            for number in range(start, min(start + 10_000, count + 1))], [])
    history.close()
    return secret


def memory(server):
    """The bytes of memory that a process has now (its resident set)."""
    if not sys.platform.startswith("linux"):
        return 0
    with open(f"/proc/{server.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def newest_lines(server, name):
    """Come in as somebody new; return (seconds until the newest 50, their ids)."""
    person = Person(server)
    begin = time.monotonic()
    person.hello(name)
    person.expect("welcome")
    ids = [message["id"] for message in chats(person, 50)]
    took = time.monotonic() - begin
    person.leave()
    return took, ids


def look_at_history(path, wanted):
    """Start a server on it and let newcomers in, who are to get the ids `wanted`.

    Return (seconds to start, seconds until a newcomer has them, bytes of memory).
    """
    begin = time.monotonic()
    with ServerProcess("--history", path) as server:
        start, times = time.monotonic() - begin, []
        for number in range(5):
            took, ids = newest_lines(server, f"Cat{number}")
            assert ids == wanted
            times.append(took)
        size = memory(server)
        server.kill()
    return start, statistics.median(times), size


@pytest.mark.parametrize("public, private, newest", [
    (40_000, 160_000, 25),
    pytest.param(1_000_000, 0, 0, marks=pytest.mark.long),
    pytest.param(700_000, 300_000, 0, marks=pytest.mark.long),
    pytest.param(700_000, 300_000, 25, marks=pytest.mark.long)])
def test_a_long_history_costs_newcomers_nothing(tmp_path, public, private, newest):
    """However much was said, and however much of it is not for them."""
    write_long_history(tmp_path / "short", 50)
    _, _, small = look_at_history(tmp_path / "short", list(range(1, 51)))
    write_long_history(tmp_path / "long", public, private, newest)
    end = public + private + newest
    start, newcomer, large = look_at_history(
        tmp_path / "long", [*range(public - 49 + newest, public + 1),
                            *range(end - newest + 1, end + 1)])
    assert start < 1
    assert newcomer < 0.05
    assert large < small + 2 * 2**20


@pytest.mark.parametrize("count", [
    60_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_who_comes_back_for_everything_gets_it_piece_by_piece(path, serve, join, count):
    secret = write_long_history(path, count)
    server = serve("--recent", "0")
    felix = join("Felix", server)
    before = memory(server)
    minou = join(to=server)
    minou.hello("Minou", session=secret, since=0)
    minou.expect("welcome", resumed=True, gap=False)
    last = felix.say("You have much to read")   # nobody waits until she has read it
    ids = []
    while not ids or ids[-1] < last["id"]:
        ids.append(json.loads(minou.read_line(10))["id"])
    assert ids == list(range(1, count + 2))
    # A few pages that SQLite keeps, and one piece; all of it is 9 MB.
    assert memory(server) < before + 4 * 2**20


# ------------------------------------------------------------------------------- speed

class Load:
    """People in one room, some of whom talk with 16 lines in flight each."""

    def __init__(self, server, people=100, talkers=10):
        self.people = [Person(server, f"Cat{number}") for number in range(people)]
        self.selector = selectors.DefaultSelector()
        for number, person in enumerate(self.people):
            person.own = f'"from":"Cat{number}",'.encode()
            person.talks = number < talkers
            self.selector.register(person.socket, selectors.EVENT_READ, person)
        self.line = encode({"type": "chat", "text": "What a fine day it is for a cat"})

    def read(self, person):
        """Read what is there; return how many chat lines that was."""
        person.buffer += person.socket.recv(262_144)
        end = person.buffer.rfind(b"\n") + 1
        whole = bytes(person.buffer[:end])
        del person.buffer[:end]
        if person.talks:                        # each receipt allows one more line
            person.socket.sendall(self.line * whole.count(person.own))
        return whole.count(b'"type":"chat"')

    def run(self, seconds):
        """Return deliveries a second."""
        for person in self.people:
            if person.talks:
                person.socket.sendall(self.line * 16)
        count, begin = 0, time.monotonic()
        while time.monotonic() < begin + seconds:
            for key, _ in self.selector.select(5):
                count += self.read(key.data)
        return count / (time.monotonic() - begin)

    def close(self):
        for person in self.people:
            person.close()


def deliveries(seconds, *options):
    with ServerProcess("--rate", "0", "--recent", "0", *options) as server:
        load = Load(server)
        try:
            return load.run(seconds)
        finally:
            load.close()
            server.kill()


def compare_speed(folder, seconds, rounds):
    """Return (deliveries a second without a history, with one), medians, in turn."""
    without, with_one = [], []
    for number in range(rounds):
        without.append(deliveries(seconds))
        with_one.append(deliveries(seconds, "--history", folder / f"{number}"))
    return statistics.median(without), statistics.median(with_one)


def test_with_a_history_it_is_at_least_half_as_fast(tmp_path):
    for attempt in range(3):                    # a busy computer is not our mistake
        folder = tmp_path / str(attempt)
        folder.mkdir()
        without, with_one = compare_speed(folder, 0.3, 1)
        if with_one > without / 2:
            return
    assert with_one > without / 2
