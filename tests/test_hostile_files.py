"""A server that means harm, and files: what it sends costs a sentence, and no more.

The test is the server: a real socket, on which it speaks the protocol by hand, as badly
as it likes, to a real client in plain lines. Afterwards the chat goes on, nothing lies
outside of Downloads, and what lies there is whole and right.
"""
import base64
import contextlib
import itertools
import os
import pathlib
import re
import socket
import sys
import tempfile
import threading
import unicodedata

import pytest

from parcels import CHUNK, TURN, chunk, digest, some_bytes
from screen import wait_until
from test_connection import TIME, chat, odd
from test_plain_lines import POSIX, plain
from test_sending_files import make, offered, refusal, saved, sending

FIXTURES = (odd, plain)
EVIL = f"evil{os.getpid()}"         # part of each name that nobody may find outside
PROJECT = pathlib.Path(__file__).resolve().parent.parent
MIB = 2**20
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"),
                           reason="only Linux has /proc")


class Host:
    """A server for one client. It is honest, but for what a test puts into `instead`:

        host.instead["download"] = lambda message: [...]    # what is sent for an answer
    """
    def __init__(self, odd, client, limits=(("file", 10 * MIB),)):
        self.client = client
        self.side = odd.let_in(limits=limits and dict(limits))
        self.side.sock.settimeout(None)         # it is a thread that reads
        self.ids, self.lines = itertools.count(1), itertools.count(1)
        self.files, self.uploads, self.instead = {}, {}, {}
        self.came = []
        self.news, self.lock = threading.Condition(), threading.Lock()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with contextlib.suppress(OSError):      # the client has gone
            while message := self.side.read():
                with self.news:
                    self.came.append(message)
                    self.news.notify_all()
                kind = message["type"]
                answer = self.instead.get(kind) or getattr(self, "on_" + kind)
                self.send(*answer(message))
                if kind == "bye":
                    self.side.sock.shutdown(socket.SHUT_WR)

    def send(self, *messages):
        with self.lock:                         # two threads send: this one, the test's
            self.side.send(*messages)

    # --- the honest answers

    def on_bye(self, message):
        return [{"type": "goodbye", "reason": "bye", "text": "Goodbye."}]

    def on_cancel(self, message):
        return []

    def on_chat(self, message):
        return [chat(next(self.ids), message["text"], "Minou", ref=message["ref"])]

    def on_download(self, message):
        """Up to 8 chunks; and the truth, where there is less than was promised."""
        file, place = message["file"], message["offset"]
        data, size = self.files.get(file, (b"", -1))
        end = place + TURN * CHUNK
        places = range(place, min(len(data), end), CHUNK) or [place]
        return [chunk(file, place, data[place:place + CHUNK]) for place in places] + [
            {"type": "error", "code": "bad_file", "file": file,
             "text": "There is no more of it."}] * (end > len(data) != size)

    def on_upload(self, message):
        self.uploads[message["ref"]] = (message, bytearray())
        return [{"type": "upload_ready", "ref": message["ref"], "file": message["ref"],
                 "offset": 0}]

    def on_chunk(self, message):
        ref = message["file"]
        upload, data = self.uploads[ref]
        if message["offset"] != len(data):
            return []
        data += base64.b64decode(message["data"])
        if len(data) == upload["size"]:
            return [self.line(upload["name"], bytes(data), "Minou", ref=ref)]
        return [{"type": "upload_ready", "ref": ref, "file": ref, "offset": len(data)}
                ] * (len(data) // CHUNK % TURN == 0)

    # --- what a test says and asks

    def line(self, name, data=b"Woof!", author="Tigrou", **fields):
        """A `file` line; who asks for it, gets these bytes."""
        number = next(self.ids)
        line = {"type": "file", "id": number, "file": f"f{number}", "name": name,
                "size": len(data), "sha256": digest(data), "from": author, "color": 1,
                "time": TIME, **fields}
        with contextlib.suppress(TypeError):    # a `file` that is a list, for example
            self.files[line.get("file")] = data, line.get("size")
        return line

    def offer(self, name, data=b"Woof!", **fields):
        """Send a `file` line; return the number by which the client calls it."""
        self.send(self.line(name, data, **fields))
        return offered(self.client, name)

    def wait_for(self, kind, limit=10, **fields):
        """Wait until the client has sent such a message, and return it."""
        def look():
            return [message for message in self.came if message["type"] == kind
                    and fields.items() <= message.items()]
        with self.news:
            assert self.news.wait_for(look, limit), (kind, fields, self.client.text)
            return look()[-1]

    def still_talks(self):
        """The chat goes on, in both directions: so all that was sent has been read."""
        number = next(self.lines)
        self.send(chat(next(self.ids), f"Do you read line {number}?"))
        self.client.wait_for(f"Do you read line {number}\\?", 30)
        self.client.type_line(f"I have read line {number}.")
        self.wait_for("chat", text=f"I have read line {number}.")
        text = self.client.text
        for mistake in ("Traceback", "has a mistake in it"):
            assert mistake not in text, text
        assert {unicodedata.category(letter) for letter in text if letter != "\n"
                }.isdisjoint({"Cc", "Cs"}) and not re.search(
                    "[\u202a-\u202e\u2066-\u2069]", text), ascii(text)

    def still_saves(self, name="last.txt"):
        """What is honest is saved, whatever was before it."""
        number = self.offer(name)
        self.client.type_line(f"/save {number}")
        assert saved(self.client, number).read_bytes() == b"Woof!"
        self.still_talks()

    def memory(self):
        """The client's, in bytes."""
        status = pathlib.Path(f"/proc/{self.client.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def close(self):
        with contextlib.suppress(OSError):
            self.side.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.side.close()


@pytest.fixture
def home(tmp_path):
    """Far below tmp_path, so that also who climbs is still in it, and is caught."""
    folder = tmp_path / "one" / "two" / "home"
    folder.mkdir(parents=True)
    yield folder
    downloads = folder / "Downloads"
    assert [path for path in tmp_path.rglob("*")
            if not path.is_dir() and downloads not in path.parents
            and not path.name.startswith("mine")] == []
    assert not [path for path in downloads.rglob("*")
                if path.suffix == ".part" or path.is_dir() or path.is_symlink()]
    for place in (PROJECT, pathlib.Path.cwd(), pathlib.Path(tempfile.gettempdir()),
                  pathlib.Path.home(), pathlib.Path("/")):
        assert not [name for name in os.listdir(place) if EVIL in name]


@pytest.fixture
def host(odd, home, plain):
    """The server of a client that is in."""
    client = plain(odd, "--name", "Minou", HOME=str(home), USERPROFILE=str(home))
    host = Host(odd, client)
    client.wait_for("You are in")
    yield host
    host.close()


def numbers(client):
    return re.findall(r"— /save (\d+) saves it$", client.text, re.MULTILINE)


def outcome(client, name):
    """Wait until a file is saved, or a sentence says why not; return its path or None.
    """
    found = client.wait_for(
        rf"^.*  \* \d+: {re.escape(name)} is saved as (.*)$|"
        rf"^.*  \* (?!.*(Saving|\d %)).*{re.escape(name)}.*$", 15)
    return found[1] and pathlib.Path(found[1])


# -------------------------------------------------------------------------------- names

NAMES = [
    f"../../{EVIL}", f"..\\..\\{EVIL}", f"/{EVIL}", f"C:\\{EVIL}", f"C:{EVIL}",
    f"//host/share/{EVIL}", f"{EVIL}/../../{EVIL}.txt", f"../{EVIL}/", f"a/../{EVIL}\\",
    f"~/{EVIL}", f"{tempfile.gettempdir()}/{EVIL}", f"%2e%2e%2f{EVIL}", "CON",
    "con.txt", "NUL.tar.gz", "Com1", "LPT9.png", "aux.", "CONIN$", ".", "..", "...", "",
    " ", "/", "\\", ".hidden", "....hidden.png", ". .hidden", "x" * 300 + ".png",
    "y" * 240 + ".png", "😀" * 100 + ".png", "x." + "y" * 300, "x" * 199 + " y" * 9,
    "x" * 60_000, "a\0b", "a\nb", "a\rb", "a\x1b[2Jb", "a\x7fb", "a\x85b", "a\x9bb",
    "a\u202egnp.exe",
    "\u2066b\u2069", "a\ud83db", "\ude00", "a\u2028b", "a\u200fb", "x.", "x ", " x",
    "x\t.png", "a<b>|?*c", '"', "'", "~", "-rf", "a.part", "last.txt.part", "%s%n"]
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt")
                                         for digit in range(1, 10))}


