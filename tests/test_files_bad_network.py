"""Files through a network that breaks: they arrive whole, and nothing starts over.

The people here come back with their session whenever the connection is reset, and go on
with the byte that is due. It breaks so often that who began anew each time would never
come to an end; and what they send, and how often they ask, is counted.
"""
import contextlib
import time

import pytest

from bad_network import BadNetwork
from parcels import (
    AHEAD, CHUNK, TURN, ask, digest, offer_line, send_chunks, send_rest, some_bytes,
    take)
from people import COMINGS, TLS_CONTEXT, Person
from test_plain_lines import Plain

SIZE = 10 * 2**20       # 320 chunks
EVERY = 40              # lines until the connection breaks: 20 to 60
# In TLS a network sees no lines, but bytes as if by chance, every 256th of them a "\n".
# A line with a chunk has about 43,780 bytes.
LINES_OF_TLS = 43_780 // 256

# The client as it is, but back at once: by itself it waits 1 s, each time it breaks.
AT_ONCE = """
import os, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
import ChattyCat_Client
ChattyCat_Client.FIRST_PAUSE = 0.03
sys.exit(ChattyCat_Client.main())
"""


class Broken(Exception):
    """A connection has ended, as the network wanted it. No failure of the test."""


class Traveller(Person):
    """Somebody who comes back, with the session, as often as the connection breaks."""

    def __init__(self, network, name, tls):
        self.network, self.called, self.context = network, name, tls
        self.session, self.since = {}, 0
        self.offset = 0         # so far the server has all of our upload
        self.data = b""         # what has come of our download
        self.breaks = self.sent = self.asked = 0    # (chunks sent, downloads asked)
        self.come_in()

    def come_in(self):
        super().__init__(self.network, tls=self.context)    # with a new socket
        self.name = self.called
        since = {"since": self.since} if self.session else {}
        self.hello(self.name, **self.session, **since)
        welcome = self.expect("welcome", resumed=bool(self.session))
        self.session = {"session": welcome["session"]}

    def insist(self, do, *values):
        """Do it, from its beginning each time that the connection breaks in between."""
        while True:
            with contextlib.suppress(Broken, ConnectionError):
                if self.ended:
                    self.come_in()
                return do(*values)
            self.close()
            self.breaks += 1
            assert self.breaks < 100, "it does not come to an end"

    def read_line(self, limit=5):
        try:
            line = super().read_line(limit)
        except ConnectionError:
            line = None
        if line is None:
            raise Broken
        return line

    def read(self, limit=5):
        message = super().read(limit)
        self.since = max(self.since, message.get("id", 0))
        if message["type"] == "upload_ready":
            assert message["offset"] >= self.offset, "what has arrived is forgotten"
            self.offset = message["offset"]
        return message

    def send(self, message):
        self.sent += message["type"] == "chunk"
        self.asked += message["type"] == "download"
        super().send(message)

    def upload(self, data, to=None):
        """Offer it (again), send what is missing; return the `file` line."""
        self.send(offer_line(data, to=to, ref="mine"))
        answer = self.read()
        while answer["type"] in COMINGS:
            answer = self.read()
        if answer["type"] == "file":        # only our receipt was lost
            assert answer["ref"] == "mine"
            return answer
        assert answer["type"] == "upload_ready", self
        return send_rest(self, data, answer)

    def download(self, line, until=SIZE):
        """Fetch what is missing of a file, up to the byte `until` or soon behind it."""
        size = line["size"]
        while len(self.data) < min(until, size):
            ask(self, line["file"], len(self.data))
            end = min(size, len(self.data) + TURN * CHUNK)
            while len(self.data) < end:
                self.data += take(self, line["file"], len(self.data), skip=(
                    *COMINGS, "file"))

    def check_upload(self, data):
        """That nothing was sent twice but what was on its way when it broke."""
        assert self.sent <= len(data) / CHUNK + self.breaks * AHEAD

    def check_download(self, data):
        """That it is all here. (take() took nothing but the byte that was due.)"""
        assert digest(self.data) == digest(data)
        assert self.asked <= len(data) / CHUNK / TURN + 1 + self.breaks


@pytest.fixture
def bad_network(tls):
    """A function that makes a network to a server, which breaks after `every` lines."""
    with contextlib.ExitStack() as networks:
        def make(server, seed, every=EVERY, **trouble):
            return networks.enter_context(BadNetwork(
                (server.host, server.port), seed=seed, **trouble,
                reset_every=every * LINES_OF_TLS if tls else every))
        yield make


