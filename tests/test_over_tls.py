"""TLS: the filter, the bad network, and both directions at full speed.

That the whole protocol is the same over TLS is shown elsewhere: the tests of it run
twice, see OVER_TLS in conftest.py. (`python3 -m tests -k "[tls"` runs the second half.)
"""
import collections
import hashlib
import json
import random
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

import ChattyCat_Server
import test_nothing_is_lost
from bad_network import BadNetwork
from ChattyCat_Server import TLS, decode, encode, lines
from people import TLS_CONTEXT, Person, ServerProcess, tls_context
from test_coming_back import Walker
from test_nothing_is_lost import Cat, make_world    # (a fixture)

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
VERSION_NAMES = [version.name for version in VERSIONS]
TEXT = "née, 猫, 🐈\n".encode() * 3


@pytest.fixture(scope="module")
def tls(certificate):
    """All servers of this file speak TLS."""
    return ["--tls", "--cert", certificate]


# -------------------------------------------------- the filter alone, without a network

class End:
    """One end of a connection without a network: what it sends lies in the other's
    inbox, and a test can change it there."""

    def __init__(self, context, server_side):
        self.tls = TLS(context, server_side)
        self.inbox = bytearray()
        self.other, self.flushes = None, 0

    def send(self, data):
        self.other.inbox += self.tls.encrypt(data)

    def flush(self):
        self.flushes += 1
        self.send(b"")

    def receive(self, size):
        piece = bytes(self.inbox[:size])
        del self.inbox[:size]
        return piece

    def read(self, size=10**9):
        """All that has come, taken from the inbox in pieces of this size."""
        plain = bytearray()
        while piece := self.tls.read(lambda: self.receive(size), self.flush):
            plain += piece
        return plain


def two_ends(options, version=VERSIONS[-1]):
    """(the client's end, the server's) before the handshake."""
    context, _ = ChattyCat_Server.tls_context(
        ChattyCat_Server.read_options(options))
    ends = End(tls_context(version), False), End(context, True)
    ends[0].other, ends[1].other = ends[1], ends[0]
    return ends


def shake_hands(client, server, size=10**9):
    client.tls.decrypt(b"")         # nothing has come yet: so it is we who begin
    client.send(b"")
    for _ in range(3):
        assert server.read(size) == b"" and client.read(size) == b""
    assert client.tls.ready and server.tls.ready


@pytest.fixture(params=VERSIONS, ids=VERSION_NAMES)
def ends(tls, request):
    """The two ends of a connection that stands."""
    client, server = two_ends(tls, request.param)
    shake_hands(client, server)
    return client, server


def test_the_handshake_is_what_flush_is_for(ends):
    for end in ends:
        assert end.flushes          # nobody had anything to say but TLS itself
        assert not end.inbox and not end.tls.leaving.pending
    for one, other in (ends, ends[::-1]):
        one.send(TEXT)
        assert "猫".encode() in TEXT and "猫".encode() not in other.inbox
        assert other.read() == TEXT


def test_what_is_said_before_the_handshake_is_lost(tls):
    client, server = two_ends(tls)
    client.tls.decrypt(b"")
    client.send(b"too early")
    server.send(b"too early")
    shake_hands(client, server)
    client.send(b"now")
    assert server.read() == b"now"


@pytest.mark.parametrize("size", [1, 2, 5, 4096])
def test_in_whatever_pieces_it_arrives(tls, size):
    client, server = two_ends(tls)
    shake_hands(client, server, size)
    said = TEXT * 300
    for one, other in ((client, server), (server, client)):
        one.send(said)
        one.send(b"and more")
        assert other.read(size) == said + b"and more"


@pytest.mark.parametrize("size", [4096, 10**9])
def test_two_mebibytes_at_once(ends, size):
    said = random.Random(1).randbytes(2 * 2**20)
    for one, other in (ends, ends[::-1]):
        one.send(said)
        assert len(said) < len(other.inbox) < 1.01 * len(said)
        assert other.read(size) == said


def test_two_threads_at_once(ends):
    """One encrypts, the other decrypts. Without the lock, each Python fails here."""
    client, server = ends
    pieces = [b"%d" % number for number in range(10_000)]
    arrived = [client.tls.encrypt(piece) for piece in pieces]
    leaving = []
    sender = threading.Thread(
        target=lambda: leaving.extend(map(server.tls.encrypt, pieces)))
    sender.start()
    got = [bytes(server.tls.decrypt(piece)) for piece in arrived]
    sender.join(10)
    assert got == pieces
    assert [bytes(client.tls.decrypt(piece)) for piece in leaving] == pieces