def is_safe(name):
    """Whether a name does no harm on any system, wherever its letters are shown."""
    return (name.isprintable() and name == name.lstrip(". ").rstrip(". ")
            and not set(name) & set("/\\") and len(os.fsencode(name)) <= 204
            and name.partition(".")[0].rstrip().lower() not in DEVICES)


def test_names(host, home):
    """Each is shown, or a sentence, or nothing; what is saved has a name without harm.
    """
    client = host.client
    lines = [host.line(name, b"%d" % at) for at, name in enumerate(NAMES)]
    host.send(*lines)
    host.still_talks()
    for number in numbers(client):
        client.type_line(f"/save {number}")
    host.still_saves()
    found = {path.name: path.read_bytes() for path in (home / "Downloads").iterdir()}
    # (The fixture complains of names with this end, which are no mistake here.)
    for name in [name for name in found if name.endswith(".part")]:
        (home / "Downloads" / name).unlink()
    assert [name for name in found if not is_safe(name)] == []
    contents = {b"%d" % at for at in range(len(NAMES))} | {b"Woof!"}
    assert set(found.values()) <= contents
    # Of those above that are only ugly, none is lost.
    assert b"%d" % NAMES.index("con.txt") in found.values()
    assert b"%d" % NAMES.index("x.") in found.values()
    assert sum(name.endswith(".png") and len(name) > 40 for name in found) == 2


