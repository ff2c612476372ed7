"""What people have sent, and the server's disk: --files, with and without --history."""
import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import threading
import time

import pytest

from parcels import (
    CHUNK, ask, chunk, come_back, fetch, offer, offer_line, refused, send_chunks,
    send_file, send_rest, some_bytes, tree)
from people import COMINGS, SERVER, Person, ServerProcess
from test_history import refuses

try:
    import resource
except ImportError:         # Windows
    resource = None

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has nothing like it")
MIB = 2**20
DATA = some_bytes(9 * CHUNK + 5)


class ServerWithTemp(ServerProcess):
    """A server whose temporary folder is one of ours; `changed` is Python that changes
    something in the script first, for what would take too long as it is."""

    def __init__(self, temp, *options, changed="", **how):
        super().__init__("--rate", "0", "--recent", "0", *options, **how)
        self.temp = temp
        if changed:
            self.command[1:2] = ["-c", (
                f"import sys; sys.path.insert(0, {str(SERVER.parent)!r}); "
                f"import ChattyCat_Server as script; {changed}; "
                "sys.exit(script.main())")]

    def open_process(self, env):
        temp = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temp))
        return super().open_process({**env, **temp})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "files"


@pytest.fixture
def serve(start_server, tmp_path, folder):
    """A function that starts a server on this test's history and files."""
    servers = []

    def start(*options, **how):
        servers.append(start_server(
            "--rate", "0", "--history", tmp_path / "history", "--files", folder,
            *options, **how))
        return servers[-1]

    yield start
    for server in servers:      # quicker than a goodbye
        server.kill()


def end(server, how, *people):
    """End a server; `people` are those who are in, and see it end."""
    if how == "SIGKILL":
        server.kill()
        return
    if os.name == "nt":             # where it is ended without another word
        server.stop()
        return
    server.process.send_signal(signal.SIGTERM)
    for person in people:
        person.until_closed()
        person.close()              # or the server would wait for that for a second
    assert server.process.wait(10) == 0


def wait_until(happened, limit=10):
    """Look again and again until it has happened: a disk rings no bell."""
    deadline = time.monotonic() + limit
    while not (found := happened()):
        assert time.monotonic() < deadline, f"{happened} did not happen in {limit} s"
        time.sleep(0.01)
    return found


# ------------------------------------------------------------------------ what survives

@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_files_survive_the_server(serve, join, folder, how):
    server = serve()
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    public = send_file(minou, DATA, "public.png", ref="p")
    private = send_file(minou, DATA[::-1], "private.png", to="Tigrou", ref="q")
    empty = send_file(tigrou, b"", "empty", skip=("file", *COMINGS))
    end(server, how, minou, tigrou)
    server = serve()
    minou = come_back(join, minou, server, since=public["id"] - 1)
    tigrou = come_back(join, tigrou, server, since=public["id"] - 1)
    felix = join("Felix", server)
    lines = [public, private, empty]
    for person in (minou, tigrou):
        assert [person.expect("file", skip=COMINGS) for _ in lines] == lines
        for line, data in zip(lines, (DATA, DATA[::-1])):
            assert fetch(person, line) == data
        ask(person, empty["file"])
        assert person.expect("chunk", skip=COMINGS)["data"] == ""
    assert [felix.expect("file") for _ in (public, empty)] == [public, empty]
    assert fetch(felix, public) == DATA
    unknown = refused(felix, {"type": "download", "file": "nobody's", "offset": 0},
                      "no_such_file")
    foreign = refused(felix, {"type": "download", "file": private["file"], "offset": 0},
                      "no_such_file")
    assert foreign["text"] == unknown["text"]
    # The receipt is known, too; and nothing that is new has a name of old.
    minou.send(offer_line(DATA, ref="p"))
    assert minou.expect("file", skip=COMINGS) == public
    new = send_file(minou, DATA)
    assert new["id"] > empty["id"] and new["file"] not in {
        line["file"] for line in lines}


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_half_files_do_not_survive_it(serve, join, folder, how):
    server = serve()
    minou = join("Minou", server)
    line = send_file(minou, DATA)
    before = tree(folder)
    ready = offer(minou, DATA, "another.png")
    send_chunks(minou, DATA, ready, until=5 * CHUNK)
    assert len(tree(folder)) == 2
    end(server, how, minou)
    server = serve()
    assert tree(folder) == before
    minou = come_back(join, minou, server, since=line["id"])
    for kind in ("download", "chunk"):
        refused(minou, {**chunk(ready["file"], 0, b"x"), "type": kind}, "no_such_file")
    again = offer(minou, DATA, "another.png", ref=ready["ref"])
    assert again["offset"] == 0
    assert fetch(minou, send_rest(minou, DATA, again)) == DATA
    assert fetch(minou, line) == DATA