def test_tls_has_a_goodbye_of_its_own(ends):
    client, server = ends
    client.send(b"the last words")
    client.send(None)
    assert server.read() == b"the last words" and server.read() == b""
    # That was one direction: who has said goodbye reads on until the other does, too.
    server.send(b"an answer")
    assert client.read() == b"an answer"
    server.send(b"another one")
    server.send(None)
    assert client.read() == b"another one" and client.read() == b""
    for end in ends:
        end.send(b"")               # nothing to say any more, and no error
        assert not end.inbox
        with pytest.raises(ssl.SSLError):
            end.send(b"more")


def flip(records, chance):
    """One bit of what is encrypted; the first 5 bytes say how long that is."""
    place = chance.randrange(5, len(records[0]))
    records[0][place] ^= 1 << chance.randrange(8)


def swap(records, _):
    records.reverse()               # what two threads that send would do


def repeat(records, _):
    records.insert(0, records[0][:])


def leave_out(records, _):
    del records[0]


def cut(records, chance):
    records[0][3:5] = (len(records[0]) - 5 - chance.randrange(1, 9)).to_bytes(2, "big")


@pytest.mark.parametrize("change", [flip, swap, repeat, leave_out, cut])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_changed_on_the_way_is_an_error_on_both_sides(ends, change, seed):
    one, other = ends if seed % 2 else ends[::-1]
    records = [bytearray(one.tls.encrypt(TEXT)) for _ in range(2)]
    change(records, random.Random(seed))
    other.inbox += b"".join(records)
    with pytest.raises(ssl.SSLError):
        other.read()
    # It has complained, and so the other side learns of it as well.
    with pytest.raises(ssl.SSLError, match="ALERT"):
        one.read()


# -------------------------------------------------------------------- the server's TLS

def connect(sock, tls):
    """The handshake, by a client."""
    tls.decrypt(b"")
    while not tls.ready:
        sock.sendall(tls.encrypt(b""))
        assert tls.decrypt(sock.recv(65536)) == b""


def receive_lines(sock, tls):
    # After the handshake TLS says little, and the next encrypt() takes it along.
    return lines(lambda: tls.read(lambda: sock.recv(65536), lambda: None))


@pytest.mark.parametrize("version", VERSIONS, ids=VERSION_NAMES)
def test_it_is_the_server_whose_fingerprint_was_printed(start_server, join, version):
    server = start_server("--rate", "0")
    person = join("Minou", server, tls=tls_context(version))
    assert person.socket.version() == version.name.replace("_", ".")
    digits = hashlib.sha256(person.socket.getpeercert(True)).hexdigest().upper()
    assert server.fingerprint().replace("-", "") == digits
    assert person.say("x" * 4000)["text"] == "x" * 4000


@pytest.mark.parametrize("glued", [False, True])
def test_who_says_goodbye_first_gets_all_answers(server, glued):
    """TLS too is ended in each direction for itself."""
    hello = {"type": "hello", "name": f"Brief_{glued}", "version": 1}
    with socket.create_connection((server.host, server.port), timeout=5) as sock:
        tls = TLS(TLS_CONTEXT, server_side=False)
        connect(sock, tls)
        said = tls.encrypt(encode(hello) + encode({"type": "list"}))
        if not glued:
            sock.sendall(said)
            said = b""
        sock.sendall(said + tls.encrypt(None))
        came = [decode(line)["type"] for batch in receive_lines(sock, tls)
                for line in batch]
    assert came == ["welcome", "people"]


def test_tls_s_own_goodbye_is_answered(join):
    """As TLS demands it (RFC 5246, 7.2.1). unwrap() says ours, and waits for theirs."""
    person = join("Polite")
    person.socket.settimeout(5)
    person.socket.unwrap()
    person.close()


def test_a_goodbye_on_both_sides_is_no_failure(start_server, join):
    server = start_server()
    person = join("Minou", server)
    person.send({"type": "bye"})
    assert [message["type"] for message in person.until_closed()] == ["goodbye"]
    person.socket.unwrap()
    person.close()
    join("Tigrou", server).leave()
    server.wait_for_line("Tigrou left")
    assert not [line for line in server.lines if "failed" in line]