@pytest.mark.parametrize("name", ["../../", "\u202egnp.exe"])
def test_a_name_that_is_refused_is_not_half_taken(host, home, name):
    """Also where it is the only one: the chat goes on, and the next file is saved."""
    host.send(host.line(name))
    host.still_saves()


# --------------------------------------------------------------- the fields of the line

FIELDS = {
    "id": [0, -1, "1", None, 1.5, True, 2**70, [], {}],
    "file": [5, None, True, [], {}, ["f1"], "", "../../" + EVIL, "\0", "\ud83d",
             "x" * 60_000],
    "name": [5, None, True, [], {}, ["a"]],
    "size": [-1, 2**70, 2**63, "5", "x", None, 5.0, True, [], {}, 10**400, 4, 6, 0,
             10 * MIB + 1],
    "sha256": ["", "x", "z" * 64, "0" * 63, "0" * 65, 5, None, True, [], {}, "0" * 64,
               "٠" * 64, "0" * 60_000, "\ud83d" * 64],
    "from": [5, None, True, [], {}, "", "x" * 5000, "a\nb", "a\x1b[2Jb", "\ud83d"],
    "to": [5, True, [], {}, "", "x" * 5000, "Nobody", "a\nb", "\ud83d"],
    "time": [5, None, [], "", "x", "9999-99-99T99:99:99.999Z"],
    "ref": [5, None, True, [], {}, "", "x" * 5000],
    "color": [-1, 12, "1", None, [], 2**70]}
NAN = '{"type": "file", "id": 999999, "file": "f", "name": "n", "size": %s}\n'


@pytest.mark.long
@pytest.mark.parametrize("field", FIELDS)
def test_fields(host, home, field):
    """What is offered in spite of it is saved whole, or not at all."""
    client = host.client
    # An id that is huge is the newest that there ever was; so that it hides nothing
    # of what comes behind it, ours are huge too.
    host.ids = itertools.count(2**71 if field == "id" else 1)
    for at, value in enumerate(FIELDS[field]):
        host.send(host.line(**{"name": f"{at}.txt", field: value}))
        line = host.line(f"{at} without.txt")
        line.pop(field, None)
        host.send(line)
    host.still_talks()
    for number in numbers(client):
        client.type_line(f"/save {number}")
        try:
            client.wait_for(rf"\* {number}: (?!.*\d %)(?!Sav)", 0.3)
        except AssertionError:          # it waits for bytes that never come
            client.type_line(f"/cancel {number}")
    host.still_saves()
    assert {path.read_bytes() for path in (home / "Downloads").iterdir()} == {b"Woof!"}


@pytest.mark.long
@pytest.mark.parametrize("limits", [
    None, {"file": "x"}, {"file": -1}, {"file": 2**70}], ids=str)