def test_what_was_announced_survives_a_kill_at_any_moment(serve, join, folder):
    chance, announced, whole = random.Random(7), {}, {}
    server = serve()
    minou, since = join("Minou", server), 0
    for number in range(6):
        data = [some_bytes(2 * CHUNK, seed) for seed in range(number, number + 12)]
        messages = []
        for part in data:
            ready = offer(minou, part, skip=("file", *COMINGS))
            whole[ready["file"]] = part
            messages += [json.dumps(chunk(ready["file"], start, part[start:][:CHUNK]))
                         for start in (0, CHUNK)]
        minou.send_raw("\n".join([*messages, ""]).encode())
        for _ in range(chance.randrange(12)):
            line = minou.expect("file")
            announced[line["file"]] = line
        server.kill()
        server = serve()
        minou = come_back(join, minou, server, since=since)
        while True:             # what was announced, seen by us or not
            minou.send({"type": "list"})
            while (message := minou.read())["type"] == "file":
                assert announced.setdefault(message["file"], message) == message
                since = max(since, message["id"])
            if message["type"] == "people":
                break
        for file, line in announced.items():
            assert fetch(minou, line) == whole[file]
        assert len(tree(folder)) == len(announced)
    assert len(announced) >= 6


def test_what_the_operator_has_removed_stays_removed(serve, join, folder):
    server = serve(console=True)
    minou = join("Minou", server)
    line = send_file(minou, DATA, "gone.png")
    server.type_line("/files")
    shown = server.wait_for_line("gone.png").string
    server.type_line("/remove " + shown.split()[2].rstrip(":"))
    wait_until(lambda: not tree(folder))
    end(server, "SIGTERM", minou)
    server = serve(console=True)
    minou = come_back(join, minou, server, since=line["id"] - 1)
    assert minou.expect("file") == line         # it was said, and stays said
    refused(minou, {"type": "download", "file": line["file"], "offset": 0},
            "no_such_file", file=line["file"])
    server.type_line("/files")
    server.wait_for_line("(?i)no files|nothing|0 files")


def test_what_is_kept_takes_room_after_a_restart_too(serve, join, folder):
    size = ("--max-file", "1", "--all-files", "1")
    server = serve(*size)
    minou = join("Minou", server)
    line = send_file(minou, some_bytes(600_000))
    ready = offer(minou, DATA)
    send_chunks(minou, DATA, ready, until=CHUNK)
    end(server, "SIGKILL")
    minou = come_back(join, minou, serve(*size))
    refused(minou, offer_line(some_bytes(MIB - 600_000 + 1)), "files_full")
    rest = some_bytes(MIB - 600_000)
    assert fetch(minou, send_file(minou, rest)) == rest     # the half one takes none
    assert fetch(minou, line) == some_bytes(600_000)


def test_a_history_from_before_there_were_files(serve, join, folder, tmp_path):
    server = serve()
    minou = join("Minou", server)
    said = minou.say("In the old days")
    end(server, "SIGTERM", minou)
    with contextlib.closing(sqlite3.connect(str(tmp_path / "history"))) as database:
        database.execute("DROP TABLE files")
        database.commit()
    minou = come_back(join, minou, serve(), since=0)
    assert minou.expect("chat") == said
    line = send_file(minou, DATA)
    assert fetch(minou, line) == DATA


