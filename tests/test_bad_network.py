"""The bad network: is it as bad as it says, and not worse?"""
import contextlib
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bad_network import BadNetwork, read_options, reset
from people import Person

PROGRAM = Path(__file__).with_name("bad_network.py")
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
SOME_LINES = "".join(f"line {n}: née, 猫, 🐈\n" for n in range(200)).encode()


def connect(network):
    sock = socket.create_connection((network.host, network.port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Listener:
    """The server's side, played by the test itself: it accepts when it is told to."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(10)
        self.address = self.socket.getsockname()

    def accept(self):
        sock, _ = self.socket.accept()
        sock.settimeout(10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def pair(self, network):
        """A new connection through the network: (the client's end, the server's)."""
        client = connect(network)
        return client, self.accept()


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.socket.close()


@pytest.fixture
def bad(listener):
    """A function that makes a bad network in front of `listener`."""
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(BadNetwork(listener.address, **how))


def pieces_until_end(sock):
    """All that comes, as it comes; and how it ended: "closed" or "reset"."""
    pieces = []
    try:
        while piece := sock.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        return pieces, "reset"
    return pieces, "closed"


def end_of_a_new_connection(network):
    try:
        return pieces_until_end(connect(network))
    except ConnectionResetError:        # so early that connect() has seen it already
        return [], "reset"


def receive(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"closed after {len(data)} of {size} bytes"
        data += piece
    return data


def in_thread(function, *arguments):
    """Call it in a thread; the function that is returned waits for its result."""
    results = []
    thread = threading.Thread(
        target=lambda: results.append(function(*arguments)), daemon=True)
    thread.start()

    def result():
        thread.join(20)
        assert results, f"{function.__name__} has not come to an end"
        return results[0]
    return result


def send_and_finish(sock, data):
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def exchange(client, server, to_server, to_client):
    """Send both at once, each ended by a half-close; return what came on each side."""
    came = in_thread(pieces_until_end, server), in_thread(pieces_until_end, client)
    sent = (in_thread(send_and_finish, client, to_server),
            in_thread(send_and_finish, server, to_client))
    for wait_for in sent:
        wait_for()
    return [wait_for() for wait_for in came]


def wait_until(is_so, limit=5):
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


# --------------------------------------------------------------- what must never happen

HOW = {"nothing": {}, "split": {"split": True},
       "all": {"split": True, "delay": 30, "jitter": 30, "stall": 0.002}}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_every_byte_comes_once_and_in_order(bad, listener, how):
    there, back = random.Random(1).randbytes(120_000), SOME_LINES * 20
    client, server = listener.pair(bad(**how, seed=5))
    came = exchange(client, server, there, back)
    assert [b"".join(pieces) for pieces, _ in came] == [there, back]
    assert [end for _, end in came] == ["closed", "closed"]


def test_a_half_close_is_passed_on_as_one(bad, listener):
    client, server = listener.pair(bad(split=True, delay=5))
    client.sendall(b"a question")
    client.shutdown(socket.SHUT_WR)
    assert b"".join(pieces_until_end(server)[0]) == b"a question"
    server.sendall(b"an answer ")       # the other direction still goes on
    assert receive(client, 10) == b"an answer "
    server.sendall(b"and the rest")
    server.close()
    assert b"".join(pieces_until_end(client)[0]) == b"and the rest"


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("how", [{}, {"split": True, "delay": 30}], ids=str)
def test_a_reset_is_passed_on_as_one(bad, listener, side, how):
    network = bad(**how)
    client, server = listener.pair(network)
    client.sendall(b"x")
    receive(server, 1)
    one, other = (client, server) if side == "client" else (server, client)
    one.sendall(b"the last words")
    reset(one)
    pieces, end = pieces_until_end(other)
    assert end == "reset"
    assert b"the last words".startswith(b"".join(pieces))
    assert network.resets == 0          # it is not the network's own


def test_a_reset_is_passed_on_after_a_half_close(bad, listener):
    client, server = listener.pair(bad())
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    reset(client)
    with pytest.raises(ConnectionError):
        while True:                     # the first send only finds out
            server.sendall(b"are you there?\n")
            select.select([], [], [], 0.01)


NUMBERS = bytes(range(251)) * 300       # not a power of two: a shift would be seen


def send_as_much_as_possible(sock):
    """Send until nobody has taken anything for a while; return how much that was."""
    sock.setblocking(False)
    sent = 0
    while select.select([], [sock], [], 0.3)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += sock.send(NUMBERS[sent % 251:])
        assert sent < 100 * 2**20, "where do all these bytes go?"
    return sent


def test_a_slow_reader_slows_the_sender_and_loses_nothing(bad, listener):
    client, server = listener.pair(bad())
    sent = send_as_much_as_possible(client)
    assert sent > 65_536
    client.shutdown(socket.SHUT_WR)
    came = b"".join(pieces_until_end(server)[0])
    assert len(came) == sent
    assert came == (NUMBERS * (sent // len(NUMBERS) + 1))[:sent]


def test_a_slow_reader_gets_it_all_after_the_sender_has_left(bad, listener):
    client, server = listener.pair(bad(split=True))
    sending = in_thread(send_and_finish, client, SOME_LINES * 20)
    server.shutdown(socket.SHUT_WR)
    sending()
    client.close()
    assert b"".join(pieces_until_end(server)[0]) == SOME_LINES * 20


def test_many_connections_on_many_networks(listener):
    with contextlib.ExitStack() as stack:
        networks = [stack.enter_context(BadNetwork(
            listener.address, split=True, delay=20, jitter=20)) for _ in range(10)]
        pairs = [listener.pair(network) for network in networks for _ in range(3)]
        data = [SOME_LINES + b"%d" % number for number in range(len(pairs))]
        came = [in_thread(exchange, *pair, mine, mine[::-1])
                for pair, mine in zip(pairs, data)]
        for mine, wait_for in zip(data, came):
            there, back = wait_for()
            assert b"".join(there[0]) == mine and b"".join(back[0]) == mine[::-1]
        assert [network.connections for network in networks] == [3] * 10


# -------------------------------------------------------------------------- each option

def test_split_cuts_lines_and_letters_and_glues(bad, listener):
    client, server = listener.pair(bad(split=True, seed=3))
    arriving = in_thread(pieces_until_end, server)
    for line in SOME_LINES.splitlines(keepends=True) * 5:
        client.sendall(line)
    client.shutdown(socket.SHUT_WR)
    pieces, _ = arriving()
    assert b"".join(pieces) == SOME_LINES * 5
    assert any(not piece.endswith(b"\n") for piece in pieces), "a line in halves"
    assert any(piece[0] & 0xC0 == 0x80 for piece in pieces), "a letter in halves"
    assert any(piece.count(b"\n") > 2 for piece in pieces), "several lines at once"


def places_of_cuts(listener, seed):
    """Where the pieces end that arrive when much is sent at once."""
    with BadNetwork(listener.address, split=True, seed=seed) as network:
        client, server = listener.pair(network)
        arriving = in_thread(pieces_until_end, server)
        send_and_finish(client, SOME_LINES * 3)
        place, places = 0, set()
        for piece in arriving()[0]:
            place += len(piece)
            places.add(place)
    return places - {place}


def test_the_same_seed_cuts_at_the_same_places(listener):
    one, again = places_of_cuts(listener, 7), places_of_cuts(listener, 7)
    other = places_of_cuts(listener, 8)
    # A reader who comes late finds two pieces glued: not every cut is seen each time.
    assert len(one & again) > 2 + 3 * len(one & other)


def round_trip(client, server):
    started = time.monotonic()
    client.sendall(b"ping\n")
    server.sendall(receive(server, 5))
    assert receive(client, 5) == b"ping\n"
    return time.monotonic() - started


def test_delay_counts_in_each_direction(bad, listener):
    pair = listener.pair(bad(delay=50))
    times = [round_trip(*pair) for _ in range(3)]
    assert min(times) >= 0.1 and min(times) < 0.19


def test_jitter_makes_the_delay_differ(bad, listener):
    pair = listener.pair(bad(delay=30, jitter=30, seed=4))
    times = [round_trip(*pair) for _ in range(6)]
    assert max(times) - min(times) > 0.02


def test_a_delay_does_not_add_up(bad, listener):
    client, server = listener.pair(bad(split=True, delay=100))
    started = time.monotonic()
    client.sendall(SOME_LINES)
    assert receive(server, len(SOME_LINES)) == SOME_LINES
    # Dozens of pieces, each 100 ms late: one after another would take seconds.
    assert 0.1 <= time.monotonic() - started < 1


def test_stall_stops_everything_for_a_while(bad, listener):
    pair = listener.pair(bad(stall=0.15, seed=1))
    times = [round_trip(*pair) for _ in range(22)]      # 44 lines: 2 to 8 stalls
    assert min(times) < 0.1
    assert 2 <= len([late for late in times if late >= 0.15]) <= 8


def run_into_a_reset(client, server):
    """Lines in both directions, into a reset; return the bytes that each side got."""
    # Each side sends once, the server too few lines for a reset. Who sends after one
    # may learn of it from send(), and recv() then sees nothing but an end.
    server.sendall("à moi\n".encode() * 5)
    client.sendall("à toi\n".encode() * 40)
    results = [pieces_until_end(sock) for sock in (server, client)]
    assert [end for _, end in results] == ["reset", "reset"]
    return [b"".join(pieces) for pieces, _ in results]


def test_reset_every_breaks_both_sides_after_about_so_many_lines(bad, listener):
    network = bad(reset_every=20, split=True, seed=1)
    lengths, halves = set(), 0
    for number in range(1, 7):
        there, back = run_into_a_reset(*listener.pair(network))
        assert 10 <= there.count(b"\n") + back.count(b"\n") <= 30
        assert ("à toi\n" * 40).encode().startswith(there)
        assert ("à moi\n" * 5).encode().startswith(back)
        halves += any(end[-1:] not in (b"", b"\n") for end in (there, back))
        lengths.add(len(there + back))
        assert (network.connections, network.resets) == (number, number)
    assert halves and len(lengths) > 1


def bytes_before_the_reset(listener, seed):
    with BadNetwork(listener.address, reset_every=50, seed=seed) as network:
        client, server = listener.pair(network)
        client.sendall(SOME_LINES)
        pieces, end = pieces_until_end(server)
        assert end == "reset"
        return len(b"".join(pieces))


def test_the_same_seed_resets_at_the_same_byte(listener):
    once, again = [[bytes_before_the_reset(listener, seed) for seed in (8, 9, 10, 11)]
                   for _ in range(2)]
    assert once == again and len(set(once)) == 4
    assert any(SOME_LINES[:place][-1:] != b"\n" for place in once), "within a line"


@pytest.mark.parametrize("drop, low, high", [(True, 5, 20), (3, 3, 3)])
def test_drop_lets_nothing_pass_and_closes_nothing(bad, listener, drop, low, high):
    network = bad(drop=drop)
    client, server = listener.pair(network)
    for sock in (client, server):
        sock.settimeout(0.15)
    passed = 0
    with pytest.raises(socket.timeout):
        while True:
            client.sendall(b"to the server\n")
            receive(server, 14)
            passed += 1
    assert low <= passed <= high
    server.sendall(b"to the client\n")
    for _ in range(3):
        client.sendall(b"still there?\n")   # no error either: it looks alive
    client.shutdown(socket.SHUT_WR)         # and even a goodbye gets nowhere
    with contextlib.suppress(socket.timeout):
        rest = server.recv(100)
        assert b"to the server\n".startswith(rest) and rest
        server.recv(100)
        pytest.fail("something came after all")
    with pytest.raises(socket.timeout):
        client.recv(100)
    assert round_trip(*listener.pair(network)) < 5
    assert network.connections == 2


# --------------------------------------------------------------- around the connections

def test_no_server_is_a_reset_and_the_target_can_change(listener):
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))           # bound, but does not listen
    said = []
    with BadNetwork(nobody.getsockname(), say=said.append) as network:
        assert end_of_a_new_connection(network) == ([], "reset")
        assert len(said) == 1 and str(nobody.getsockname()[1]) in said[0]
        network.target = listener.address
        assert round_trip(*listener.pair(network)) < 5
        assert network.connections == 2 and len(said) == 1
    nobody.close()


def test_its_end_ends_all(listener):
    before = threading.active_count()
    with BadNetwork(listener.address, drop=1, delay=60_000) as network:
        client, server = listener.pair(network)
        client.sendall(SOME_LINES)
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert [pieces_until_end(sock) for sock in (client, server)] == [([], "reset")] * 2
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        connect(network)


def test_connections_that_have_ended_leave_nothing_behind(bad, listener):
    network = bad(split=True)
    for _ in range(5):
        client, server = listener.pair(network)
        client.close()
        assert pieces_until_end(server) == ([], "closed")
        server.close()
    wait_until(lambda: not any(thread.is_alive() for thread in network.threads))


def test_people_chat_through_it(server):
    target = (server.host, server.port)
    with BadNetwork(target, split=True, delay=5, jitter=5) as network:
        with Person(network, "Minou") as minou, Person(network, "Tigrou") as tigrou:
            minou.expect("joined", name="Tigrou")
            for number in range(5):
                minou.send({"type": "chat", "text": f"Où ça ? 🐈 {number}"})
            for number in range(5):
                tigrou.expect("chat", from_="Minou", text=f"Où ça ? 🐈 {number}")


# ---------------------------------------------------------------- as a program, by hand

def run(*words):
    return subprocess.run([sys.executable, PROGRAM, *map(str, words)], timeout=20,
                          capture_output=True, encoding="utf-8",
                          env={**os.environ, "PYTHONIOENCODING": "utf-8"})


@contextlib.contextmanager
def program(*words, **how):
    """The program, running; and the port that it says it listens on."""
    environment = dict(os.environ)
    environment.pop("PYTHONUNBUFFERED", None)   # it would hide a flush() forgotten
    process = subprocess.Popen(
        [sys.executable, PROGRAM, *map(str, words)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
    try:
        line = process.stdout.readline()
        listening = re.fullmatch(
            r"bad network: 127\.0\.0\.1:(\d+) -> 127\.0\.0\.1:\d+\n", line)
        assert listening, line + process.stderr.read()
        process.host, process.port = "127.0.0.1", int(listening[1])
        yield process
    finally:
        process.kill()
        process.communicate()


def test_help_names_every_option():
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for option in ("HOST:PORT", "--listen", "--split", "--delay", "--jitter", "--stall",
                   "--reset-every", "--drop", "--seed"):
        assert option in result.stdout


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_says_what_it_does_does_it_and_ends_at_once(listener, name):
    target = "%s:%s" % listener.address
    # As after "&" in a shell script, where Ctrl+C is ignored until one asks for it.
    words = [target, "--listen", "0", "--split", "--delay", "40", "--jitter", "10",
             "--stall", "1.5", "--reset-every", "100", "--drop", "--seed", "42"]
    ignored = None if name == "SIGTERM" else (
        lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    with program(*words, preexec_fn=ignored) as process:
        assert round_trip(*listener.pair(process)) >= 0.06
        started = time.monotonic()
        process.send_signal(getattr(signal, name))
        assert process.wait(10) == 0
        assert time.monotonic() - started < 1
        told = process.stdout.read()
        assert process.stderr.read() == ""
        for word in ("40 ms", "10 ms", "1.5 s", "50 to 150", "5 to 20", "--seed 42"):
            assert word in told


def test_by_hand_without_options_and_without_a_server():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with program(f"127.0.0.1:{port}", "--listen", "0") as process:
            assert "Ctrl+C" in process.stdout.readline()
            assert end_of_a_new_connection(process) == ([], "reset")
            assert f"127.0.0.1:{port}" in process.stdout.readline()


def test_by_hand_it_tells_of_its_troubles(listener):
    words = "%s:%s" % listener.address, "--listen", "0", "--drop", "2", "--seed", "9"
    with program(*words) as process:
        client, server = listener.pair(process)
        client.sendall(SOME_LINES)
        lines = [process.stdout.readline() for _ in range(3)]
        assert "--seed 9 " in lines[1]
        assert lines[2] == "connection 1: nothing passes any more\n"
        assert 2 * 22 < len(server.recv(65536)) < 5 * 30


@pytest.mark.parametrize("words", [
    "", "127.0.0.1:9999", "--listen 0", "9999 --listen 0", "127.0.0.1:70000 --listen 0",
    "127.0.0.1:9999 --listen 65536", "127.0.0.1:9999 --listen 0 --delay -5",
    "127.0.0.1:9999 --listen 0 --stall long", "127.0.0.1:9999 --listen 0 --meow",
    "--listen 0 --drop 127.0.0.1:9999"])
def test_wrong_options_are_one_sentence(words, capsys):
    with pytest.raises(SystemExit) as end:
        read_options(words.split())
    printed, sentence = capsys.readouterr()
    assert (end.value.code, printed) == (2, "")
    assert sentence.count("\n") == 1 and sentence.endswith(".\n")
    assert sentence.startswith("bad_network.py: ")


def test_wrong_options_end_the_program():
    result = run("127.0.0.1:9999", "--listen", "banana")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and "banana" in result.stderr


def test_a_port_in_use_is_one_sentence(listener):
    port = listener.address[1]
    result = run("127.0.0.1:9999", "--listen", port)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and result.stderr.endswith(".\n")
    assert str(port) in result.stderr and "--listen" in result.stderr