def test_limits(odd, home, plain, limits):
    """Who comes in at such a server can still talk, and save what is there."""
    client = plain(odd, "--name", "Minou", HOME=str(home), USERPROFILE=str(home))
    host = Host(odd, client, limits)
    client.wait_for("You are in")
    client.type_line(f"/file {make(home, 'mine.txt')}")
    host.still_saves()
    host.close()


def test_numbers_that_are_none(host):
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "-0", "9" * 60_000):
        host.side.send_raw((NAN % number).encode())
    host.still_saves()


def test_a_line_that_comes_again_is_shown_once(host):
    line = host.line("photo.png")
    host.send(line, line)
    host.still_talks()
    host.send(line)
    host.still_talks()
    assert len(numbers(host.client)) == 1


@pytest.mark.long
def test_ten_thousand_files(host, home):
    host.send(*[host.line(f"{at}.txt", b"%d" % at) for at in range(10_000)])
    host.still_talks()
    found = numbers(host.client)
    assert len(set(found)) == len(found) == 10_000
    for at in (0, 9_999):
        host.client.type_line(f"/save {found[at]}")
        assert saved(host.client, found[at]).read_bytes() == b"%d" % at
    assert not [message for message in host.came if message["type"] == "download"][2:]


# ------------------------------------------------------------------------------- chunks

DATA = some_bytes(19 * CHUNK + 5)           # three turns: 8, 8, and 4 chunks
OTHER = some_bytes(19 * CHUNK + 5, 2)


def at(file, place, source=DATA, size=CHUNK, **fields):
    return {**chunk(file, place, source[place:place + size]), **fields}


def without(file, *names):
    return {key: value for key, value in at(file, 0).items() if key not in names}


# What comes before the honest answer to the first `download`.
BEFORE_IT = {
    "not base64": lambda file: [at(file, 0, data="!!!!")],
    "half of base64": lambda file: [at(file, 0, data="QUJ")],
    "another script": lambda file: [at(file, 0, data="é" * 100)],
    "half an emoji": lambda file: [at(file, 0, data="\ud83d" * 4)],
    "lines of base64": lambda file: [
        at(file, 0, data=base64.encodebytes(DATA[:CHUNK]).decode())],
    "a number": lambda file: [at(file, 0, data=5)],
    "null": lambda file: [at(file, 0, data=None)],
    "a list": lambda file: [at(file, 0, data=["QUJD"])],
    "no data": lambda file: [without(file, "data")],
    "no offset": lambda file: [without(file, "offset")],
    "no file": lambda file: [without(file, "file")],
    "empty ones": lambda file: [chunk(file, 0, b"")] * 1000,
    "too long": lambda file: [at(file, 0, size=CHUNK + 8192)],
    "out of order": lambda file: [at(file, CHUNK), at(file, 0)],
    "the last first": lambda file: [at(file, 19 * CHUNK)],
    "twice": lambda file: [at(file, 0), at(file, 0), at(file, CHUNK), at(file, CHUNK)],
    "a gap": lambda file: [at(file, 0), at(file, 2 * CHUNK)],
    "beyond the end": lambda file: [chunk(file, len(DATA), b"more" * 100)],
    "over the end": lambda file: [chunk(file, 19 * CHUNK, b"more" * 100)],
    "far away": lambda file: [chunk(file, 2**40, b"more")],
    "negative": lambda file: [chunk(file, -1, b"more"), chunk(file, -CHUNK, b"more")],
    "huge": lambda file: [chunk(file, 2**70, b"more")],
    "words": lambda file: [at(file, 0, offset="0")],
    "a fraction": lambda file: [at(file, 0, offset=0.0), at(file, 0, offset=0.5)],
    "true": lambda file: [at(file, 0), at(file, CHUNK, offset=True)],
    "another file's": lambda file: [at("f0", 0, OTHER), at(file + "x", 0, OTHER)],
    "a file that is none": lambda file: [
        at(kind, 0, OTHER) for kind in (5, None, [], {}, True)],
    "errors about others": lambda file: [
        {"type": "error", "code": "no_such_file", "text": "Gone.", "file": kind}
        for kind in ("f0", 5, None, [], {}, True)],
    "errors without words": lambda file: [
        {"type": "error", "file": file}, {"type": "error", "code": 5, "file": file},
        {"type": "error", "code": "bad_file", "text": None, "file": file}]}