def test_strange_files_in_the_folder_stay_as_they_are(serve, join, folder):
    folder.mkdir()
    strange = {"readme.txt": b"mine", "photo.png": b"png", ".hidden": b"",
               "x.part": b"half"}
    for name, data in strange.items():
        (folder / name).write_bytes(data)
    (folder / "a folder").mkdir()
    server = serve()
    minou = join("Minou", server)
    line = send_file(minou, DATA)
    end(server, "SIGTERM", minou)
    server = serve()
    minou = come_back(join, minou, server)
    assert fetch(minou, line) == DATA
    end(server, "SIGTERM", minou)
    for name, data in strange.items():
        assert (folder / name).read_bytes() == data
    assert (folder / "a folder").is_dir()


def test_with_files_but_no_history(start_server, join, folder):
    """Nobody knows of the files of old; they cannot be fetched, and do no harm."""
    server = start_server("--files", folder)
    minou = join("Minou", server)
    line = send_file(minou, DATA)
    end(server, "SIGTERM", minou)
    server = start_server("--files", folder)
    minou = join("Minou", server)
    refused(minou, {"type": "download", "file": line["file"], "offset": 0},
            "no_such_file")
    assert fetch(minou, send_file(minou, DATA)) == DATA


def test_two_servers_in_one_folder(start_server, join, folder):
    """Neither takes a file of the other for its own, or for rubbish."""
    one = start_server("--files", folder)
    minou = join("Minou", one)
    line = send_file(minou, DATA)
    ready = offer(minou, DATA)
    send_chunks(minou, DATA, ready, until=CHUNK)
    two = start_server("--files", folder)
    tigrou = join("Tigrou", two)
    refused(tigrou, {"type": "download", "file": line["file"], "offset": 0},
            "no_such_file")
    other = send_file(tigrou, DATA[::-1])
    assert fetch(minou, send_rest(minou, DATA, {**ready, "offset": CHUNK})) == DATA
    end(two, "SIGTERM", tigrou)
    assert fetch(minou, line) == DATA
    refused(minou, {"type": "download", "file": other["file"], "offset": 0},
            "no_such_file")


# ----------------------------------------------------------------- the temporary folder

def test_without_files_the_folder_is_private_and_gone_at_the_end(tmp_path, join):
    with ServerWithTemp(tmp_path) as server:
        minou = join("Minou", server)
        minou.say("Hello")
        assert list(tmp_path.iterdir()) == []   # made when the first file comes
        line = send_file(minou, DATA)
        offer(minou, DATA)
        folder, = tmp_path.iterdir()
        assert folder.name.startswith("chattycat-files-")
        if os.name != "nt":
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")
                    } == {0o600}
        assert fetch(minou, line) == DATA
        end(server, "SIGTERM", minou)
        assert os.name == "nt" or list(tmp_path.iterdir()) == []


def test_with_history_alone_the_files_do_not_survive(start_server, join, tmp_path):
    """But the lines do: who asks for one of those files is told that it is not here."""
    history = "--history", tmp_path / "history"
    server = start_server(*history)
    minou = join("Minou", server)
    line = send_file(minou, DATA)
    end(server, "SIGTERM", minou)
    server = start_server(*history)
    minou = come_back(join, minou, server, since=0)
    assert minou.expect("file") == line
    refused(minou, {"type": "download", "file": line["file"], "offset": 0},
            "no_such_file", file=line["file"])
    assert fetch(minou, send_file(minou, DATA)) == DATA


@POSIX
def test_with_files_everything_is_private_too(start_server, join, folder):
    minou = join("Minou", start_server("--files", folder))
    send_file(minou, DATA)
    offer(minou, DATA)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700     # made by the server
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")
            ] == [0o600, 0o600]


class Busy:
    """Somebody who sends files and fetches them until the server ends."""

    def __init__(self, server, name):
        self.person = Person(server, name)
        self.went_wrong = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        skip = ("file", *COMINGS)
        try:
            for number in itertools.count():
                data = some_bytes(2 * CHUNK, number)
                line = send_file(self.person, data, skip=skip)
                assert fetch(self.person, line, skip=skip) == data
        except (AssertionError, OSError) as problem:
            # The goodbye is what must come, and nothing but it.
            if '"shutdown"' not in str(problem).replace("'", '"'):
                self.went_wrong = problem
        self.person.close()