def test_new_keys_in_the_middle(server):
    """TLS 1.3 may ask for new keys at any time; s_client does when one types a K."""
    if not shutil.which("openssl") or b"OpenSSL" not in subprocess.run(
            ["openssl", "version"], stdout=subprocess.PIPE).stdout:
        pytest.skip("needs the command openssl (not that of LibreSSL, on macOS)")
    command = ["openssl", "s_client", "-connect", f"{server.host}:{server.port}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, bufsize=0) as process:
        def ask(line, kind):
            process.stdin.write(line + b"\n")
            answers = iter(process.stdout.readline, b"")
            return any(b'"type":"%s"' % kind in answer for answer in answers)

        try:
            hello = b'{"type": "hello", "name": "Openssl", "version": 1}'
            assert ask(hello, b"welcome")
            for _ in range(5):
                process.stdin.write(b"K\n")
                assert any(b"KEYUPDATE" in line for line in process.stdout)
                assert ask(b'{"type": "list"}', b"people")
            assert ask(b'{"type": "bye"}', b"goodbye")
        finally:
            process.kill()


# --------------------------------------------------------------------- the bad network

BAD = {"split": {"split": True}, "late": {"delay": 10, "jitter": 10},
       "all": {"split": True, "delay": 3, "jitter": 3, "stall": 0.01}}


@pytest.mark.parametrize("how", BAD.values(), ids=BAD)
def test_people_chat_through_a_bad_network(server, how):
    with BadNetwork((server.host, server.port), seed=5, **how) as network:
        with Person(network, f"Minou_{len(how)}", tls=TLS_CONTEXT) as minou, Person(
                network, f"Tigrou_{len(how)}", tls=TLS_CONTEXT) as tigrou:
            minou.expect("joined", name=tigrou.name)
            for number in range(50):
                minou.send({"type": "chat", "text": f"Où ça ? 🐈 {number}"})
            for number in range(50):
                tigrou.expect("chat", skip=["left"], text=f"Où ça ? 🐈 {number}")


class Traveller(Walker):
    """Somebody whose network breaks by itself, anywhere: in the handshake as well."""

    def __init__(self, server, network, name):
        super().__init__(server, name)
        self.server = network           # from the next connection on

    def lose(self):
        for _ in range(100):
            self.person.close()
            try:
                self.person = Person(self.server, tls=TLS_CONTEXT)
                self.person.hello("?", session=self.session, since=self.since)
                for line in self.open.values():     # whatever may have been lost
                    self.person.send(line)
                return
            except ConnectionError:
                pass
        pytest.fail("a hundred connections in a row are too many")

    def say(self, to=None):
        try:
            super().say(to)
        except ConnectionError:
            self.lose()

    def read(self, limit=0.0):
        try:
            while b"\n" in self.person.buffer or select.select(
                    [self.person.socket], [], [], limit)[0]:
                self.take(json.loads(self.person.read_line()))
        except ConnectionError:
            self.lose()


RESETS = 12             # of six people


def read_until(travellers, is_so):
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline, "somebody waits for a line in vain"
        for traveller in travellers:
            traveller.read(0.005)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long),
                                  pytest.param(3, marks=pytest.mark.long)])
def test_whatever_the_network_breaks_every_line_is_shown_once(server, seed):
    """Six people talk while their network resets connections within a record."""
    chance, where = random.Random(seed), (server.host, server.port)
    with BadNetwork(where, split=True, reset_every=100, seed=seed) as network:
        travellers = [Traveller(server, network, f"Traveller{seed}{number}")
                      for number in range(6)]
        for traveller in travellers:
            traveller.lose()
        deadline = time.monotonic() + 20
        while network.resets < RESETS:
            assert time.monotonic() < deadline, "the network is not bad enough"
            traveller = chance.choice(travellers)
            if len(traveller.open) < 5:     # or all it sends would be the same again
                traveller.say(chance.choice(travellers + [None] * 6))
            traveller.read(0.001)
        read_until(travellers, lambda: not any(one.open for one in travellers))
        travellers[0].say()                     # now all is said: this is the last
        read_until(travellers, lambda: not travellers[0].open and all(
            one.since == travellers[0].since for one in travellers))
    everything = {line["id"]: line for one in travellers for line in one.shown}
    said = [line["text"] for line in everything.values()]
    assert len(said) == len(set(said)) == sum(one.said for one in travellers)
    for one in travellers:
        assert one.shown == [line for _, line in sorted(everything.items())
                             if one.name in (line.get("to", one.name), line["from"])]


class TLSCat(Cat):
    """A client that knows the fingerprint of its server."""
    fingerprint = None

    def connect(self, host, port, name):
        self.login.tls = True
        self.known.give(host, port, self.fingerprint)
        super().connect(host, port, name)


@pytest.mark.parametrize("seed", [1, *[
    pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 10)]])