# What comes in place of it.
INSTEAD = {
    "other bytes": lambda file: [at(file, place, OTHER)
                                 for place in range(0, TURN * CHUNK, CHUNK)],
    "all at once": lambda file: [at(file, place)
                                 for place in range(0, len(DATA), CHUNK)],
    "all at once, and more": lambda file: [
        at(file, place, DATA * 3) for place in range(0, 3 * len(DATA), CHUNK)],
    "a byte each": lambda file: [at(file, place, size=1) for place in range(8)],
    "an error": lambda file: [{"type": "error", "code": "no_such_file", "file": file,
                               "text": "There is no such file."}],
    "an empty one": lambda file: [chunk(file, 0, b"")],
    "an error in the middle": lambda file: [
        at(file, 0), {"type": "error", "code": "bad_file", "file": file,
                      "text": "This file is broken."}, at(file, CHUNK)],
    "the line again": lambda file: [
        {"type": "file", "id": int(file[1:]), "file": file, "name": "x", "size": 5,
         "sha256": digest(b"Woof!"), "from": "Tigrou", "color": 1, "time": TIME}]}
TOO_LITTLE = "a byte each", "the line again"


def answered_by(host, evil, honest):
    """The first `download` is answered so, and all later ones honestly."""
    def answer(message):
        del host.instead["download"]
        return evil(message["file"]) + (host.on_download(message) if honest else [])
    host.instead["download"] = answer


def ends_whole_or_not_at_all(host, home, number, name):
    """And who asks once more, gets the file."""
    client = host.client
    path = outcome(client, name)
    found = [found for found in (home / "Downloads").iterdir() if name in found.name]
    assert found == ([path] if path else []), name
    if not path:
        # What else was in that answer has to come first: it would be for the next one.
        host.still_talks()
        client.type_line(f"/save {number}")
        path = saved(client, number)
    assert path.read_bytes() == DATA, name


def test_chunks(host, home):
    """One client for all of them: to start one for each would take longer."""
    for evil in BEFORE_IT:
        number = host.offer(f"{evil}.bin", DATA)
        answered_by(host, BEFORE_IT[evil], honest=True)
        host.client.type_line(f"/save {number}")
        ends_whole_or_not_at_all(host, home, number, f"{evil}.bin")
    host.still_saves()


@pytest.mark.long
def test_chunks_of_another_kind(host, home):
    for evil in INSTEAD:
        number = host.offer(f"{evil}.bin", DATA)
        answered_by(host, INSTEAD[evil], honest=False)
        host.client.type_line(f"/save {number}")
        if evil in TOO_LITTLE:          # it may wait for more until somebody ends it
            host.wait_for("download", file=list(host.files)[-1])
            host.still_talks()
            host.client.type_line(f"/cancel {number}")
        ends_whole_or_not_at_all(host, home, number, f"{evil}.bin")
    host.still_saves()


def test_a_file_that_is_shorter_than_it_was_said(host, home):
    number = host.offer("big.bin", DATA)
    host.files["f1"] = DATA[:100_000], len(DATA)
    host.client.type_line(f"/save {number}")
    refusal(host.client, "big.bin")
    host.still_saves()
    assert len([message for message in host.came if message["type"] == "download"]) < 9


def test_other_bytes_are_never_a_file(host, home):
    number = host.offer("big.bin", DATA)
    for bad in (OTHER, DATA[:-1] + b"x", b"x" + DATA[1:], OTHER[:-1], OTHER + b"x"):
        host.files["f1"] = bad, len(DATA)
        before = host.client.text.count("big.bin")
        host.client.type_line(f"/save {number}")
        wait_until(lambda: host.client.text.count("big.bin") > before)
        host.still_saves()
        assert not list((home / "Downloads").glob("big*"))
    host.files["f1"] = DATA, len(DATA)
    host.client.type_line(f"/save {number}")
    assert saved(host.client, number).read_bytes() == DATA


@LINUX
def test_chunks_that_nobody_has_asked_for(host):
    """They are not kept: a server that floods us cannot fill our memory."""
    host.offer("big.bin", DATA)
    host.still_talks()
    before = host.memory()
    for _ in range(100):
        host.send(*[at("f1", place) for place in range(0, len(DATA), CHUNK)])
    host.still_talks()
    assert host.memory() - before < 48 * MIB        # 83 MB of lines have come
    host.still_saves()


