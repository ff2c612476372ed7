"""Files: the server's side of it, by hand. What is bad in them; who may fetch what.

The server lies, with all that it could write to, in one folder of its own, so that a
test sees what it has written, and where.
"""
import collections
import json
import random
import re
import socket
import subprocess
import time

import pytest

from parcels import (
    AHEAD, CHUNK, TURN, ask, chunk, come_back, digest, fetch, offer, offer_line,
    refused, send_chunks, send_file, send_rest, some_bytes, take, tree)
from people import COMINGS, ServerProcess

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MIB = 2**20
NOBODYS = "no-such-file"
SMALL = some_bytes(5 * CHUNK + 77)      # more than half a turn, and no whole chunk


class ServerInAFolder(ServerProcess):
    """A server which keeps its files in FOLDER/a/b/files, and works in FOLDER/a/b/c."""

    def __init__(self, folder, *options, **how):
        self.folder, self.files = folder, folder / "a" / "b" / "files"
        self.work, self.temp = folder / "a" / "b" / "c", folder / "temp"
        super().__init__("--rate", "0", "--recent", "0", *options, **how)

    def open_process(self, env):
        for place in (self.files, self.work, self.temp):
            place.mkdir(parents=True, exist_ok=True)
        env = {**env, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temp))}
        return subprocess.Popen(
            [*self.command, "--files", str(self.files)], env=env, cwd=self.work,
            stdin=self.stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def written_outside(self):
        """The files that are in the folder, but not among those that it keeps."""
        return [name for name in tree(self.folder)
                if self.files not in (self.folder / name).parents]


@pytest.fixture(scope="module")
def server(tls, tmp_path_factory):
    """One server for most of this file. At the end it has written nothing outside."""
    folder = tmp_path_factory.mktemp("server")
    with ServerInAFolder(folder, "--max-file", "1", *tls, console=True) as process:
        yield process
        assert process.written_outside() == []


def announced(people, **fields):
    """The `file` line, which all of these people must get, byte for byte the same."""
    lines = [person.expect("file", skip=COMINGS, **fields) for person in people]
    assert all(line == lines[0] for line in lines)
    return lines[0]


def silent(*people):
    """Nothing has come to any of them, but that somebody came or left."""
    for person in people:
        person.send({"type": "list"})
        person.expect("people", skip=COMINGS)


# ---------------------------------------------------------------------- to whom it goes

def test_the_welcome_says_how_large_a_file_may_be(join):
    assert join("Minou").welcome["limits"]["file"] == MIB


def test_a_file_for_everybody(join):
    minou, tigrou, felix = join("Minou"), join("Tigrou"), join("Felix")
    before = minou.say("A photo:")
    line = send_file(minou, SMALL, "photo.png", ref="my photo")
    after = minou.say("That was it.")
    assert before["id"] < line["id"] < after["id"]
    assert type(line["id"]) is int and type(line["file"]) is str and line["file"]
    assert {key: line[key] for key in ("name", "size", "sha256", "from", "color", "ref")
            } == {"name": "photo.png", "size": len(SMALL), "sha256": digest(SMALL),
                  "from": "Minou", "color": minou.welcome["color"], "ref": "my photo"}
    assert TIME.fullmatch(line["time"]) and "to" not in line
    for person in (tigrou, felix):
        person.expect("chat", skip=COMINGS, id=before["id"])
        assert person.expect("file") == line
        person.expect("chat", id=after["id"])
    for person in (minou, tigrou, felix):
        assert fetch(person, line) == SMALL
        silent(person)


@pytest.mark.parametrize("to", ["Tigrou", "TIGROU", "ｔｉｇｒｏｕ"])
def test_a_file_for_one(join, to):
    minou, tigrou, felix = join("Minou"), join("Tigrou"), join("Felix")
    line = send_file(minou, SMALL, to=to)
    assert line["to"] == "Tigrou" and line["from"] == "Minou"
    assert tigrou.expect("file", skip=COMINGS) == line
    for person in (minou, tigrou):
        assert fetch(person, line) == SMALL
    silent(felix)
    ask(felix, line["file"])
    private = felix.expect("error", code="no_such_file", file=line["file"])
    ask(felix, NOBODYS)
    unknown = felix.expect("error", code="no_such_file", file=NOBODYS)
    assert private["text"] == unknown["text"]       # not a word that there is one
    refused(felix, {"type": "cancel", "file": line["file"]}, "no_such_file")
    silent(felix)


def test_a_file_for_oneself_comes_once(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    line = send_file(minou, SMALL, to="Minou")
    assert line["to"] == "Minou"
    silent(minou, tigrou)
    assert fetch(minou, line) == SMALL
    refused(tigrou, {"type": "download", "file": line["file"], "offset": 0},
            "no_such_file", file=line["file"])


def test_a_private_file_is_not_for_who_has_the_name_later(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    sent = send_file(minou, SMALL, to="Tigrou")
    got = send_file(tigrou, SMALL, to="Minou", skip=(*COMINGS, "file"))
    tigrou.leave()
    other = join("Tigrou")
    for line in (sent, got):
        refused(other, {"type": "download", "file": line["file"], "offset": 0},
                "no_such_file", file=line["file"])
    # The one of old comes back, under another name: it is the session that counts.
    person = join()
    for name in ("Tigrou", "Tigrou2"):
        person.hello(name, session=tigrou.welcome["session"], since=got["id"])
        person.read()
    assert person.welcome["name"] == "Tigrou2"
    assert fetch(person, sent) == fetch(person, got) == SMALL
    minou.expect("file", skip=COMINGS, id=got["id"])


def test_who_is_away_gets_the_file_line_on_the_return(join):
    minou, tigrou = join("Minou"), join("Away")
    minou.expect("joined")
    since = tigrou.say("I am here")["id"]
    tigrou.reset()
    minou.expect("chat")
    minou.expect("left", name="Away", reason="lost")
    lines = [send_file(minou, SMALL), send_file(minou, SMALL, to="Away")]
    tigrou = come_back(join, tigrou, since=since)
    assert [tigrou.expect("file") for _ in lines] == lines
    assert [fetch(tigrou, line) for line in lines] == [SMALL, SMALL]


def test_somebody_new_can_fetch_what_was_sent_before(join, start_server):
    server = start_server()
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    line = send_file(minou, SMALL)
    send_file(minou, SMALL, to="Tigrou")
    felix = join("Felix", server)
    assert felix.expect("file") == line
    felix.silence()
    assert fetch(felix, line) == SMALL
    assert announced([tigrou]) == line


def test_what_was_sent_before_the_connection_closed_counts(join):
    """The last chunk, and then nothing more: who sent it does not read the line."""
    minou, tigrou = join("Minou"), join("Lost_in_peace")
    minou.expect("joined")
    data = b"in one breath"
    ready = offer(tigrou, data)
    tigrou.send(chunk(ready["file"], 0, data))
    tigrou.socket.shutdown(socket.SHUT_WR)
    line = minou.expect("file", from_="Lost_in_peace")
    minou.expect("left", name="Lost_in_peace", reason="lost")
    assert fetch(minou, line) == data


# -------------------------------------------------------------------------------- sizes

@pytest.mark.parametrize("size", [
    1, CHUNK - 1, CHUNK, CHUNK + 1, TURN * CHUNK - 1, TURN * CHUNK, TURN * CHUNK + 1,
    AHEAD * CHUNK, MIB - 1, MIB])
def test_sizes(join, size):
    minou, tigrou = join("Minou"), join("Tigrou")
    data = some_bytes(size)
    line = send_file(minou, data)
    assert announced([tigrou]) == line
    assert line["size"] == size and fetch(tigrou, line) == data
    silent(minou, tigrou)


def test_the_empty_file_is_announced_at_once(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.expect("joined")
    ready = offer(minou, b"")
    assert ready["offset"] == 0
    line = minou.expect("file", size=0, sha256=digest(b""), ref=ready["ref"])
    assert line["file"] == ready["file"]
    assert tigrou.expect("file") == line
    ask(tigrou, line["file"])
    assert take(tigrou, line["file"], 0) == b""
    silent(minou, tigrou)


def test_one_byte_more_than_the_bound(join, server):
    minou = join("Minou")
    message = offer_line(some_bytes(MIB + 1))
    refused(minou, message, "file_too_big", ref=message["ref"])
    silent(minou)


def test_ten_mebibytes_are_the_bound_if_nobody_says_otherwise(join, start_server):
    server = start_server("--rate", "0")
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    bound = minou.welcome["limits"]["file"]
    data = some_bytes(bound)
    assert len(data) == 10 * MIB
    message = offer_line(data + b"x")
    refused(minou, message, "file_too_big", ref=message["ref"])
    line = send_file(minou, data)
    assert fetch(tigrou, announced([tigrou])) == data
    assert digest(fetch(minou, line)) == line["sha256"]


@pytest.mark.parametrize("kind", ["upload", "chunk", "download", "cancel"])
def test_no_files_for_who_has_not_said_hello(join, kind):
    person = join()
    person.send({**offer_line(SMALL), **chunk(NOBODYS, 0, b"x"), "type": kind})
    person.expect("error", code="hello_first")


def test_no_files_at_all(join, start_server):
    server = start_server("--max-file", "0")
    minou = join("Minou", server)
    assert minou.welcome["limits"]["file"] == 0
    for data in (SMALL, b""):
        message = offer_line(data)
        error = refused(minou, message, "file_too_big", ref=message["ref"])
        assert "0" not in error["text"]         # but in words that there are none here
    silent(minou)


# --------------------------------------------------------------------------------- pace

@pytest.mark.parametrize("size", [CHUNK, 1])
def test_after_every_eight_chunks_the_server_says_how_far_it_is(join, size):
    """Not earlier, and not later: sixteen ahead is all that the sender may be."""
    minou = join("Minou")
    data = some_bytes(19 * size)
    ready = offer(minou, data)
    for number in range(19):
        minou.send(chunk(ready["file"], number * size, data[number * size:][:size]))
        if number % TURN == TURN - 1:
            minou.expect("upload_ready", ref=ready["ref"], file=ready["file"],
                         offset=(number + 1) * size)
        elif number < 18:
            minou.silence()
    line = minou.expect("file", ref=ready["ref"])
    assert fetch(minou, line) == data


def test_sixteen_chunks_ahead(join):
    minou = join("Minou")
    data = some_bytes((AHEAD + 1) * CHUNK)
    ready = offer(minou, data)
    for start in range(0, AHEAD * CHUNK, CHUNK):
        minou.send(chunk(ready["file"], start, data[start:start + CHUNK]))
    for count in (TURN, AHEAD):
        minou.expect("upload_ready", offset=count * CHUNK)
    minou.send(chunk(ready["file"], AHEAD * CHUNK, data[AHEAD * CHUNK:]))
    assert fetch(minou, minou.expect("file")) == data


def test_an_empty_chunk_is_ignored(join):
    minou = join("Minou")
    ready = offer(minou, SMALL)
    for _ in range(2 * TURN):
        minou.send(chunk(ready["file"], 0, b""))
    minou.silence()
    assert fetch(minou, send_rest(minou, SMALL, ready)) == SMALL


def test_a_download_is_eight_chunks_at_a_time(join):
    minou = join("Minou")
    data = some_bytes(TURN * CHUNK * 2)
    file = send_file(minou, data)["file"]
    for start in (0, 1, CHUNK + 5, len(data) - TURN * CHUNK):
        ask(minou, file, start)
        for place in range(start, start + TURN * CHUNK, CHUNK):
            assert take(minou, file, place) == data[place:place + CHUNK]
        silent(minou)
    ask(minou, file, len(data) - CHUNK - 5)
    for place in (len(data) - CHUNK - 5, len(data) - 5):
        assert take(minou, file, place) == data[place:place + CHUNK]
    ask(minou, file, len(data))
    assert take(minou, file, len(data)) == b""
    silent(minou)


def test_chunks_do_not_count_for_the_rate(join, start_server):
    """A file of 10 MiB is 320 of them: with 5 lines a second it would take 44 s."""
    server = start_server("--rate", "5")
    minou = join("Minou", server)
    data = some_bytes(10 * MIB)
    begin = time.monotonic()
    line = send_file(minou, data)
    assert fetch(minou, line) == data
    minou.say("That was quick")
    assert time.monotonic() - begin < 20


def test_chunks_that_are_refused_do_count(join, start_server):
    server = start_server("--rate", "200")
    minou = join("Minou", server)
    line = json.dumps(chunk(NOBODYS, 0, b"x")).encode() + b"\n"
    begin = time.monotonic()
    minou.send_raw(line * 300)
    for _ in range(300):
        minou.expect("error", code="no_such_file")
    # 100 at once are allowed, and the other 200 take a second.
    assert time.monotonic() - begin > 0.9


def test_chat_arrives_between_the_chunks(join):
    """Who asks for more than they read, still reads soon what is said meanwhile."""
    minou, tigrou = join("Minou"), join("Hasty", receive_buffer=4096)
    data = some_bytes(MIB)
    line = send_file(minou, data)
    assert announced([tigrou]) == line
    for _ in range(100):            # 25 MiB, if all of it came
        ask(tigrou, line["file"])
    assert take(tigrou, line["file"], 0) == data[:CHUNK]
    minou.say("Hello")
    chunks = 0
    while (message := tigrou.read())["type"] == "chunk":
        chunks += 1
    assert message["type"] == "chat" and message["text"] == "Hello"
    # How many lie in the kernel is its affair; but not all that was asked for.
    assert chunks < 200
    tigrou.reset()


def test_a_hundred_requests_and_no_more_wait(join):
    minou, tigrou = join("Minou"), join("Greedy", receive_buffer=4096)
    data = some_bytes(MIB)
    line = send_file(minou, data)
    assert announced([tigrou]) == line
    tigrou.send_raw(b"".join(
        json.dumps({"type": "download", "file": line["file"], "offset": 0}).encode()
        + b"\n" for _ in range(400)))
    came = collections.Counter()
    tigrou.send({"type": "list"})
    while (message := tigrou.read())["type"] != "people":
        came[message["type"]] += 1
        if message["type"] == "error":
            assert message["code"] == "bad_file" and message["file"] == line["file"]
    # (What has been answered by then waits no more, so it can be a few less. And the
    # postman counts what he has taken: up to 64 more can be in the batch.)
    assert 200 <= came["error"] <= 300
    tigrou.reset()
    assert fetch(minou, line) == data       # nobody else has noticed


# --------------------------------------------------------------------------- bad offers

GOOD_NAMES = {
    "../../x": "x", "..\\..\\x": "x", "/etc/passwd": "passwd", "C:\\x": "x",
    "C:\\Users\\..\\x.dll": "x.dll", "a/b\\c/d.png": "d.png", ".bashrc": "bashrc",
    "...x": "x", " . x": "x", "x.png. . ": "x.png", "  x y.png ": "x y.png",
    "CON": "CON", "photo.tar.gz": "photo.tar.gz", "f" * 255: "f" * 255,
    "é😀小猫.png": "é😀小猫.png", "é" * 255: "é" * 255, "x" * 300 + "/y": "y",
    "<b>&amp;\"'%s{}$(id)`id`;.png": "<b>&amp;\"'%s{}$(id)`id`;.png", "-rf": "-rf"}


@pytest.mark.parametrize("name", GOOD_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_comes_without_what_could_harm(join, server, name):
    minou, tigrou = join("Minou"), join("Tigrou")
    line = send_file(minou, b"meow", name)
    assert line["name"] == GOOD_NAMES[name]
    assert announced([tigrou]) == line
    assert fetch(tigrou, line) == b"meow"
    assert server.written_outside() == []


BIDI = [chr(code) for code in (*range(0x202a, 0x202f), *range(0x2066, 0x206a))]


@pytest.mark.parametrize("name", [
    "", " ", ".", "..", "...", " . . ", "/", "a/", "a\\", "a/..", "f" * 256, "é" * 300,
    "a\nb", "a\0b", "a\tb", "a\rb", "a\x1b[31mb", "a\x7fb", "a\x85b", "a\x9bb",
    "a\ud83db.png", "\ude00", *(f"photo{mark}gnp.exe" for mark in BIDI)],
    ids=lambda name: ascii(name)[:20])
def test_a_bad_name(join, server, name):
    minou, tigrou = join("Minou"), join("Tigrou")
    before = tree(server.folder)
    message = offer_line(SMALL, name)
    refused(minou, message, "bad_file", ref=message["ref"])
    silent(minou, tigrou)
    assert tree(server.folder) == before


def test_the_server_gives_its_files_names_of_its_own(join, server):
    minou = join("Minou")
    before = set(tree(server.folder))
    for name in ("Kratzbaum.png", "../Kratzbaum.png", "Kratzbaum.png"):
        send_file(minou, SMALL, name)
    new = set(tree(server.folder)) - before
    assert len(new) == 3
    assert not any("Kratzbaum" in str(path) for path in new)
    assert server.written_outside() == []


@pytest.mark.parametrize("code, fields", [
    ("bad_file", {"size": -1}), ("bad_file", {"size": -10**300}),
    ("file_too_big", {"size": MIB + 1}), ("file_too_big", {"size": 10**18}),
    ("file_too_big", {"size": 10**300}), ("bad_message", {"size": "5"}),
    ("bad_message", {"size": 5.0}), ("bad_message", {"size": True}),
    ("bad_message", {"size": None}), ("bad_message", {"name": 5}),
    ("bad_message", {"name": None}), ("bad_message", {"name": ["x"]}),
    ("bad_message", {"sha256": 5}), ("bad_message", {"sha256": None}),
    ("bad_file", {"sha256": ""}), ("bad_file", {"sha256": "0" * 63}),
    ("bad_file", {"sha256": "0" * 65}), ("bad_file", {"sha256": "g" * 64}),
    ("bad_file", {"sha256": "0" * 64 + "\n"}), ("bad_file", {"sha256": "٣" * 64}),
    ("bad_file", {"sha256": " " + "0" * 63}), ("bad_file", {"sha256": "\ud83d" * 64}),
    ("bad_message", {"to": 5}), ("bad_message", {"to": None}),
    ("no_such_person", {"to": "Nobody"}), ("no_such_person", {"to": ""}),
    ("no_such_person", {"to": "\ud83d"})], ids=lambda value: ascii(value)[:30])
def test_a_bad_offer(join, server, code, fields):
    minou, tigrou = join("Minou"), join("Tigrou")
    before = tree(server.folder)
    message = {**offer_line(SMALL), **fields}
    refused(minou, message, code, ref=message["ref"])
    silent(minou, tigrou)
    assert tree(server.folder) == before


@pytest.mark.parametrize("missing", ["ref", "name", "size", "sha256"])
def test_an_offer_with_something_missing(join, missing):
    minou = join("Minou")
    message = offer_line(SMALL)
    del message[missing]
    error = refused(minou, message, "bad_message")
    assert error.get("ref") == message.get("ref")
    silent(minou)


@pytest.mark.parametrize("ref", ["x" * 65, 5, None, "\ud83d"], ids=ascii)
def test_a_bad_ref(join, ref):
    minou = join("Minou")
    error = refused(minou, {**offer_line(SMALL), "ref": ref}, "bad_message")
    assert "ref" not in error
    silent(minou)


def test_a_hash_may_be_written_large(join):
    minou = join("Minou")
    line = send_file(minou, SMALL, sha256=digest(SMALL).upper())
    assert line["sha256"] == digest(SMALL)
    assert fetch(minou, line) == SMALL


# --------------------------------------------------------------------------- bad chunks

def test_bad_chunks_leave_the_upload_where_it_was(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    ready = offer(minou, SMALL)
    file = ready["file"]
    send_chunks(minou, SMALL, ready, until=2 * CHUNK)
    good = chunk(file, 2 * CHUNK, SMALL[2 * CHUNK:3 * CHUNK])
    bad = [{**good, "data": text} for text in (
        "!!!!", "QQ", "Q", "QUJD=", "QU JD", "QUJD\n", "ÄÄÄÄ", "\ud83d", "QUJD!",
        "____", "=", "QQ==QQ==")]
    bad += [{**good, "offset": place} for place in (
        0, CHUNK, 2 * CHUNK - 1, 2 * CHUNK + 1, 3 * CHUNK, -1, -10**300, len(SMALL),
        10**300)]
    bad += [chunk(file, 2 * CHUNK, piece) for piece in (
        some_bytes(CHUNK + 1), b"\0" * 45_000)]
    for message in bad:
        error = refused(minou, message, "bad_file", file=file)
        assert "ref" not in error
    line = send_rest(minou, SMALL, {**ready, "offset": 2 * CHUNK})
    assert announced([tigrou]) == line
    assert fetch(tigrou, line) == SMALL
    silent(minou, tigrou)


def test_more_bytes_than_were_promised(join):
    minou = join("Minou")
    data = SMALL[:CHUNK + 10]
    ready = offer(minou, data)
    send_chunks(minou, data, ready, until=CHUNK)
    refused(minou, chunk(ready["file"], CHUNK, data[CHUNK:] + b"x"), "bad_file",
            file=ready["file"])
    line = send_rest(minou, data, {**ready, "offset": CHUNK})
    refused(minou, chunk(line["file"], len(data), b"x"), "no_such_file",
            file=line["file"])
    assert fetch(minou, line) == data


@pytest.mark.parametrize("fields", [
    {"data": 5}, {"data": None}, {"data": ["QUJD"]}, {"offset": "0"}, {"offset": 0.0},
    {"offset": False}, {"offset": None}, {"file": True}, {"file": None}], ids=str)
def test_a_chunk_of_the_wrong_kind(join, fields):
    minou = join("Minou")
    ready = offer(minou, SMALL)
    error = refused(minou, {**chunk(ready["file"], 0, SMALL[:10]), **fields},
                    "bad_message")
    assert error.get("file") == (None if "file" in fields else ready["file"])
    assert fetch(minou, send_rest(minou, SMALL, ready)) == SMALL


@pytest.mark.parametrize("kind", ["chunk", "download", "cancel"])
@pytest.mark.parametrize("file", [
    NOBODYS, "", "..", "../../x", "/etc/passwd", "a\0b", "\ud83d", "f" * 20_000,
    "0", "-1", 5], ids=lambda file: ascii(file)[:20])
def test_a_file_that_nobody_knows(join, server, kind, file):
    minou = join("Minou")
    before = tree(server.folder)
    message = {**chunk(file, 0, b"x"), "type": kind}
    error = refused(minou, message, "no_such_file")
    assert error.get("file", file) == file      # (left out where it is too long)
    silent(minou)
    assert tree(server.folder) == before


@pytest.mark.parametrize("letter", ["f", "é", "\0", "😀", '"'], ids=ascii)
def test_no_answer_is_longer_than_a_line_may_be(join, letter):
    """The `file` or `ref` of an error comes from the client, and may fill its line."""
    minou = join("Minou")
    for kind in ("chunk", "download", "cancel", "upload"):
        message = {**offer_line(b"x"), **chunk("", 0, b"x"), "type": kind}
        empty = len(json.dumps(message, ensure_ascii=False))
        each = len(json.dumps(letter, ensure_ascii=False).encode()) - 2
        count = (65_535 - empty) // each
        message["name" if kind == "upload" else "file"] = letter * count
        minou.send_raw(json.dumps(message, ensure_ascii=False).encode() + b"\n")
        line = minou.read_line()
        assert len(line) < 65_536
        assert json.loads(line)["code"] in ("no_such_file", "bad_file")
    silent(minou)


def test_nobody_else_can_write_into_an_upload_or_stop_it(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    ready = offer(minou, SMALL, to="Tigrou")
    file = ready["file"]
    send_chunks(minou, SMALL, ready, until=CHUNK)
    for message in (chunk(file, CHUNK, b"cuckoo"), {"type": "cancel", "file": file},
                    {"type": "download", "file": file, "offset": 0}):
        refused(tigrou, message, "no_such_file", file=file)
    line = send_rest(minou, SMALL, {**ready, "offset": CHUNK})
    assert announced([tigrou]) == line
    assert fetch(tigrou, line) == SMALL


def test_half_a_file_can_be_fetched_by_nobody(join):
    minou = join("Minou")
    ready = offer(minou, SMALL)
    send_chunks(minou, SMALL, ready, until=CHUNK)
    refused(minou, {"type": "download", "file": ready["file"], "offset": 0},
            "no_such_file", file=ready["file"])
    assert fetch(minou, send_rest(minou, SMALL, {**ready, "offset": CHUNK})) == SMALL


def test_a_wrong_hash_is_never_announced(join, server):
    minou, tigrou = join("Minou"), join("Tigrou")
    before = tree(server.folder)
    for data in (SMALL, some_bytes(TURN * CHUNK), b"x"):
        ready = offer(minou, data, sha256=digest(b"something else"), ref="wrong")
        send_chunks(minou, data, ready)
        error = minou.expect("error", skip=["upload_ready"], code="bad_file",
                             file=ready["file"])
        assert error["text"]
        refused(minou, chunk(ready["file"], 0, data[:CHUNK]), "no_such_file")
        refused(minou, {"type": "download", "file": ready["file"], "offset": 0},
                "no_such_file", file=ready["file"])
        silent(tigrou)
        assert tree(server.folder) == before
    line = send_file(minou, SMALL, ref="wrong")         # and the label is free again
    assert announced([tigrou]) == line


def test_an_empty_file_with_the_hash_of_another_one(join, server):
    minou, tigrou = join("Minou"), join("Tigrou")
    before = tree(server.folder)
    message = offer_line(b"", sha256=digest(b"something"))
    minou.send(message)
    minou.expect("error", skip=(*COMINGS, "upload_ready"), code="bad_file")
    silent(minou, tigrou)
    assert tree(server.folder) == before


# ------------------------------------------------------------------------ bad downloads

@pytest.mark.parametrize("size", [0, 1, CHUNK])
def test_offsets_of_a_download(join, size):
    minou = join("Minou")
    line = send_file(minou, some_bytes(size))
    for offset in (-1, size + 1, 10**300, -10**300):
        refused(minou, {"type": "download", "file": line["file"], "offset": offset},
                "bad_file", file=line["file"])
    ask(minou, line["file"], size)
    assert take(minou, line["file"], size) == b""
    silent(minou)


@pytest.mark.parametrize("fields", [
    {"offset": "0"}, {"offset": 0.0}, {"offset": None}, {"offset": True},
    {"file": ["x"]}, {"file": None}], ids=str)
def test_a_download_of_the_wrong_kind(join, fields):
    minou = join("Minou")
    file = send_file(minou, SMALL)["file"]
    error = refused(minou, {"type": "download", "file": file, "offset": 0, **fields},
                    "bad_message")
    assert error.get("file") == (None if "file" in fields else file)


def test_two_downloads_at_once(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    one, two = some_bytes(MIB, 1), some_bytes(MIB, 2)
    files = {send_file(minou, data)["file"]: data for data in (one, two)}
    announced([tigrou])
    announced([tigrou])
    for person in (minou, tigrou):
        for start in range(0, MIB, TURN * CHUNK):
            for file in files:
                ask(person, file, start)
    for person in (minou, tigrou):
        places = dict.fromkeys(files, 0)
        while set(places.values()) != {MIB}:
            message = person.expect("chunk")
            file, place = message["file"], message["offset"]
            assert place == places[file]
            piece = files[file][place:place + CHUNK]
            assert message == {**message, **chunk(file, place, piece)}
            places[file] += len(piece)
        silent(person)


# ------------------------------------------------------------------------------- cancel

def test_an_upload_that_was_cancelled_is_gone(join, server):
    minou, tigrou = join("Minou"), join("Tigrou")
    before = tree(server.folder)
    ready = offer(minou, SMALL, ref="again")
    send_chunks(minou, SMALL, ready, until=CHUNK)
    minou.send({"type": "cancel", "file": ready["file"]})
    refused(minou, chunk(ready["file"], CHUNK, b"the next"), "no_such_file",
            file=ready["file"])
    assert tree(server.folder) == before
    refused(minou, {"type": "cancel", "file": ready["file"]}, "no_such_file",
            file=ready["file"])
    silent(minou, tigrou)
    ready = offer(minou, SMALL, ref="again")
    assert ready["offset"] == 0
    line = send_rest(minou, SMALL, ready)
    assert announced([tigrou]) == line


def test_a_download_that_was_cancelled_ends(join):
    """And the other one, which goes on at the same time, does not."""
    minou, tigrou = join("Minou"), join("Tigrou", receive_buffer=4096)
    data = some_bytes(MIB)
    line = send_file(minou, data)
    other = send_file(minou, data[:CHUNK])
    assert [announced([tigrou]) for _ in "12"] == [line, other]
    for _ in range(40):                 # far more than lies in the kernel
        ask(tigrou, line["file"])
        ask(tigrou, other["file"])
    tigrou.send({"type": "cancel", "file": line["file"]})
    came = collections.Counter()
    while came[other["file"]] < 40:
        message = tigrou.expect("chunk")
        came[message["file"]] += 1
    assert came[line["file"]] < 40 * TURN
    silent(tigrou)
    assert fetch(tigrou, line) == data          # one can ask for it again


# ------------------------------------------------------------------------------- resume

@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("chunks", [0, 1, 11])
def test_an_upload_goes_on_where_it_broke_off(join, how, chunks):
    minou, tigrou = join(f"Broken_{how}_{chunks}"), join("Tigrou")
    minou.expect("joined")
    data = some_bytes(20 * CHUNK + 5)
    ready = offer(minou, data, ref="first")
    send_chunks(minou, data, ready, until=chunks * CHUNK)
    # Half a line more: it is no line, and so none of its bytes count.
    minou.send_raw(json.dumps(chunk(ready["file"], chunks * CHUNK, data[:CHUNK]))
                   .encode()[:30_000])
    getattr(minou, how)()
    tigrou.expect("left", name=minou.name, reason="lost")
    minou = come_back(join, minou)
    tigrou.expect("joined", name=minou.name)
    ready = offer(minou, data, ref="second")
    assert ready["offset"] == chunks * CHUNK
    line = send_rest(minou, data, ready)
    assert line["ref"] == "second"
    assert announced([tigrou]) == line
    assert fetch(tigrou, line) == data
    silent(minou, tigrou)


def test_an_upload_goes_on_while_the_old_connection_stands(join):
    old, tigrou = join("Minou"), join("Tigrou")
    ready = offer(old, SMALL)
    send_chunks(old, SMALL, ready, until=2 * CHUNK)
    new = come_back(join, old)
    old.send(chunk(ready["file"], 2 * CHUNK, b"from the old connection"))
    old.expect("goodbye", reason="replaced")
    again = offer(new, SMALL)
    assert again["offset"] == 2 * CHUNK
    line = send_rest(new, SMALL, again)
    assert announced([tigrou]) == line and fetch(tigrou, line) == SMALL


def test_a_private_upload_goes_on_and_stays_private(join):
    minou, tigrou, felix = join("Broken_private"), join("Tigrou"), join("Felix")
    ready = offer(minou, SMALL, to="Tigrou")
    send_chunks(minou, SMALL, ready, until=3 * CHUNK)
    minou.reset()
    felix.expect("left", reason="lost")
    minou = come_back(join, minou)
    ready = offer(minou, SMALL, to="Tigrou")
    assert ready["offset"] == 3 * CHUNK
    line = send_rest(minou, SMALL, ready)
    assert line["to"] == "Tigrou" and announced([tigrou]) == line
    silent(felix)
    refused(felix, {"type": "download", "file": line["file"], "offset": 0},
            "no_such_file")


def test_nobody_goes_on_with_an_upload_of_somebody_else(join):
    """Who knows a hash does not have the file."""
    minou, tigrou = join("Minou"), join("Tigrou")
    ready = offer(minou, SMALL)
    send_chunks(minou, SMALL, ready, until=4 * CHUNK)
    other = offer(tigrou, SMALL, ref=ready["ref"])
    assert other["offset"] == 0 and other["file"] != ready["file"]
    send_rest(minou, SMALL, {**ready, "offset": 4 * CHUNK})
    announced([tigrou])
    other = offer(tigrou, SMALL)                # nor is one that is whole a short cut
    assert other["offset"] == 0
    send_rest(tigrou, SMALL, other)


def test_two_uploads_of_the_same_bytes(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    readies = [offer(minou, SMALL, name) for name in ("one.png", "two.png")]
    assert readies[0]["file"] != readies[1]["file"]
    assert [ready["offset"] for ready in readies] == [0, 0]
    for start in range(0, len(SMALL), CHUNK):   # a chunk of this, a chunk of that
        for ready in readies:
            minou.send(chunk(ready["file"], start, SMALL[start:start + CHUNK]))
    lines = [minou.expect("file", skip=COMINGS, name=name)
             for name in ("one.png", "two.png")]
    assert [announced([tigrou]) for _ in lines] == lines
    assert [fetch(tigrou, line) for line in lines] == [SMALL, SMALL]


def test_an_offer_made_again_tells_how_far_it_is(join):
    minou = join("Minou")
    ready = offer(minou, SMALL, ref="same")
    send_chunks(minou, SMALL, ready, until=3 * CHUNK)
    again = offer(minou, SMALL, ref="same")
    assert again == {**ready, "offset": 3 * CHUNK}
    line = send_rest(minou, SMALL, again)
    assert fetch(minou, line) == SMALL
    silent(minou)


# ----------------------------------------------------------------------------- receipts

def test_an_offer_made_again_brings_the_receipt_again(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    line = send_file(minou, SMALL, ref="once")
    private = send_file(minou, SMALL, ref="once more", to="Tigrou")
    assert [announced([tigrou]) for _ in "12"] == [line, private]
    for receipt in (line, private, line):
        minou.send(offer_line(SMALL, to=receipt.get("to"), ref=receipt["ref"]))
        assert minou.expect("file", skip=COMINGS) == receipt
    silent(minou, tigrou)
    same_label = send_file(tigrou, SMALL, ref="once")       # a label is one's own
    assert same_label["id"] > private["id"]
    assert minou.expect("file") == same_label


@pytest.mark.parametrize("to", [None, "Tigrou"])
def test_the_receipt_after_the_connection_broke(join, to):
    minou, tigrou, name = join(f"Unsure_{to}"), join("Tigrou"), f"Unsure_{to}"
    ready = offer(minou, SMALL, to=to, ref="sure")
    send_chunks(minou, SMALL, ready)
    line = announced([tigrou], ref="sure")
    minou.reset()
    tigrou.expect("left", name=name, reason="lost")
    again = come_back(join, minou, since=minou.welcome["last_id"])
    assert again.expect("file") == line         # by the history…
    tigrou.expect("joined")
    again.send(offer_line(SMALL, to=to, ref="sure"))
    assert again.expect("file") == line         # …or because she asks
    silent(again, tigrou)


def test_the_empty_file_has_a_receipt_too(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    line = send_file(minou, b"", ref="nothing")
    minou.send(offer_line(b"", ref="nothing"))
    assert minou.expect("file", skip=COMINGS) == line
    assert announced([tigrou]) == line
    silent(minou, tigrou)


@pytest.mark.parametrize("size", [CHUNK + 10, 0])
def test_the_old_connection_and_the_new_one_at_the_same_time(join, server, size):
    """The last chunk is on its way on the old one, when the new one offers again.

    Whichever is first: everybody reads of one file, once, and it is whole.
    """
    old, tigrou = join("Both_ways"), join("Tigrou")
    data, before = some_bytes(size), tree(server.folder)
    for number in range(40):
        ref = f"round {number}"
        last = offer_line(data, ref=ref)
        if size:        # (a receipt that was asked for again can come late)
            ready = offer(old, data, ref=ref, skip=("joined", "file", "error"))
            send_chunks(old, data, ready, until=CHUNK)
            last = chunk(ready["file"], CHUNK, data[CHUNK:])
        new = join()
        hello = {"type": "hello", "name": "", "version": 1, "since": 10**9,
                 "session": old.welcome["session"]}
        for person, message in ((new, hello), (old, last))[::1 - 2 * (number % 2)]:
            person.send(message)
        new.expect("welcome", resumed=True)
        new.send(offer_line(data, ref=ref))
        while (message := new.read()).get("ref") != ref or message["type"] != "file":
            assert message["type"] in ("upload_ready", "file")
            for place in range(message.get("offset", size), size, CHUNK):
                new.send(chunk(message["file"], place, data[place:place + CHUNK]))
        assert announced([tigrou]) == message
        assert fetch(tigrou, message) == data
        new.send({"type": "list"})
        while (message := new.read())["type"] != "people":
            assert message["type"] in ("file", "error")     # and not “go on”
        old.close()
        old = new
    assert len(tree(server.folder)) == len(before) + 40     # nothing half is left
    silent(tigrou)


# ------------------------------------------------------------------------- a great many

def test_sixteen_uploads_at_once_and_no_more(join, server):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.expect("joined")
    before = tree(server.folder)
    parts = [some_bytes(CHUNK + number, number) for number in range(100)]
    for number, data in enumerate(parts):
        minou.send(offer_line(data, ref=str(number)))
    readies = [minou.expect("upload_ready", ref=str(number), offset=0)
               for number in range(16)]
    for number in range(16, 100):
        assert minou.expect("error", code="files_full", ref=str(number))["text"]
    for start in (0, CHUNK):
        for ready, data in zip(readies[1:], parts[1:]):
            minou.send(chunk(ready["file"], start, data[start:start + CHUNK]))
    lines = [minou.expect("file", size=CHUNK + number) for number in range(1, 16)]
    assert [announced([tigrou]) for _ in lines] == lines
    for line, data in zip(lines, parts[1:]):
        assert fetch(tigrou, line) == data
    minou.send({"type": "cancel", "file": readies[0]["file"]})
    silent(minou)
    assert len(tree(server.folder)) == len(before) + 15
    for number in range(16):            # all places are free again
        offer(minou, parts[number])
    refused(minou, offer_line(parts[20]), "files_full")


def test_what_was_given_up_makes_room_for_what_is_new(join, server):
    """Sixteen broke off; who comes back has other files to send now."""
    minou, tigrou = join("Another_mind"), join("Tigrou")
    minou.expect("joined")
    before = tree(server.folder)
    for number in range(16):
        offer(minou, some_bytes(CHUNK, number))
    minou.reset()
    tigrou.expect("left", skip=["joined"], reason="lost")
    minou = come_back(join, minou)
    readies = [offer(minou, some_bytes(CHUNK + 1, number)) for number in range(16)]
    assert len(tree(server.folder)) == len(before) + 16
    refused(minou, offer_line(SMALL), "files_full")
    for number, ready in enumerate(readies):
        send_rest(minou, some_bytes(CHUNK + 1, number), ready)


def test_a_hundred_people_send_a_file_at_once(join, start_server):
    server = start_server("--rate", "0", "--recent", "0")
    people = [join(f"Cat{number}", server) for number in range(100)]
    parts = [some_bytes(CHUNK + number, number) for number in range(100)]
    for person, data in zip(people, parts):
        person.send(offer_line(data))
    readies = [person.expect("upload_ready", skip=COMINGS) for person in people]
    for start in (0, CHUNK):
        for person, ready, data in zip(people, readies, parts):
            person.send(chunk(ready["file"], start, data[start:start + CHUNK]))
    seen = [[person.expect("file") for _ in people] for person in people]
    assert all(lines == seen[0] for lines in seen)
    by_name = {line["from"]: line for line in seen[0]}
    for person, data, number in zip(people, parts, range(100)):
        neighbour = people[number - 1]
        assert fetch(neighbour, by_name[person.name]) == data


def test_a_thousand_unfinished_uploads_and_no_more(join, start_server):
    """So nobody can fill the server's memory with them; nor push out those of others,
    while they are here. Who has gone makes room."""
    server = start_server("--rate", "0", "--recent", "0")
    people = [join(f"Cat{number}", server) for number in range(63)]
    data = some_bytes(3)
    answers = []
    for person in people:
        messages = [offer_line(data) for _ in range(16)]
        person.send_raw(b"".join(json.dumps(message).encode() + b"\n"
                                 for message in messages))
        for message in messages:
            answers.append(person.read())
            while answers[-1]["type"] in COMINGS:
                answers[-1] = person.read()
            assert answers[-1]["ref"] == message["ref"]
    assert [answer["type"] for answer in answers] == (
        ["upload_ready"] * 1000 + ["error"] * 8)
    assert {answer.get("code") for answer in answers[1000:]} == {"files_full"}
    first, last = people[0], people[-1]
    line = send_rest(first, data, answers[0])
    assert fetch(first, line) == data
    first.reset()
    last.expect("left", skip=("joined", "file"))
    for _ in range(8):
        offer(last, data)


# ------------------------------------------------------------------------------ no room

@pytest.fixture
def small_server(tls, tmp_path):
    """A server with room for 1 MiB of files, and an operator."""
    with ServerInAFolder(tmp_path, "--max-file", "1", "--all-files", "1", *tls,
                         console=True) as process:
        yield process


def kept_bytes(server):
    return sum(tree(server.files).values())


def test_when_there_is_no_room_left(small_server, join):
    minou, tigrou = join("Minou", small_server), join("Tigrou", small_server)
    minou.expect("joined")
    first = send_file(minou, some_bytes(700_000))
    message = offer_line(some_bytes(MIB - 700_000 + 1))
    refused(minou, message, "files_full", ref=message["ref"])
    exact = some_bytes(MIB - 700_000)
    second = send_file(minou, exact)
    assert kept_bytes(small_server) == MIB
    message = offer_line(b"x")
    refused(tigrou, message, "files_full", skip=("file", *COMINGS), ref=message["ref"])
    assert fetch(minou, second) == exact
    assert fetch(minou, first) == some_bytes(700_000)


def test_what_has_arrived_of_half_files_takes_room_too(small_server, join):
    minou, tigrou = join("Minou", small_server), join("Tigrou", small_server)
    data = some_bytes(800_000)
    ready = offer(minou, data)
    send_chunks(minou, data, ready, until=20 * CHUNK)
    message = offer_line(data)
    refused(tigrou, message, "files_full", ref=message["ref"])
    minou.send({"type": "cancel", "file": ready["file"]})
    silent(minou)
    line = send_file(tigrou, data)
    assert fetch(minou, announced([minou])) == data and line["from"] == "Tigrou"


def test_two_files_that_do_not_both_fit_in(small_server, join):
    """Both were offered when there was room for each of them."""
    minou, tigrou = join("Minou", small_server), join("Tigrou", small_server)
    data = some_bytes(700_000)
    ready, other = offer(minou, data), offer(tigrou, data)
    send_chunks(minou, data, ready, until=15 * CHUNK)
    send_chunks(tigrou, data, other, until=15 * CHUNK)
    place = 15 * CHUNK
    for start in range(place, len(data), CHUNK):
        tigrou.send(chunk(other["file"], start, data[start:start + CHUNK]))
    error = tigrou.expect("error", skip=["upload_ready"], code="files_full",
                          file=other["file"])
    assert error["text"] and kept_bytes(small_server) <= MIB
    tigrou.send({"type": "cancel", "file": other["file"]})
    tigrou.send({"type": "list"})
    tigrou.expect("people", skip=["error", "upload_ready"])
    line = send_rest(minou, data, {**ready, "offset": 15 * CHUNK})
    assert fetch(tigrou, announced([tigrou])) == data and line["size"] == len(data)


class Chaos:
    """Somebody who does all that one can do with files, by chance."""

    def __init__(self, join, server, number, chance):
        self.join, self.server, self.chance = join, server, chance
        self.person = join(f"Cat{number}", server)
        self.readies = {}               # what is on its way: file -> [data, offset]
        self.lines = {}                 # what was announced: file -> line
        self.whole = {}                 # file -> data

    def act(self):
        getattr(self, self.chance.choice(
            ["offer", "go_on", "go_on", "go_on", "spoil", "cancel", "vanish"]))()
        self.settle()

    def settle(self):
        """Read all that has come."""
        self.person.send({"type": "list"})
        while (message := self.person.read())["type"] != "people":
            self.note(message)

    def note(self, message):
        if message["type"] == "file":
            self.lines[message["file"]] = message
            self.readies.pop(message["file"], None)
        elif message["type"] == "upload_ready" and message["file"] in self.readies:
            assert message["offset"] == self.readies[message["file"]][1]
        elif message["type"] == "error" and message["code"] == "no_such_file":
            self.readies.pop(message.get("file"), None)

    def offer(self):
        data = some_bytes(self.chance.choice([0, 1, 5, CHUNK, 40_000, 200_000]),
                          self.chance.random())
        message = offer_line(data, sha256=digest(
            data if self.chance.random() < 0.8 else b"something else"))
        self.person.send(message)
        while (answer := self.person.read()).get("ref") != message["ref"]:
            self.note(answer)
        if answer["type"] == "upload_ready":
            self.readies[answer["file"]] = [data, 0]
            self.whole[answer["file"]] = data

    def go_on(self):
        for file, half in list(self.readies.items())[-2:]:
            piece = half[0][half[1]:half[1] + CHUNK]
            message = chunk(file, half[1], piece)
            half[1] += len(piece)
            self.person.send(message)
            self.person.send({"type": "list"})
            while (answer := self.person.read())["type"] != "people":
                if answer.get("code") == "files_full":
                    half[1] -= len(piece)
                elif answer.get("code") == "bad_file":
                    del self.readies[file]
                self.note(answer)

    def spoil(self):
        for file, half in list(self.readies.items())[:2]:
            self.person.send(chunk(file, half[1] + 1, b"too early"))
            self.person.send(chunk(file, half[1], b"x" * (len(half[0]) + 1))
                             if len(half[0]) < CHUNK else chunk(file, -1, b"x"))

    def cancel(self):
        for file in list(self.readies)[:1]:
            del self.readies[file]
            self.person.send({"type": "cancel", "file": file})

    def vanish(self):
        """The connection breaks; what was on its way is given up."""
        self.readies.clear()
        self.person.reset()
        self.person = come_back(self.join, self.person, self.server)


def test_the_books_balance_whatever_happens(join, small_server):
    """What counts for --all-files is what lies in the folder, after 600 steps too."""
    chance = random.Random(7)
    cats = [Chaos(join, small_server, number, chance) for number in range(4)]
    watcher = join("Watcher", small_server)
    lines = {}
    for step in range(600):
        chance.choice(cats).act()
        assert kept_bytes(small_server) <= MIB
        if step % 50 == 49:             # there would soon be no more room
            for line in read_files(watcher):
                lines[line["file"]] = line
                whole = next(cat.whole[line["file"]] for cat in cats
                             if line["file"] in cat.whole)
                if line["size"]:
                    assert fetch(watcher, line) == whole
                small_server.type_line(f"/remove {line['id']}")
            small_server.type_line(f"/step-{step}")
            small_server.wait_for_line(f"/step-{step}")
    assert len(lines) > 30
    for cat in cats:
        cat.settle()
        cat.vanish()
        cat.person.leave()
    send_file(watcher, some_bytes(1000), skip=("file", *COMINGS))
    # What is whole stays; what is half, of people who have gone, makes room.
    whole = [path for path in small_server.files.iterdir() if path.suffix != ".part"]
    room = MIB - sum(path.stat().st_size for path in whole)
    assert 0 < room < MIB
    refused(watcher, offer_line(bytes(room + 1)), "files_full", skip=("file", *COMINGS))
    data = some_bytes(room)
    assert fetch(watcher, send_file(watcher, data)) == data


def read_files(person):
    """All `file` lines that have come to somebody."""
    person.send({"type": "list"})
    came = []
    while (message := person.read())["type"] != "people":
        came += [message] if message["type"] == "file" else []
    return came


# ------------------------------------------------------------------------- the operator

def number_of(server, line):
    """The number that /files shows for this file."""
    server.type_line("/files")
    shown = server.wait_for_line(rf"\b(\S+)\b.*{re.escape(line['name'])}")[0]
    return re.search(r"\d+", shown.split("  ", 1)[1])[0]


def test_the_operator_lists_files_and_removes_one(small_server, join):
    minou, tigrou = join("Minou", small_server), join("Tigrou", small_server)
    small_server.type_line("/files")
    small_server.wait_for_line("(?i)no files|nothing|0 files")
    keep = send_file(minou, SMALL, "keep.png")
    away = send_file(minou, some_bytes(700_000), "away.png")
    number = number_of(small_server, away)
    small_server.type_line(f"/remove {number}")
    # When it has gone there is room for one of the same size.
    small_server.wait_for_line(r"(?i)removed|gone")
    refused(tigrou, {"type": "download", "file": away["file"], "offset": 0},
            "no_such_file", skip=("file", *COMINGS), file=away["file"])
    assert kept_bytes(small_server) == len(SMALL)
    line = send_file(tigrou, some_bytes(880_000), skip=("file", *COMINGS))
    assert len(fetch(tigrou, line)) == 880_000
    assert fetch(minou, keep, skip=("file", *COMINGS)) == SMALL


def test_the_operator_removes_what_is_not_there(join, server):
    minou = join("Minou")
    line = send_file(minou, SMALL)
    before, count = tree(server.folder), len(server.lines)
    wrong = ["", "0", "-1", "999999", "x", "../../x", "1 2", "9" * 5000, "\u0663"]
    for words in wrong:
        server.type_line(f"/remove {words}")
    server.type_line("/that-was-all")
    server.wait_for_line("no command /that-was-all")
    answers = [text for text in server.lines[count:] if "/files shows" in text]
    assert len(answers) == len(wrong)
    assert "Traceback" not in "\n".join(server.lines)
    assert tree(server.folder) == before
    assert fetch(minou, line) == SMALL


def test_removed_while_somebody_fetches_it(small_server, join):
    minou, tigrou = join("Minou", small_server), join(
        "Tigrou", small_server, receive_buffer=4096)
    data = some_bytes(MIB)
    line = send_file(minou, data, "big.png")
    assert announced([tigrou]) == line
    for _ in range(90):
        ask(tigrou, line["file"])
    assert take(tigrou, line["file"], 0) == data[:CHUNK]
    small_server.type_line(f"/remove {number_of(small_server, line)}")
    small_server.wait_for_line(r"(?i)removed|gone")
    tigrou.send({"type": "chat", "text": "and now?"})
    came = collections.Counter()
    while came["chat"] < 1 or came["error"] < 1:
        message = tigrou.read()
        came[message["type"]] += 1
        if message["type"] == "chunk":
            place = message["offset"]
            assert message["data"] == chunk("", 0, data[place:place + CHUNK])["data"]
        elif message["type"] == "error":
            assert (message["code"], message["file"]) == ("no_such_file", line["file"])
    assert kept_bytes(small_server) == 0
    tigrou.reset()


def test_who_is_muted_sends_no_files_but_fetches_them(join, server):
    minou, tigrou = join("Minou"), join("Muted")
    line = send_file(minou, SMALL)
    assert announced([tigrou]) == line
    server.type_line("/mute Muted")
    server.wait_for_line("“Muted” can only read")
    message = offer_line(SMALL)
    refused(tigrou, message, "muted", ref=message["ref"])
    assert fetch(tigrou, line) == SMALL
    server.type_line("/mute Muted 0")
    server.wait_for_line("“Muted” can write again")
    line = send_file(tigrou, SMALL)
    assert announced([minou]) == line


def test_muted_while_a_file_is_on_its_way(join, server):
    minou, tigrou = join("Minou"), join("Muted2")
    minou.expect("joined")
    before = tree(server.folder)
    ready = offer(tigrou, SMALL)
    send_chunks(tigrou, SMALL, ready, until=CHUNK)
    server.type_line("/mute Muted2")
    server.wait_for_line("“Muted2” can only read")
    send_chunks(tigrou, SMALL, {**ready, "offset": CHUNK})
    tigrou.expect("error", code="muted", file=ready["file"])
    minou.silence()
    assert tree(server.folder) == before


def test_who_it_was_for_leaves_while_it_is_on_its_way(join, server):
    """And somebody else takes the name: it is not for them."""
    minou, tigrou = join("Minou"), join("Tigrou")
    before = tree(server.folder)
    ready = offer(minou, SMALL, to="Tigrou")
    send_chunks(minou, SMALL, ready, until=CHUNK)
    tigrou.leave()
    tigrou = join("Tigrou")
    send_chunks(minou, SMALL, {**ready, "offset": CHUNK})
    minou.expect("error", skip=COMINGS, code="no_such_person", file=ready["file"])
    silent(minou, tigrou)
    assert tree(server.folder) == before


def test_who_it_is_for_comes_back_while_it_is_on_its_way(join):
    minou, tigrou = join("Minou"), join("Back_again")
    ready = offer(minou, SMALL, to="Back_again")
    send_chunks(minou, SMALL, ready, until=CHUNK)
    tigrou.reset()
    minou.expect("left", skip=["joined"], reason="lost")
    tigrou = come_back(join, tigrou)
    line = send_rest(minou, SMALL, {**ready, "offset": CHUNK})
    assert announced([tigrou]) == line
    assert fetch(tigrou, line) == SMALL


def test_kicked_in_the_middle_of_everything(join, server):
    minou, tigrou = join("Minou"), join("Kicked", receive_buffer=4096)
    line = send_file(minou, some_bytes(MIB))
    assert announced([tigrou]) == line
    ready = offer(tigrou, SMALL)
    send_chunks(tigrou, SMALL, ready, until=CHUNK)
    other = offer(minou, SMALL)
    send_chunks(minou, SMALL, other, until=CHUNK)
    for _ in range(50):
        ask(tigrou, line["file"])
    server.type_line("/kick Kicked")
    minou.expect("left", skip=["joined"], name="Kicked", reason="kicked")
    came = tigrou.until_closed()
    assert came[-1]["reason"] == "kicked"
    # Everybody else goes on, and who was kicked may come back and go on, too.
    mine = send_rest(minou, SMALL, {**other, "offset": CHUNK})
    tigrou = come_back(join, tigrou, since=line["id"])
    assert announced([tigrou]) == mine
    ready = offer(tigrou, SMALL)
    assert ready["offset"] in (0, CHUNK)
    assert fetch(minou, send_rest(tigrou, SMALL, ready),
                 skip=("file", *COMINGS)) == SMALL
