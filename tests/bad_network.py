#!/usr/bin/env python3
"""A network that is bad on purpose: a program that stands between two others.

    python3 ChattyCat_Server.py
    python3 tests/bad_network.py 127.0.0.1:9999 --listen 9998 --split --delay 200
    python3 ChattyCat_Client.py --port 9998

It carries to the server what the client says, and back, but not as nicely as on one
computer: in odd pieces, late, with interruptions. Real networks do all of that too,
only never while one is watching. It works between any TCP client and server; tests
use it from Python, with the same options in the same units:

    with BadNetwork((server.host, server.port), split=True, seed=7) as network:
        Person(network, "Minou")

One thread carries one connection, both directions. It never waits in recv() or send(),
only in wait(): so it alone closes its sockets, and needs no lock. What makes the
network bad stands in Way.cut (--split), Way.put (--delay) and Connection.strike.

What it cannot do: it stands between two programs, not between two computers. Also
after --drop each side's kernel can talk to this computer's, which acknowledges bytes
and answers keepalive probes. Behind a really pulled cable nobody does.
"""
import argparse
import collections
import contextlib
import errno
import math
import os
import random
import re
import selectors
import signal
import socket
import struct
import sys
import threading
import time

HELD_BYTES = 65_536     # a direction holds no more; then its sender has to wait
READ_BYTES = 16_384     # at most so many in one recv()
LONGEST_PIECE = 11      # --split: pieces of 1 to 2 ** 11 bytes, short ones more often
HOLD_SECONDS = 0.005    # --split: how long a piece waits to be glued to what comes next
PAUSE_SECONDS = 0.002   # --split: without it the kernel would glue all pieces again
FEW_LINES = (5, 20)     # between troubles, where no option says how many

# What can stand behind the last piece. It takes its turn and its delay as the pieces
# do, so that no end overtakes what was said before it.
END = "end"             # a side has said all that it wants to say (FIN)
RESET = "reset"         # a side has crashed, or closed without listening (RST)

# poll() where there is one: select() knows no descriptor above 1023.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Broken(Exception):
    """This connection ends with a reset, for both sides."""


def wait(readers, writers, timeout):
    """Wait until something can be done with a socket; return those sockets."""
    with Selector() as selector:
        for sock in {*readers, *writers}:
            read = selectors.EVENT_READ if sock in readers else 0
            write = selectors.EVENT_WRITE if sock in writers else 0
            selector.register(sock, read | write)
        return [key.fileobj for key, events in selector.select(timeout)]


def reset(sock):
    """Close with an RST: "this connection does not exist", instead of a goodbye."""
    # Lingering for 0 seconds means: what is not sent yet is thrown away, and the other
    # side is told so by an RST. No shutdown() before it: that would say goodbye.
    linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    with contextlib.suppress(OSError):      # macOS, on a socket that is dead already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


class Way:
    """One direction of a connection: from the socket `source` to the socket `sink`."""

    def __init__(self, network, source, sink, seed):
        self.network, self.source, self.sink = network, source, sink
        self.random = random.Random(seed)
        self.arrived = bytearray()          # bytes that belong to no piece yet
        self.pieces = collections.deque()   # [due when, what, and the pause behind it]
        self.held = 0                       # how many bytes that is together
        self.open = True                    # more may come
        self.broken = False                 # `source` was found dead
        self.hold_until = self.pause_until = 0.0
        self.plan()

    def plan(self):
        """Decide by the seed where the next piece ends, and how late it is."""
        # All that is random in a piece is drawn here, once a piece. Were it drawn when
        # bytes come, then the clock, and not the seed, would choose the numbers.
        network = self.network
        self.left = int(2 ** self.random.uniform(0, LONGEST_PIECE))
        self.pause = self.random.choice((0, PAUSE_SECONDS)) if network.split else 0
        late = network.delay + self.random.uniform(-network.jitter, network.jitter)
        self.late = max(late, 0) / 1000

    def wants_more(self):
        # No: then the kernel's buffer fills, then the sender's, and its send() waits.
        return self.open and self.held < HELD_BYTES

    def receive(self, now):
        """Take what has come, if something has, and cut it into pieces."""
        data = b""
        if self.wants_more():
            try:
                data = self.source.recv(min(READ_BYTES, HELD_BYTES - self.held))
                self.open = data != b""
            except BlockingIOError:
                pass                            # nothing has come
            except OSError:
                self.open, self.broken = False, True
            if not self.open:
                self.cut(now)
                self.put(RESET if self.broken else END, now)
        if not self.arrived:
            self.hold_until = now + HOLD_SECONDS
        self.arrived += data
        self.held += len(data)
        self.cut(now)

    def cut(self, now):
        """Cut pieces off what has arrived. Without --split, all of it is one piece."""
        split = self.network.split
        while self.arrived:
            size = min(self.left, len(self.arrived)) if split else len(self.arrived)
            if split and size < self.left and self.open and now < self.hold_until:
                return                          # perhaps more comes, to be glued to it
            self.put(bytes(self.arrived[:size]), now)
            del self.arrived[:size]
            self.left -= size
            if not split or self.left == 0:
                self.plan()

    def put(self, piece, now):
        # In a queue nobody overtakes, whatever the delays: TCP keeps the order too.
        self.pieces.append([now + self.late, piece, self.pause])

    def due(self):
        """When the first piece may pass; never, if there is none."""
        return max(self.pieces[0][0], self.pause_until) if self.pieces else math.inf

    def sink_is_dead(self):
        """Nobody is there to get it: forget it, and take no more."""
        self.open = False
        self.arrived.clear()
        self.pieces.clear()

    def source_is_dead(self, now):
        # What it said before it died may still stand in the kernel: read that first.
        self.broken = True
        if not self.open:
            self.put(RESET, now)

    def finished(self):
        return not (self.open or self.arrived or self.pieces)