@LINUX
def test_more_chunks_than_were_asked_for(host, home):
    number = host.offer("big.bin", DATA)
    before = host.memory()
    answered_by(host, lambda file: [
        at(file, place) for place in range(0, TURN * CHUNK, CHUNK)] * 200, False)
    host.client.type_line(f"/save {number}")
    host.still_talks()
    assert host.memory() - before < 48 * MIB        # 67 MB of lines have come
    ends_whole_or_not_at_all(host, home, number, "big.bin")


def test_the_connection_breaks_and_the_server_is_gone(host, odd, home):
    number = host.offer("big.bin", DATA)
    host.instead["download"] = lambda message: [at("f1", 0)]
    host.client.type_line(f"/save {number}")
    host.wait_for("download")
    wait_until(lambda: list((home / "Downloads").glob("*")))
    odd.listener.close()
    host.close()
    host.client.wait_for("was lost")
    host.client.close_input()
    host.client.process.send_signal(2)
    assert host.client.status() in (0, 1)
    assert list((home / "Downloads").iterdir()) == []


def test_after_a_break_it_asks_for_the_rest_only(host, odd, home):
    """Whatever this server says now: what has been written is not asked for again."""
    number = host.offer("big.bin", DATA)
    host.instead["download"] = lambda message: (
        host.on_download(message) if message["offset"] == 0 else [])
    host.client.type_line(f"/save {number}")
    host.wait_for("download", offset=TURN * CHUNK)
    host.close()
    again = odd.let_in(resumed=True, session="a secret", last_id=1)
    asked = again.read()
    assert (asked["type"], asked["offset"]) == ("download", TURN * CHUNK)
    rest = [at("f1", place) for place in range(TURN * CHUNK, len(DATA), CHUNK)]
    again.send(*rest[:TURN])
    assert again.read()["offset"] == 2 * TURN * CHUNK
    again.send(*rest[TURN:])
    assert saved(host.client, number).read_bytes() == DATA


# ------------------------------------------------------------------------- upload_ready

BIG = some_bytes(64 * CHUNK)


def ready(message, **fields):
    return {"type": "upload_ready", "ref": message["ref"], "file": message["ref"],
            "offset": 0, **fields}


READY = {
    "another ref": lambda m: [ready(m, ref="nobody's", file="x")],
    "a ref of another kind": lambda m: [
        ready(m, ref=kind) for kind in (5, None, [], {}, True)],
    "a file of another kind": lambda m: [
        ready(m, file=kind) for kind in (5, None, [], {}, True)],
    "negative": lambda m: [ready(m, offset=-1), ready(m, offset=-CHUNK)],
    "beyond the end": lambda m: [ready(m, offset=len(BIG) + 1), ready(m, offset=2**70)],
    "not a number": lambda m: [
        ready(m, offset=kind) for kind in ("0", None, 1.5, True, [], {})],
    "no offset": lambda m: [{"type": "upload_ready", "ref": m["ref"], "file": "x"}],
    "no file": lambda m: [{"type": "upload_ready", "ref": m["ref"], "offset": 0}],
    "no ref": lambda m: [{"type": "upload_ready", "file": m["ref"], "offset": 0}],
    "a hundred of it": lambda m: [ready(m)] * 100,
    "nothing but errors": lambda m: [
        {"type": "error", "code": "bad_file", "text": "No.", "ref": kind}
        for kind in ("nobody's", 5, None, [], True)]}


def begin_upload(host, home, evil, name="mine.bin"):
    """Offer a file of 2 MiB; the answer is this, and then an honest one."""
    def answer(message):
        del host.instead["upload"]
        return evil(message) + host.on_upload(message)
    host.instead["upload"] = answer
    path = make(home, name, BIG)
    host.client.type_line(f"/file {path}")


def arrived(host, name):
    return [bytes(data) for upload, data in host.uploads.values()
            if upload["name"] == name]


def still_sends(host, home):
    """The next file arrives, whatever became of the one before."""
    name = f"mine, number {next(host.lines)}.txt"
    host.client.type_line(f"/file {make(home, name)}")
    host.wait_for("upload", name=name)
    wait_until(lambda: arrived(host, name) == [b"Meow!"])
    host.still_talks()