def test_our_clients_with_killed_servers_and_bad_networks(
        make_world, monkeypatch, tmp_path, tls, seed):
    """As in test_nothing_is_lost.py, with TLS on all of the ten connections."""
    options = ChattyCat_Server.read_options(tls)
    monkeypatch.setattr(TLSCat, "fingerprint", ChattyCat_Server.tls_context(options)[1])
    monkeypatch.setattr(test_nothing_is_lost, "Cat", TLSCat)
    monkeypatch.setattr(test_nothing_is_lost, "ServerProcess",
                        lambda *more: ServerProcess(*more, *tls))
    # Fewer resets than there. TLS encrypts up to 16 KiB as one record, which is read
    # whole or not at all: on a network that always breaks before that, somebody who
    # has missed much would never get any further. (120 "lines" are some 30 KB here:
    # of what is encrypted, one byte in 256 is a newline.)
    world = make_world(seed, 60, tmp_path / "history", split=True, reset_every=120)
    test_nothing_is_lost.live(world, 2, 30)
    world.check()
    assert sum(network.resets for network in world.networks) > 5


# -------------------------------------------------------- both directions at full speed

IN_FLIGHT = 32          # lines of one person that some have not read yet
LENGTHS = 1, 10, 100, 3900
LOCKED_UP = 10          # seconds without a line: then none will come any more
SHORT, LONG = 1, 600    # seconds


class TwoThreads:
    """A client like ours: one thread receives, another sends, at the same time.

    Whose 7th line comes before the 6th one, twice or not at all, ends the receiving
    thread by an assertion, and so the test.
    """
    def __init__(self, server, name, all_clients, over):
        self.name, self.all_clients, self.over = name, all_clients, over
        self.said, self.heard = 0, collections.Counter()
        self.room = threading.Semaphore(0)          # see next_line()
        self.moved, self.inside = threading.Event(), threading.Event()
        self.socket = socket.create_connection((server.host, server.port), LOCKED_UP)
        self.tls = TLS(TLS_CONTEXT, server_side=False)
        connect(self.socket, self.tls)
        self.say({"type": "hello", "name": name, "version": 1})
        self.receiver = threading.Thread(target=self.receive_all, daemon=True)
        self.sender = threading.Thread(target=self.send_all, daemon=True)

    def say(self, *messages):
        """Only the sending thread may, and after its end the test."""
        self.socket.sendall(self.tls.encrypt(b"".join(map(encode, messages))))

    def send_all(self):
        chance = random.Random(self.name)
        while not self.over.is_set():
            self.say(*[self.next_line(chance) for _ in range(chance.randint(1, 8))])

    def next_line(self, chance):
        """Wait until enough of the lines before have been read, and by all."""
        for _ in self.all_clients:
            assert self.room.acquire(timeout=LOCKED_UP), f"nobody reads {self.name}"
        self.said += 1
        text = f"{self.name} {self.said} " + "x" * chance.choice(LENGTHS)
        return {"type": "chat", "text": text}

    def receive_all(self):
        for came in receive_lines(self.socket, self.tls):
            for line in came:
                self.take(decode(line))
            self.moved.set()

    def take(self, message):
        if message["type"] == "chat":
            author, number, _ = message["text"].split(" ")
            self.heard[author] += 1
            assert int(number) == self.heard[author]
            self.all_clients[author].room.release()
        elif message["type"] == "welcome":
            self.inside.set()
        else:
            assert message["type"] in ("joined", "left", "goodbye"), message

    def watch(self):
        """Wait until something has come since the last time."""
        assert self.moved.wait(LOCKED_UP), f"nothing comes to {self.name} any more"
        self.moved.clear()


def talk_at_full_speed(clients, over, seconds):
    """Return how often each of them said something."""
    for client in clients:
        client.receiver.start()
        assert client.inside.wait(LOCKED_UP)
    for client in clients:
        for _ in range(IN_FLIGHT * len(clients)):
            client.room.release()
        client.sender.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for client in clients:
            client.watch()
        over.wait(0.1)              # (nobody sets it: we look again soon)
    over.set()
    for client in clients:
        client.sender.join(LOCKED_UP)
        assert not client.sender.is_alive()
    return {client.name: client.said for client in clients}


@pytest.mark.parametrize("seconds", [SHORT, pytest.param(
    LONG, marks=[pytest.mark.long, pytest.mark.timeout(LONG + 100)])])
def test_both_directions_at_full_speed(start_server, seconds):
    """No lock-up and no BAD_RECORD_MAC; every line comes once and in order."""
    server = start_server("--rate", "0", "--recent", "0")
    everybody, over = {}, threading.Event()
    for name in ("Minou", "Tigrou", "Felix", "Salem"):
        everybody[name] = TwoThreads(server, name, everybody, over)
    clients = list(everybody.values())
    said = talk_at_full_speed(clients, over, seconds)
    for client in clients:
        while client.heard != said:
            client.watch()
    for client in clients:
        client.say({"type": "bye"})
        client.receiver.join(LOCKED_UP)
        assert not client.receiver.is_alive()
        client.socket.close()
    assert not [line for line in server.lines if "failed" in line]
    print(f"{sum(said.values())} lines, each to {len(clients)} people")