@POSIX
@pytest.mark.parametrize("kept", [True, False])
def test_the_end_of_a_server_that_is_busy_with_files(tmp_path, folder, kept):
    """It ends in time, says nothing on stderr, and leaves nothing half behind."""
    temp = tmp_path / "temp"
    temp.mkdir()
    with ServerWithTemp(temp, *(("--files", folder) if kept else ())) as server:
        people = [Busy(server, f"Cat{number}") for number in range(8)]
        if kept:
            wait_until(lambda: len(tree(folder)) > 40)
        else:
            wait_until(lambda: list(temp.iterdir()) and len(tree(temp)) > 40)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 3
        for busy in people:
            busy.thread.join(10)
            assert not busy.thread.is_alive()
            assert busy.went_wrong is None, busy.went_wrong
    assert list(temp.iterdir()) == []
    assert not kept or set(tree(folder).values()) == {2 * CHUNK}


# ----------------------------------------------------------------- a folder that is bad

def test_a_folder_that_cannot_be_one(tmp_path):
    file = tmp_path / "a file"
    file.write_text("mine")
    for bad in (file, file / "x", ""):
        sentence = refuses("--files", bad)
        assert "--files" in sentence and str(bad) in sentence
    assert file.read_text() == "mine"
    assert sorted(tree(tmp_path)) == ["a file"]


def test_a_name_that_no_system_takes(tmp_path):
    options = tmp_path / "options"
    options.write_bytes(b"--files a\0b\n")
    refuses(f"@{options}")


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="Linux has such a folder")
def test_a_folder_where_nobody_can_write():
    """Not even root; and it is seen at the start, and not when the first file comes."""
    for folder in ("/proc", "/proc/new"):
        assert folder in refuses("--files", folder)


@pytest.mark.parametrize("words", [
    ("--max-file", "-1"), ("--max-file", "x"), ("--all-files", "1.5"),
    ("--max-file",), ("--files",)], ids=" ".join)
def test_a_mistake_in_an_option_is_one_sentence(words):
    refuses(*words)


# --------------------------------------------------------------------------- full disks

def set_disk(server, size):
    """From now on no file of this process may be longer: its disk is “full”.

    Python ignores the signal that comes with it, and so gets an error.
    """
    most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (
        most if size is None else size, most))


PRLIMIT = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux has it")


@PRLIMIT
def test_a_full_disk_and_then_a_free_one(start_server, join, folder):
    server = start_server("--rate", "0", "--recent", "0", "--files", folder)
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    minou.expect("joined")
    good = send_file(minou, DATA)
    assert tigrou.expect("file") == good
    ready = offer(minou, DATA)
    send_chunks(minou, DATA, ready, until=2 * CHUNK)
    set_disk(server, 3 * CHUNK + 1000)          # the fourth chunk can only begin
    minou.send(chunk(ready["file"], 2 * CHUNK, DATA[2 * CHUNK:3 * CHUNK]))
    for _ in range(3):
        refused(minou, chunk(ready["file"], 3 * CHUNK, DATA[3 * CHUNK:4 * CHUNK]),
                "files_full", file=ready["file"])
    minou.say("The chat goes on")
    tigrou.expect("chat")
    tigrou.silence()
    assert fetch(tigrou, good) == DATA
    set_disk(server, None)
    again = offer(minou, DATA, ref=ready["ref"])
    assert again["offset"] == 3 * CHUNK
    line = send_rest(minou, DATA, again)
    assert tigrou.expect("file") == line
    assert fetch(tigrou, line) == DATA