@pytest.fixture
def travel(tls, bad_network):
    """A function that lets somebody come in through a bad network of their own."""
    with contextlib.ExitStack() as people:
        def come_in(server, name, *every, **trouble):
            network = bad_network(server, name, *every, **trouble)
            return people.enter_context(
                Traveller(network, name, TLS_CONTEXT if tls else None))
        yield come_in


@pytest.fixture
def client(bad_network):
    """A function that starts a real client, in plain lines, behind a bad network."""
    with contextlib.ExitStack() as clients:
        def come_in(server, name, every=EVERY, seed=1):
            options = ["--name", name]
            if server.tls:
                options += ["--tls", "--fingerprint", server.fingerprint()]
            network = bad_network(server, f"{seed} {name}", every)
            plain = Plain(network, *options, python=["-c", AT_ONCE])
            plain.network = network
            clients.callback(plain.close)
            plain.wait_for(f"You are in as {name}; ")
            return plain
        yield come_in


over_both = pytest.mark.parametrize("tls", ["tcp", "tls"], indirect=True)


@pytest.mark.parametrize("tls, to", [
    ("tcp", None), ("tls", "Tigrou"),
    pytest.param("tls", None, marks=pytest.mark.long),
    pytest.param("tcp", "Tigrou", marks=pytest.mark.long)], indirect=["tls"])
def test_ten_mib_up_and_down(start_server, travel, to):
    server = start_server()
    data = some_bytes(SIZE)
    minou, tigrou = travel(server, "Minou"), travel(server, "Tigrou")
    line = minou.insist(minou.upload, data, to)
    minou.check_upload(data)
    assert line["sha256"] == digest(data)
    assert tigrou.insist(tigrou.expect, "file", COMINGS) == line
    tigrou.insist(tigrou.download, line)
    tigrou.check_download(data)
    for person in (minou, tigrou):
        assert person.breaks >= 5, "then this has tested little"


@pytest.mark.parametrize("tls", ["tcp", pytest.param("tls", marks=pytest.mark.long)],
                         indirect=True)