class Connection:
    """One client, its own connection to the server, and the troubles in between."""

    def __init__(self, network, number, client):
        self.network, self.number, self.client = network, number, client
        self.random = random.Random(f"{network.seed} {number}")
        self.lines = 0              # newlines that have passed, in both directions
        self.troubles = []          # what is to strike: (line, place in it, its name)
        self.still_until = 0.0      # nothing passes before
        if network.stall:
            self.plan("stall", *FEW_LINES)
        if network.reset_every:
            self.plan("reset", network.reset_every // 2, network.reset_every * 3 // 2)
        if network.drop:
            self.plan("drop", *(
                FEW_LINES if network.drop is True else (network.drop, network.drop)))

    def plan(self, trouble, low, high):
        """Decide by the seed after how many more lines a trouble is to strike.

        It strikes within the line after these: half a line is what hurts most.
        """
        line = self.lines + self.random.randint(low, high) + 1
        self.troubles.append((line, self.random.random(), trouble))
        self.troubles.sort()

    def run(self):
        """All of a connection's life, in a thread of its own."""
        sockets = [self.client]
        try:
            sockets.append(self.connect())
            self.carry(*sockets)
        except Broken:
            for sock in sockets:
                reset(sock)
        # Closed without a reset, the kernel still sends what a slow reader has not got.
        for sock in sockets:
            sock.close()

    def connect(self):
        host, port = self.network.target[:2]
        try:
            return socket.create_connection((host, port), timeout=10)
        except (OSError, UnicodeError) as problem:  # UnicodeError: a host like "a..b"
            self.say(f"no server at {host}:{port} ({problem}): the client gets a reset")
            raise Broken from None

    def carry(self, client, server):
        """Carry bytes until both sides have said goodbye; else raise Broken."""
        for sock in (client, server):
            sock.setblocking(False)
            with contextlib.suppress(OSError):      # macOS, where it is dead already
                # Else the kernel glues: a small piece waits for the one before's ACK.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seed = f"{self.network.seed} {self.number}"
        there = Way(self.network, client, server, f"{seed} to the server")
        back = Way(self.network, server, client, f"{seed} to the client")
        while True:
            now = time.monotonic()
            self.work(there, back, now)
            self.work(back, there, now)
            if there.finished() and back.finished():
                return
            if self.still_until == math.inf and not (there.open or back.open):
                raise Broken                        # silent, and nobody left to miss it
            self.sleep(there, back)

    def work(self, way, other, now):
        way.receive(now)
        try:
            self.deliver(way, now)
        except OSError:                             # its side has reset the connection
            way.sink_is_dead()
            other.source_is_dead(now)

    def deliver(self, way, now):
        """Pass on what is due, as far as `sink` takes it and no trouble strikes."""
        while max(way.due(), self.still_until) <= now:
            _, piece, pause = way.pieces[0]
            if piece is RESET:
                raise Broken
            if piece is END:
                way.sink.shutdown(socket.SHUT_WR)   # the other direction goes on
                way.pieces.popleft()
                continue
            safe = self.bytes_before_trouble(piece)
            try:
                sent = way.sink.send(piece[:safe]) if safe else 0
            except BlockingIOError:
                return                              # a slow reader: wait for it
            self.lines += piece.count(b"\n", 0, sent)
            way.held -= sent
            way.pieces[0][1] = piece[sent:]
            if sent == len(piece):
                way.pieces.popleft()
                way.pause_until = now + pause
            elif sent == safe:
                self.strike(now)

    def bytes_before_trouble(self, piece):
        """How many bytes of this piece pass before the next trouble strikes."""
        if not self.troubles:
            return len(piece)
        number, place, _ = self.troubles[0]
        count = number - self.lines             # it is in the count-th line here
        lines = piece.split(b"\n", count)
        if len(lines) <= count:                 # which does not end here yet
            return len(piece)
        before = sum(len(line) + 1 for line in lines[:count - 1])
        return before + int(place * (len(lines[count - 1]) + 1))

    def strike(self, now):
        network = self.network
        trouble = self.troubles.pop(0)[2]
        if trouble == "reset":
            with network.lock:
                network.resets += 1
            self.say("reset")
            raise Broken
        if trouble == "stall":
            self.say(f"nothing passes for {network.stall:g} s")
            self.still_until = now + network.stall
            self.plan("stall", *FEW_LINES)
        else:
            self.say("nothing passes any more")
            self.still_until = math.inf

    def sleep(self, *ways):
        """Sleep until there is something to do; raise Broken if that is to end."""
        now = time.monotonic()
        bell = self.network.bell[0]
        readers, writers, moments = [bell], [], [math.inf]
        for way in ways:
            if way.wants_more():
                readers.append(way.source)
            if way.arrived:
                moments.append(way.hold_until)
            if way.pieces:
                due = max(way.due(), self.still_until)
                if due > now:
                    moments.append(due)
                else:
                    writers.append(way.sink)
        first = min(moments)
        if bell in wait(readers, writers, None if first == math.inf else first - now):
            raise Broken

    def say(self, text):
        self.network.say(f"connection {self.number}: {text}")


class BadNetwork:
    """The proxy. Connect to `host` and `port`; what happens then, the options say.

    `target` may be changed at any time, for a server that starts again elsewhere: it
    counts for new connections. `resets` are those of --reset-every alone.
    """

    def __init__(self, target, *, listen=0, split=False, delay=0, jitter=0, stall=0,
                 reset_every=0, drop=False, seed=None, say=lambda text: None):
        self.target, self.say = target, say
        self.split, self.delay, self.jitter, self.stall = split, delay, jitter, stall
        self.reset_every, self.drop = reset_every, drop
        self.seed = random.randrange(10_000) if seed is None else seed
        self.connections = self.resets = 0
        self.lock = threading.Lock()        # for what more than one thread counts
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", listen))
        self.host, self.port = self.listener.getsockname()
        # Whoever waits for a socket waits for the bell too. One byte rings it, and as
        # nobody ever reads that byte, every thread hears it.
        self.bell = socket.socketpair()
        for sock in (self.listener, *self.bell):
            sock.setblocking(False)
        self.accepting = threading.Thread(target=self.accept, daemon=True)

    def __enter__(self):
        self.accepting.start()
        return self

    def __exit__(self, *error):
        """End all connections, with resets: the network is gone."""
        with contextlib.suppress(BlockingIOError):      # rung very often already
            self.bell[1].send(b"!")
        self.accepting.join()
        self.listener.close()
        limit = time.monotonic() + 1        # who is still connecting may need longer
        for thread in self.threads:
            thread.join(max(limit - time.monotonic(), 0))
        if not any(thread.is_alive() for thread in self.threads):
            for sock in self.bell:
                sock.close()

    def accept(self):
        """Let clients in, each with a thread of its own, until the bell rings."""
        bell = self.bell[0]
        while bell not in wait([self.listener, bell], [], None):
            try:
                client, _ = self.listener.accept()
            except OSError:                 # gone again, or there are too many already:
                wait([bell], [], 0.1)       # then trying at full speed helps nobody
                continue
            self.connections += 1
            connection = Connection(self, self.connections, client)
            thread = threading.Thread(target=connection.run, daemon=True)
            self.threads = [old for old in self.threads if old.is_alive()] + [thread]
            thread.start()


class Options(argparse.ArgumentParser):
    """The command line. A mistake in it is one sentence, not a page of usage."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}. Type --help to see the options.\n")


def number(low, high, kind=int):
    """Return an argparse type: a number from `low` to `high`."""
    def convert(word):
        shape = r"[0-9]{1,9}" if kind is int else r"[0-9]{1,9}(\.[0-9]{1,9})?"
        if not re.fullmatch(shape, word) or not low <= kind(word) <= high:
            whole = "whole " if kind is int else ""
            raise argparse.ArgumentTypeError(
                f"it wants a {whole}number from {low} to {high}, not “{word}”")
        return kind(word)
    return convert


def address(word):
    """An argparse type: HOST:PORT, or [HOST]:PORT where the host has colons in it."""
    host, _, port = word.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(
            f"it wants an address like 127.0.0.1:9999, not “{word}”")
    return host.strip("[]"), int(port)


def read_options(words=None):
    """Return the options in `words`, or in the command line that started us."""
    options = Options(
        prog="bad_network.py", allow_abbrev=False,
        usage="bad_network.py HOST:PORT --listen PORT [options]",
        description="A bad network between a client and a server. Let the client "
        "connect to 127.0.0.1 and the port of --listen: all that the two say to each "
        "other goes through here, without further options as it is.",
        epilog="The same seed takes the same decisions for the first connection, the "
        "second and so on: where pieces end, how late they are, after how many lines "
        "something happens. It cannot repeat when the two programs speak: a piece also "
        "ends where its sender pauses, and whose line is the tenth is up to them.")
    add, milliseconds, lines = options.add_argument, number(0, 60_000), number(1, 10**6)
    add("target", type=address, metavar="HOST:PORT", help="where the server listens")
    add("--listen", type=number(0, 65535), metavar="PORT", required=True,
        help="the port for the client (0: any free one)")
    add("--split", action="store_true", help="cut at random places, also within a "
        "letter, and glue what is sent soon after each other: the bytes stay the same "
        "and in order, but come in other pieces")
    add("--delay", type=milliseconds, default=0, metavar="MS",
        help="everything comes so many milliseconds later, in each direction")
    add("--jitter", type=milliseconds, default=0, metavar="MS",
        help="each piece's delay is up to so much longer or shorter")
    add("--stall", type=number(0, 3600, float), default=0, metavar="S",
        help="after every 5 to 20 lines nothing passes for S seconds")
    add("--reset-every", type=lines, default=0, metavar="N",
        help="after about N lines (N/2 to 3N/2, both directions counted) break the "
        "connection within a line: both sides get a reset (RST), some bytes are lost; "
        "the next connection is let in as usual")
    add("--drop", type=lines, nargs="?", const=True, default=False, metavar="N",
        help="after N lines (without N: 5 to 20) nothing passes any more and nothing "
        "is closed, as with a pulled cable; each new connection works for as long")
    add("--seed", type=number(0, 999_999_999), metavar="K",
        help="where chance begins, to get the same again (default: any; it is shown)")
    return options.parse_args(words)


def describe(network):
    """Yield what this network is going to do, a line each."""
    drop, every = network.drop, network.reset_every
    if network.split:
        yield "Cuts and glues: lines arrive in halves, or several at once."
    if network.delay or network.jitter:
        yield f"Delays each piece by {network.delay} ms, +/- {network.jitter} ms."
    if network.stall:
        yield f"Lets nothing pass for {network.stall:g} s, after every 5 to 20 lines."
    if every:
        yield f"Resets a connection, after {every // 2} to {every * 3 // 2} lines."
    if drop:
        after = "5 to 20" if drop is True else drop
        yield f"Lets nothing pass any more on a connection, after {after} lines."
    yield f"--seed {network.seed} decides the same again. Ctrl+C ends it."


def say(text):
    """Print one line, also into a pipe at once, and also when nobody reads any more."""
    try:
        sys.stdout.write(text + "\n")       # one write: lines of two threads stay whole
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main():
    """Run a bad network until Ctrl+C; return the exit status."""
    options = vars(read_options())
    try:
        network = BadNetwork(options.pop("target"), say=say, **options)
    except OSError as problem:
        why = "it is in use" if problem.errno == errno.EADDRINUSE else problem
        print(f"bad_network.py: cannot listen on port {options['listen']} ({why}); "
              "choose another one with --listen.", file=sys.stderr)
        return 2
    # Python writes a byte there for each signal, and that is the bell: all threads hear
    # it and end. A handler has to exist, but there is nothing left to do for it.
    signal.set_wakeup_fd(network.bell[1].fileno())
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)
    with network:
        host, port = network.target
        say(f"bad network: {network.host}:{network.port} -> {host}:{port}")
        for line in describe(network):
            say(f"  {line}")
        network.accepting.join()
        signal.set_wakeup_fd(-1)            # the bell is about to be closed
    return 0


if __name__ == "__main__":
    sys.exit(main())