@pytest.fixture
def small_disk(tmp_path):
    """A real disk of 1 MiB, in memory; only root can have one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"no disk can be made here: {problem}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(start_server, join, small_disk):
    server = start_server("--rate", "0", "--files", small_disk / "files")
    minou = join("Minou", server)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(800_000))
    ready = offer(minou, DATA)
    for place in range(0, len(DATA), CHUNK):
        minou.send(chunk(ready["file"], place, DATA[place:place + CHUNK]))
    minou.expect("error", skip=["upload_ready"], code="files_full", file=ready["file"])
    minou.send({"type": "list"})
    minou.expect("people", skip=["error"])
    ballast.unlink()
    again = offer(minou, DATA, ref=ready["ref"])
    assert 0 < again["offset"] < len(DATA)
    assert fetch(minou, send_rest(minou, DATA, again)) == DATA


@PRLIMIT
def test_no_room_for_the_first_byte(start_server, join, tmp_path):
    server = ServerWithTemp(tmp_path)
    with server:
        minou = join("Minou", server)
        set_disk(server, 0)
        error = refused(minou, offer_line(DATA), "files_full")
        assert str(tmp_path) not in error["text"]   # our folders are not their affair
        set_disk(server, None)
        ready = offer(minou, DATA)
        set_disk(server, 0)
        error = refused(minou, chunk(ready["file"], 0, DATA[:CHUNK]), "files_full")
        assert str(tmp_path) not in error["text"]
        set_disk(server, None)
        assert fetch(minou, send_rest(minou, DATA, ready)) == DATA
        minou.leave()


# ---------------------------------------------------- who else is at work in the folder

def test_files_that_somebody_has_deleted_by_hand(serve, join, folder):
    server = serve("--recent", "0")
    minou = join("Minou", server)
    gone, short, stays = [send_file(minou, DATA, name) for name in "abc"]
    (path_gone,), (path_short,), _ = [
        [path for path in folder.rglob("*") if line["file"] in path.name]
        for line in (gone, short, stays)]
    path_gone.unlink()
    path_short.write_bytes(DATA[:CHUNK])
    refused(minou, {"type": "download", "file": gone["file"], "offset": 0},
            "no_such_file", file=gone["file"])
    ask(minou, short["file"])
    minou.expect("chunk", file=short["file"], offset=0)
    minou.expect("error", code="no_such_file", file=short["file"])
    refused(minou, {"type": "download", "file": short["file"], "offset": 2 * CHUNK},
            "no_such_file", file=short["file"])
    minou.silence()
    end(server, "SIGTERM", minou)
    server = serve("--recent", "0")
    minou = come_back(join, minou, server)
    for line in (gone, short):
        ask(minou, line["file"])
        minou.expect("error", skip=["chunk"], code="no_such_file", file=line["file"])
    assert fetch(minou, stays) == DATA


def test_the_whole_folder_deleted_by_hand(start_server, join, folder):
    server = start_server("--files", folder, "--recent", "0")
    minou = join("Minou", server)
    line, ready = send_file(minou, DATA), offer(minou, DATA)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    refused(minou, chunk(ready["file"], 0, DATA[:CHUNK]), "files_full")
    refused(minou, {"type": "download", "file": line["file"], "offset": 0},
            "no_such_file")
    refused(minou, offer_line(some_bytes(10)), "files_full")
    minou.say("The chat goes on")


# ------------------------------------------------------------------------- half an hour

def test_what_has_broken_off_is_kept_for_its_time(tmp_path, join, folder):
    server = ServerWithTemp(tmp_path, "--files", folder,
                            changed="script.HALF_SECONDS = 1")
    with server:
        minou, tigrou = join("Minou", server), join("Tigrou", server)
        old, ready = offer(minou, DATA, "old"), offer(minou, DATA[::-1], "new")
        send_chunks(minou, DATA, old, until=CHUNK)
        minou.reset()
        begin = time.monotonic()
        place = 0
        # Who sends a little now and then is not forgotten.
        minou = come_back(join, minou, server)
        ready = offer(minou, DATA[::-1], "new")
        while time.monotonic() < begin + 2.5 or len(tree(folder)) > 1:
            minou.send(chunk(ready["file"], place, DATA[::-1][place:place + 100]))
            place += 100
            minou.send({"type": "list"})
            minou.expect("people", skip=["upload_ready"])
            time.sleep(0.1)
            assert time.monotonic() < begin + 10, "half a file is kept for ever"
        old = offer(minou, DATA, "old")
        assert old["offset"] == 0
        line = send_rest(minou, DATA[::-1], {**ready, "offset": place})
        assert fetch(tigrou, line, skip=("file", *COMINGS)) == DATA[::-1]
        for person in (minou, tigrou):
            person.leave()