@pytest.mark.long
def test_upload_ready(host, home):
    """The file arrives all the same, or a sentence says that it does not."""
    for evil in READY:
        name = f"mine, {evil}.bin"
        begin_upload(host, home, READY[evil], name)
        host.wait_for("upload", name=name)
        wait_until(lambda: arrived(host, name) == [BIG] or re.search(
            rf"\* (?!.*(Sending|\d %)).*{name}", host.client.text), what=name)
        still_sends(host, home)
        chunks = [message for message in host.came if message["type"] == "chunk"]
        assert len(chunks) <= 3 * 64, name  # what we were told again is not sent again
        host.came.clear()


@LINUX
@pytest.mark.parametrize("offsets", [[0], [0, CHUNK], [64 * CHUNK, 0]],
                         ids=str)
def test_endless_upload_ready(host, home, offsets):
    """Each asks for 16 chunks; 3,000 of them would be 2 GB, if we believed it."""
    host.still_talks()
    before = host.memory()
    begin_upload(host, home, lambda message: [
        ready(message, offset=offset) for _ in range(3000) for offset in offsets])
    host.wait_for("upload", name="mine.bin")
    host.still_talks()
    chunks = [message for message in host.came if message["type"] == "chunk"]
    assert len(chunks) <= 3 * 64 and host.memory() - before < 48 * MIB
    if arrived(host, "mine.bin") != [BIG]:
        host.client.type_line(f"/cancel {sending(host.client, 'mine.bin')}")
    still_sends(host, home)


def test_chunks_are_sent_only_as_far_as_was_agreed(host, home):
    """16 ahead of the last upload_ready, and no more until there is another one."""
    host.instead["chunk"] = lambda message: []
    begin_upload(host, home, lambda message: [])
    host.wait_for("chunk", offset=15 * CHUNK)
    host.still_talks()
    host.still_talks()
    chunks = [message for message in host.came if message["type"] == "chunk"]
    assert [message["offset"] for message in chunks] == [
        place * CHUNK for place in range(16)]
    for message in chunks:
        assert base64.b64decode(message["data"], validate=True) == BIG[
            message["offset"]:message["offset"] + CHUNK]


@pytest.mark.parametrize("by", ["ref", "file"])
def test_an_error_ends_an_upload(host, home, by):
    """Be it about the offer (by its ref) or about a chunk (by its file)."""
    errors = [{"type": "error", "code": "bad_file", "text": "The hash does not match."}
              ] * (16 if by == "file" else 1)       # for all that is on its way
    host.instead["chunk"] = lambda message: [
        {**errors.pop(), by: message["file"]}] if errors else []
    begin_upload(host, home, lambda message: [])
    refusal(host.client, "hash does not match")
    del host.instead["chunk"]
    still_sends(host, home)
    assert host.client.text.count("hash does not match") == 1


def test_what_was_never_offered(host, home):
    """A receipt, an error and a go-ahead for uploads that there never were."""
    for _ in range(100):
        host.send({"type": "upload_ready", "ref": "x", "file": "x", "offset": 0},
                  {"type": "error", "code": "bad_file", "text": "No.", "ref": "x"},
                  {"type": "error", "code": "bad_file", "text": "No.", "file": "x"},
                  {"type": "chunk", "file": "x", "offset": 0, "data": "QUJD"})
    host.still_talks()
    assert not [message for message in host.came if message["type"] == "chunk"]
    still_sends(host, home)
    host.still_saves()


@pytest.mark.long
@LINUX
def test_a_flood_of_go_aheads_that_is_never_read(host, home):
    """We may answer each, but we do not collect the answers for ever."""
    host.still_talks()
    before = host.memory()
    flood = [{"type": "upload_ready", "ref": "x", "file": "y" * 60_000, "offset": 0}]
    host.instead["list"] = lambda message: flood * 2000     # it reads nothing then
    host.client.type_line("/list")
    host.still_talks()
    assert host.memory() - before < 48 * MIB                # 120 MB have come
    host.still_saves()


def test_a_file_that_says_it_is_ours(host, home):
    """With our name and a ref that we never gave."""
    host.send(host.line("photo.png", author="Minou", ref="f" * 16))
    host.still_talks()
    still_sends(host, home)
    assert not list((home / "Downloads").glob("*"))