def test_in_odd_pieces(start_server, travel):
    """The same with lines in pieces of 1 byte to 2 KiB, and late."""
    server = start_server()
    data = some_bytes(SIZE // (50 if server.tls else 100))  # no whole number of chunks
    trouble = {"every": 4, "split": True, "delay": 2, "jitter": 2}
    minou, tigrou = travel(server, "Minou", **trouble), travel(
        server, "Tigrou", **trouble)
    line = minou.insist(minou.upload, data)
    minou.check_upload(data)
    assert tigrou.insist(tigrou.expect, "file", COMINGS) == line
    tigrou.insist(tigrou.download, line)
    tigrou.check_download(data)
    assert minou.breaks and tigrou.breaks


@over_both
def test_only_the_receipt_is_lost(start_server, travel):
    """It comes again, the same; and nobody sees the file twice."""
    server = start_server()
    data = some_bytes(SIZE // 64)
    minou, tigrou = travel(server, "Minou", 10**6), travel(server, "Tigrou", 10**6)
    minou.send(offer_line(data, ref="mine"))
    send_chunks(minou, data, minou.expect("upload_ready", skip=COMINGS))
    line = tigrou.expect("file")
    minou.reset()
    minou.come_in()
    assert minou.expect("file", skip=COMINGS) == line       # as to everybody
    assert minou.upload(data) == line                       # as its receipt
    assert minou.sent == len(data) // CHUNK
    tigrou.send({"type": "list"})
    tigrou.expect("people", skip=COMINGS)


def kill_and_start(server, start_server, options, *networks):
    """As a power cut does it; return the next server, on another port."""
    server.kill()
    server.process.returncode = 0           # it is not to blame for that
    server = start_server(*options)
    for network in networks:
        network.target = server.host, server.port
    return server


def test_a_download_goes_on_behind_a_kill(start_server, travel, tmp_path):
    """The server dies, and there is a new one with the same --history and --files."""
    options = ["--history", tmp_path / "history", "--files", tmp_path / "files"]
    data = some_bytes(SIZE // 8)
    server = start_server(*options)
    minou = travel(server, "Minou")
    line = minou.insist(minou.upload, data)
    minou.insist(minou.download, line, len(data) // 2)
    kill_and_start(server, start_server, options, minou.network)
    minou.insist(minou.download, line)
    minou.check_download(data)


@over_both
def test_two_real_clients(start_server, client, tmp_path):
    server = start_server()
    data, sent, kept = some_bytes(SIZE), tmp_path / "photo.bin", tmp_path / "kept"
    sent.write_bytes(data)
    kept.mkdir()
    minou, tigrou = client(server, "Minou"), client(server, "Tigrou")
    minou.type_line(f"/file {sent}")
    offered = tigrou.wait_for(
        r"Minou: photo\.bin \(10\.0 MiB\) — /save (\d+) saves it", 60)
    tigrou.type_line(f"/save {offered[1]} {kept}")
    saved = tigrou.wait_for(r"photo\.bin is saved as (.*)$", 60)
    assert saved[1] == str(kept / "photo.bin")
    assert digest((kept / "photo.bin").read_bytes()) == digest(data)
    assert [path.name for path in kept.iterdir()] == ["photo.bin"]
    # Each is said once, however often the connection breaks.
    minou.wait_for(r"  Minou: photo\.bin \(10\.0 MiB\)$")
    assert minou.text.count("Sending photo.bin") == 1
    assert minou.text.count("Minou: photo.bin") == 1
    assert tigrou.text.count("saves it") == tigrou.text.count("is saved as") == 1
    for each in (minou, tigrou):
        assert "Traceback" not in each.text
        assert each.network.resets >= 5, "then this has tested little"


def wait_for_some_of(folder, name, limit=20):
    """Wait until there is a file with such a name, and something in it."""
    end = time.monotonic() + limit
    with contextlib.suppress(FileNotFoundError):    # renamed just now: it was there
        while not any(path.stat().st_size for path in folder.glob(name)):
            assert time.monotonic() < end, list(folder.iterdir())
            time.sleep(0.002)               # there is no event for a file that grows


def test_two_real_clients_and_killed_servers(start_server, client, tmp_path):
    """Once while it is sent, and once while it is saved. (What was half there is gone
    with the server; so the first one is sent from the beginning.)"""
    options = ["--history", tmp_path / "history", "--files", tmp_path / "files"]
    server = start_server(*options)
    data, sent, kept = some_bytes(SIZE), tmp_path / "photo.bin", tmp_path / "kept"
    sent.write_bytes(data)
    kept.mkdir()
    minou, tigrou = client(server, "Minou"), client(server, "Tigrou")
    networks = minou.network, tigrou.network
    minou.type_line(f"/file {sent}")
    wait_for_some_of(tmp_path / "files", "*.part")
    server = kill_and_start(server, start_server, options, *networks)
    offered = tigrou.wait_for(r"Minou: photo\.bin .* — /save (\d+) saves it", 60)
    tigrou.type_line(f"/save {offered[1]} {kept}")
    wait_for_some_of(kept, "photo.bin.part")
    kill_and_start(server, start_server, options, *networks)
    tigrou.wait_for(r"photo\.bin is saved as ", 60)
    assert digest((kept / "photo.bin").read_bytes()) == digest(data)
    assert tigrou.text.count("saves it") == 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_both_ways_and_the_chat(start_server, client, tmp_path, seed):
    """Both send, save and talk at the same time; it breaks after 5 to 15 lines."""
    server = start_server("--rate", "0")
    minou, tigrou = [client(server, name, 10, seed) for name in ("Minou", "Tigrou")]
    both = {"Minou": minou, "Tigrou": tigrou}
    data = {name: some_bytes(SIZE // 8, name) for name in both}
    for name, each in both.items():
        (tmp_path / f"{name}.bin").write_bytes(data[name])
        each.type_line(f"/file {tmp_path / name}.bin")
    for number in range(20):
        for name, each in both.items():
            each.type_line(f"{name} says {number}")
    for name, each in both.items():
        other = "Tigrou" if each is minou else "Minou"
        (tmp_path / f"for {name}").mkdir()
        offered = each.wait_for(rf"{other}: .*\.bin .* — /save (\d+) saves it", 60)
        each.type_line(f'/save {offered[1]} "{tmp_path / f"for {name}"}"')
    for name, each in both.items():
        each.wait_for(r"\.bin is saved as ", 60)
        each.wait_for("Minou says 19(.|\n)*Tigrou says 19|"
                      "Tigrou says 19(.|\n)*Minou says 19", 30)
        [path] = (tmp_path / f"for {name}").iterdir()
        assert digest(path.read_bytes()) == digest(data[path.stem])
        said = [line for line in each.printed if " says " in line]
        assert len(said) == len(set(said)) == 40, said
        assert "Traceback" not in each.text
