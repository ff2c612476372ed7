#!/usr/bin/env python3
"""A crowd: many people in one program, who talk, and check all that they hear.

    python3 tests/crowd.py 100                        100 people, 10 of them talk
    python3 tests/crowd.py 1000 --senders 1 --rate 20    a quiet room of 1,000
    python3 tests/crowd.py 50 --port 9999             with the server that runs there
    python3 tests/crowd.py 100 --versus 'python3 my_server.py --port 0'
    python3 tests/crowd.py 100 --tls --versus-plain    what does TLS cost?

How does one program read for a thousand people, faster than a server can write? With
one thread, a selector that says who has something to read, and one idea: in one room
everybody is owed the very same bytes. Whoever has read the furthest makes the *stream*,
each of its lines is looked at once (from whom, which one, is that what was said?), and
what comes to all the others is only compared with it, a large piece at a time:

    stream    [line 1][line 2][line 3][line 4]
    Cat0      ------------------------------>|      the furthest
    Cat1      ------------->|                       owed: line 3, line 4
    Cat2      ---------------------->|              in the middle of line 3

So nothing can be lost, doubled, swapped or changed for anybody without being seen. What
all have read is thrown away. Times are from the send() of a message to the recv() of
its last byte. Before you believe a figure, see who was busy: the server, or we?

Here are the people, and how they talk. What they say to which server is in dialects.py,
how a server's process is started and watched, and all figures, in measuring.py.
"""
import argparse
import bisect
import collections
import contextlib
import functools
import heapq
import json
import os
import selectors
import shlex
import signal
import socket
import ssl
import sys
import time
from pathlib import Path

from dialects import ChattyCat, Irc, NoStart, Trouble, shorten
from measuring import (
    Delays, Progress, Server, allow_open_sockets, clock, comparisons, figures, report,
    report_comparison, usage, versus)

SERVER = Path(__file__).resolve().parent.parent / "ChattyCat_Server.py"
READ_BYTES = 262_144        # at most so many in one recv(): fewer, larger reads
SAMPLED = 5                 # people whose every delivery is timed; it costs time too
FILLER = "meow" * 1000      # what texts are made of, behind their numbers
FAR = float("inf")
OURS = [sys.executable, str(SERVER), "--port", "0", "--no-console", "--rate", "0",
        "--recent", "0", "--max-clients", "20000"]


# ------------------------------------------------------------------- people, and stream

class Person:
    """One of the crowd: a socket, and how far it has read."""

    def __init__(self, number):
        self.number, self.name = number, f"Cat{number}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.out = b""              # what the socket did not take yet
        self.present = None         # how many were there when it came in, itself too
        self.names = []             # (IRC tells them in many lines)
        self.seen = 0               # how many it has seen coming since then
        self.place = 0              # its place in the stream…
        self.rest = b""             # …and what has come that is not compared yet
        self.order = None           # instead: an Order, when it gets no copy of its own
        self.sampled = False
        self.tls = None
        self.said = 0               # messages
        self.sent = collections.deque()     # when: those that are not in the stream yet
        self.own = collections.deque()      # where: those that it has not got back yet


class Order:
    """Everybody's messages, one after the other and as they were said."""

    def __init__(self, people, size):
        self.people, self.size = {person.name: person for person in people}, size
        self.next = dict.fromkeys(self.people, 0)   # each one's next number
        self.messages = 0

    def check(self, name, text):
        """One more message: return who said it, if it is the next of theirs."""
        author = self.people.get(name)
        if author is None:
            raise Trouble(f"“{name}” talks, who is none of us; the crowd wants a "
                          "room of its own")
        number = self.next[name]
        if number >= author.said or text != text_of(author.number, number, self.size):
            raise Trouble(f"{shorten(text)} where message {number} of {name} is due")
        self.next[name] += 1
        self.messages += 1
        return author


@functools.lru_cache(maxsize=10_000)    # it is needed twice: to say it, and to check it
def text_of(author, number, size):
    """Somebody's message: it says which it is, and all of it can be checked."""
    head = f"{author}:{number} "
    return head + FILLER[:size - len(head)]


class Stream:
    """The bytes that everybody is owed, from where the slowest are on."""

    def __init__(self, order):
        self.order, self.last_id = order, -1
        self.data = bytearray()
        self.base = self.end = 0    # the places where `data` begins and ends
        self.ends, self.sent = [], []   # for each line: where it ends; when it was sent

    def add(self, line, name, text, number):
        """One more line, if it is what somebody has said; return who."""
        author = self.order.check(name, text)
        if number is not None and number <= self.last_id:
            raise Trouble(f"the id {number} stands after the id {self.last_id}")
        self.last_id = number
        self.data += line
        self.end += len(line)
        self.ends.append(self.end)
        self.sent.append(author.sent.popleft())
        return author

    def has(self, data, place):
        """Whether these bytes stand there: one memcmp(), and nothing is copied."""
        return self.data.startswith(data, place - self.base)

    def line_at(self, place):
        """The number of the line, counted from `base`, in which this place is."""
        return bisect.bisect_right(self.ends, place)

    def start(self, place):
        """Where the line begins in which this place is."""
        number = self.line_at(place)
        return self.ends[number - 1] if number else self.base

    def line(self, start):
        """The line that begins there; nothing at the end of the stream."""
        end = self.data.find(b"\n", start - self.base) + 1
        return bytes(self.data[start - self.base:end])

    def times(self, begin, end):
        """When those lines were sent that end behind `begin` and not behind `end`."""
        return self.sent[self.line_at(begin):self.line_at(end)]

    def forget(self, place):
        """Throw away the whole lines before this place: all have read them."""
        base, lines = self.start(place), self.line_at(place)
        del self.data[:base - self.base], self.ends[:lines], self.sent[:lines]
        self.base = base


class Places:
    """How many people are at which place of the stream, and where the slowest are.

    To look through all the people whenever one has read on would be slow. So there is
    a heap of the places: its first is always the lowest.
    """
    def __init__(self, count):
        self.counts, self.heap = {0: count}, [0]

    def move(self, before, place):
        """Somebody has gone on; return whether the slowest are elsewhere now."""
        if place not in self.counts:
            self.counts[place] = 0
            heapq.heappush(self.heap, place)
        self.counts[place] += 1
        self.counts[before] -= 1
        slowest = self.heap[0]
        while not self.counts[self.heap[0]]:
            del self.counts[heapq.heappop(self.heap)]
        return self.heap[0] != slowest

    def slowest(self):
        return self.heap[0]


# ---------------------------------------------------------------------------- the crowd

def unchecked():
    """TLS with whoever answers: the server is on this computer, and has no secrets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class TLS:
    """A filter for the bytes of one person.

    Not the server's, which is what we measure; and for one thread alone, which makes
    it faster. The first read() or write() begins the handshake.
    """
    plain = memoryview(bytearray(2 * READ_BYTES))   # for all: one is read at a time

    def __init__(self, context):
        self.arrived, self.leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.arrived, self.leaving)
        self.waits = b""            # what is said before the handshake is done

    def encrypt(self, data):
        """Return what is to be sent."""
        if data := self.waits + data:
            try:
                self.tls.write(data)
                self.waits = b""
            except ssl.SSLWantReadError:
                self.waits = data
        return self.leaving.read()

    def decrypt(self, data):
        """Return what has come, until the next call."""
        size = 0
        self.arrived.write(data)
        # Until what is left is no whole record.
        with contextlib.suppress(ssl.SSLWantReadError):
            while self.arrived.pending and (
                    more := self.tls.read(READ_BYTES, self.plain[size:])):
                size += more
        return self.plain[:size]

    def has_to_say(self):
        return self.waits or self.leaving.pending


class Sockets:
    """The connections of all people, and the one loop that serves them all."""

    def __init__(self, people, address, dialect, tls=False):
        self.people, self.address, self.dialect = people, address, dialect
        self.context = unchecked() if tls else None
        self.selector = selectors.DefaultSelector()
        self.buffer = bytearray(READ_BYTES)
        self.view = memoryview(self.buffer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.selector.close()
        for person in self.people:
            person.socket.close()

    def connect(self, person):
        """Connect and say hello; the system of the other side accepts at once."""
        try:
            person.socket.settimeout(10)
            person.socket.connect(self.address)
        except OSError as problem:
            raise NoStart(f"nobody listens on {self.address[0]}:{self.address[1]} "
                          f"({problem.strerror or problem})") from None
        # Else the kernel holds a small message back until the last one has arrived.
        person.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        person.socket.setblocking(False)
        person.tls = self.context and TLS(self.context)
        self.selector.register(person.socket, selectors.EVENT_READ, person)
        self.send(person, self.dialect.hello(person.name))

    def read(self, seconds):
        """Read once from everybody who has something to read; wait for it so long."""
        for key, events in self.selector.select(seconds):
            if events & selectors.EVENT_WRITE:
                self.flush(key.data)
            if events & selectors.EVENT_READ:
                self.receive(key.data)

    def receive(self, person):
        try:
            piece = self.view[:person.socket.recv_into(self.buffer)]
            why = "the server has closed the connection"
            if piece and person.tls and not (piece := self.decrypt(person, piece)):
                return                  # TLS's own business, or half a record
        except BlockingIOError:
            return
        except OSError as problem:      # (ssl.SSLError is one of these)
            piece, why = b"", problem.strerror
        if not piece:
            problem = NoStart if person in self.outside else Trouble
            raise problem(f"{person.name} was cut off: {why}")
        self.take(person, piece)

    def decrypt(self, person, piece):
        piece = person.tls.decrypt(piece)
        if person.tls.has_to_say():
            self.send(person, b"")
        return piece

    def send(self, person, data):
        """Send what the socket takes; the selector says when it takes the rest."""
        waited = bool(person.out)
        person.out += person.tls.encrypt(data) if person.tls else data
        if not waited:
            self.flush(person, watched=False)

    def flush(self, person, watched=True):
        try:
            sent = person.socket.send(person.out)
        except BlockingIOError:
            sent = 0
        except OSError:             # why, the next recv() will tell
            sent = len(person.out)
        person.out = person.out[sent:]
        waits = bool(person.out)
        if waits != watched:
            self.selector.modify(person.socket, selectors.EVENT_READ | (
                selectors.EVENT_WRITE if waits else 0), person)

    def leave(self):
        """Say bye, so that a server that goes on has our names free at once."""
        limit = time.monotonic() + 2
        for person in self.people:
            with contextlib.suppress(OSError):
                person.socket.settimeout(0.1)
                self.send(person, self.dialect.bye)
                person.socket.shutdown(socket.SHUT_WR)
        for person in self.people:
            with contextlib.suppress(OSError):
                # To the end, so that the server closes in good order.
                while time.monotonic() < limit and (
                        person.socket.recv_into(self.buffer)):
                    pass


class Crowd(Sockets):
    """N people who come, talk, and check all that they hear."""

    def __init__(self, address, dialect, options, tell=lambda text: None, tls=False):
        people = [Person(number) for number in range(options.people)]
        super().__init__(people, address, dialect, tls)
        self.options, self.tell = options, tell
        self.senders = people[:options.senders]
        step = max(1, len(people) // SAMPLED)
        for person in people[step // 2::step][:SAMPLED]:
            person.sampled = True
        self.take = self.take_joining       # what is done with bytes that have come
        self.unanswered = set()         # they have said hello, and nothing has come
        self.outside, self.unaware = set(people), set(people)   # not in; not all seen
        self.total = None               # people in the room, when all of us are in it
        self.stream = Stream(Order(people, options.size))
        self.arrivals, self.last_arrivals = Delays(), Delays()
        self.said = 0                   # messages, by all together
        self.due, self.late = FAR, 0    # when --rate wants the next; the latest it was
        self.end = 0                    # of the talk
        self.talking = False
        self.latest = clock()           # when something came or was said at last

    # ---- joining

    def join(self):
        """All come in; return the seconds (until all are in, until all know of all)."""
        begin = clock()
        for person in self.people:
            self.connect(person)
            self.unanswered.add(person)
            self.read(0)                # who came first is not left waiting
            self.wait(lambda: len(self.unanswered) < self.dialect.at_once)
        self.wait(lambda: not self.outside)
        welcomed = clock()
        # Somebody who was here before us is counted too. The first of us saw fewest.
        self.total = min(person.present for person in self.people) - 1
        self.total += len(self.people)
        for person in self.people:
            self.look_around(person)
        self.wait(lambda: not self.unaware)
        self.get_ready()
        return (welcomed - begin) / 1e9, (clock() - begin) / 1e9

    def wait(self, until):
        while not until():
            inside = len(self.people) - len(self.outside)
            self.go_on(f"{inside:,} of {len(self.people):,} are in", 0.2)

    def go_on(self, state, seconds):
        """Tell how far it is, and read. After a long silence that was all."""
        self.tell(state)
        patience = self.options.patience
        if clock() - self.latest > patience * 1e9:
            if missing := self.missing():
                problem = NoStart if self.outside else Trouble
                raise problem(f"{state}, but nothing more has come for {patience:g} s; "
                              f"{missing}")
        self.read(seconds)

    def missing(self):
        """What has not come yet, in a few words; nothing when all has come."""
        for person in self.outside:
            return f"{person.name} is not let in"
        for person in self.unaware:
            return (f"{person.name} knows of {person.present + person.seen:,} of "
                    f"{self.total:,} people")
        slow = max(self.people, key=self.lacks)
        lacks = self.lacks(slow)
        return f"{slow.name} lacks {lacks:,} messages" if lacks else ""

    def take_joining(self, person, piece):
        self.latest = clock()
        self.unanswered.discard(person)
        data = person.rest + bytes(piece)
        while person.present is None and b"\n" in data:
            line, _, data = data.partition(b"\n")
            if answer := self.dialect.enter(person, line):
                self.send(person, answer)
            if person.present is not None:
                self.outside.discard(person)
        # With 5,000 people these are 12,500,000 lines: they are counted, not read.
        end = data.rfind(b"\n") + 1 if person.present is not None else 0
        person.seen += data.count(self.dialect.joined, 0, end)
        person.rest = data[end:]
        self.look_around(person)

    def look_around(self, person):
        """Has this one seen all the others?"""
        if self.total and person.present + person.seen >= self.total:
            self.unaware.discard(person)

    def get_ready(self):
        """All are in: from now on what comes is the talk."""
        self.take = self.take_talk
        if not self.dialect.echo:
            if len(self.senders) == len(self.people):
                raise NoStart("that server sends nobody their own messages, so "
                              "somebody must only listen; choose fewer --senders")
            for person in self.senders:
                person.order = Order(self.people, self.options.size)
        self.places = Places(sum(not person.order for person in self.people))

    # ---- reading

    def take_talk(self, person, piece):
        """Compare what has come with the stream, and take note who has which line."""
        now = self.latest = clock()
        before = person.place
        # Nearly always it is this one comparison.
        if not person.rest and not person.order and self.stream.has(piece, before):
            person.place += len(piece)
        else:
            self.take_slowly(person, person.rest + bytes(piece))
        if person.place != before:
            self.moved(person, before, now)
        if self.due <= now < self.end:      # not only when all have been read for once
            self.say_what_is_due(now)

    def take_slowly(self, person, data):
        """What is new to the stream, or is beside it, is looked at line by line."""
        stream = self.stream
        known = min(len(data), stream.end - person.place)
        if person.order:
            pass
        elif stream.has(data[:known], person.place):
            person.place += known
            data = data[known:]
        else:       # perhaps in the middle of a line: back to where it began
            start = stream.start(person.place)
            data = stream.line(start)[:person.place - start] + data
            person.place = start
        begin = 0
        while end := data.find(b"\n", begin) + 1:
            try:
                self.take_line(person, data[begin:end])
            except Trouble as trouble:
                raise Trouble(f"what came to {person.name}: {trouble}") from None
            begin = end
        person.rest = data[begin:]

    def take_line(self, person, line):
        stream = self.stream
        if not person.order and stream.has(line, person.place):
            person.place += len(line)
        elif message := self.dialect.read(line):
            self.take_message(person, line, *message)
        elif answer := self.dialect.answer(line):
            self.send(person, answer)

    def take_message(self, person, line, name, text, number):
        stream = self.stream
        if person.order:        # not the bytes of the stream: its own are not in them
            person.order.check(name, text)
        elif person.place < stream.end:
            raise Trouble(f"{shorten(line)} where others got "
                          f"{shorten(stream.line(person.place))}")
        else:
            author = stream.add(line, name, text, number)
            person.place = stream.end
            if author.order:        # it gets no copy, so this is its sign to go on
                self.say_more(author)
            else:
                author.own.append(stream.end)

    def moved(self, person, before, now):
        """Somebody has read on, from `before` to its place."""
        place, own, stream = person.place, person.own, self.stream
        if person.sampled:
            self.arrivals.add(now, stream.times(before, place))
        if self.places.move(before, place):
            slowest = self.places.slowest()
            self.last_arrivals.add(now, stream.times(0, slowest))
            stream.forget(slowest)
        if own and own[0] <= place:
            while own and own[0] <= place:
                own.popleft()
            self.say_more(person)

    # ---- talking

    def say(self, person):
        """Let somebody say the next message.

        Each with a send() of its own, as a client does it. Several of them in one
        would spare a fast server most of its reading, which people never do.
        """
        self.latest = now = clock()
        person.sent.append(now)
        text = text_of(person.number, person.said, self.options.size)
        person.said += 1
        self.said += 1
        self.send(person, self.dialect.say(text))

    def say_more(self, person):
        """Fill somebody's window: so many messages in flight."""
        if self.talking and not self.options.rate:
            for _ in range(self.options.window - len(person.sent) - len(person.own)):
                self.say(person)

    def talk(self, seconds):
        """Talk so long, then wait until all have all; return the seconds it took."""
        begin = clock()
        end = self.end = begin + int(seconds * 1e9)
        self.talking = True
        if self.options.rate:
            self.first = self.due = begin
        for person in self.senders:
            self.say_more(person)
        while self.talking or not self.all_have_all():
            now = clock()
            self.say_what_is_due(min(now, end - 1))
            if now >= end:
                self.talking, self.due = False, FAR
            goal = min(self.due, end) if self.talking else FAR
            self.go_on(f"{self.stream.order.messages:,} of {self.said:,} messages have "
                       "arrived", max(0, min(0.2, (goal - now) / 1e9)))
        return (max(self.latest, end) - begin) / 1e9

    def say_what_is_due(self, now):
        """Keep --rate: say what should have been said until now.

        It does not wait for answers: a slow server gets no fewer messages for it.
        """
        while self.due <= now:
            self.late = max(self.late, now - self.due)
            self.say(self.senders[self.said % len(self.senders)])
            self.due = self.first + self.said * 10**9 // self.options.rate

    # ---- has everything come?

    def lacks(self, person):
        """How many messages this one is still owed."""
        if person.order:
            return self.said - person.said - person.order.messages
        read_by_all = self.stream.order.messages - len(self.stream.ends)
        return self.said - read_by_all - self.stream.line_at(person.place)

    def all_have_all(self):
        return (self.stream.order.messages == self.said
                and self.places.slowest() == self.stream.end
                and not any(map(self.lacks, self.senders)))

    def listen_on(self):
        """All have all. What still comes is too much, or half a line."""
        self.read(0.05)
        for person in self.people:
            if person.rest:
                raise Trouble(f"to {person.name} half a line came at the end: "
                              f"{shorten(person.rest)}")


# --------------------------------------------------------------------- one measurement

def measure(server, options, tell):
    """Start the server if need be, measure it, stop it; return the figures."""
    with server:
        try:
            return measure_running(server, options, tell)
        except (Trouble, NoStart) as problem:
            whose = f"{server.name}: " if options.versus else ""
            problem.args = (f"{whose}{problem}{server.last_words()}",)
            raise


def measure_running(server, options, tell):
    """Fill the server's room, talk, and return the figures as a dict."""
    dialect = server.dialect()
    if options.size > dialect.longest:
        raise NoStart(f"a text may have {dialect.longest} characters there; choose "
                      "a smaller --size")
    empty = usage(server.pid)
    with Crowd(server.address, dialect, options, tell, server.tls) as crowd:
        try:
            joining = crowd.join()
            full, busy = usage(server.pid), time.process_time()
            seconds = crowd.talk(options.seconds)
            busy, after = time.process_time() - busy, usage(server.pid)
            crowd.listen_on()
        finally:
            if server.process is None:
                crowd.leave()
    return figures(options, crowd, joining, seconds, busy / seconds,
                   (empty, full, after))


# --------------------------------------------------------------------- the command line

class Options(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}. Type --help to see the options.\n")


def number(low, high, kind=int):
    def convert(word):
        with contextlib.suppress(ValueError):
            if low <= (value := kind(word)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"it wants a number from {low} to {high}")
    return convert


def command(line):
    if words := shlex.split(line):
        return words
    raise ValueError                # argparse makes a sentence of it


NOTES = f"""“arrival” is the time from sending to arriving, of all deliveries to
{SAMPLED} of the people (timing everybody would make this program slow). “last has
it” is the time until the last of all people has a message, of all messages. Exit
status: 0 all is well; 1 something was lost, doubled, swapped or garbled, or somebody
was cut off; 2 it could not begin."""


def read_options(words=None):
    """Return the options in `words`, or in the command line that started us."""
    options = Options(
        prog="crowd.py", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__.partition("\n\nHow ")[0], epilog=NOTES)
    add = options.add_argument
    add("people", type=number(1, 20_000), metavar="N", help="how many people")
    add("--senders", type=number(1, 20_000), metavar="K",
        help="how many of them talk (default: 10, or all of fewer)")
    pace = options.add_mutually_exclusive_group()
    pace.add_argument("--window", type=number(1, 10_000), default=16, metavar="W",
                      help="each sender keeps W messages in flight: sent, and not come "
                      "back to the sender yet (default: 16)")
    pace.add_argument("--rate", type=number(1, 1_000_000), metavar="R",
                      help="instead: R messages a second, of all senders together")
    add("--seconds", type=number(0.1, 3600, float), default=5, metavar="S",
        help="how long they talk (default: 5)")
    add("--size", type=number(16, 4000), default=40, metavar="C",
        help="characters of a text (default: 40)")
    add("--patience", type=number(0.1, 600, float), default=10, metavar="S",
        help="when nothing comes for S seconds, it is lost (default: 10)")
    add("--json", action="store_true", help="print the figures as one JSON object")
    add_servers(add)
    return check(options, options.parse_args(words))


def add_servers(add):
    """The options that say which server it is, and which others."""
    add("--port", type=number(1, 65535),
        help="where a server runs already on this computer (default: it is started); "
        "without --rate 0 it is its pace that is measured")
    add("--pid", type=number(1, 2**31), metavar="PID",
        help="its process, to show memory and CPU of that one too")
    add("--irc", action="store_true", help="it speaks IRC (a server that is started "
        "here and prints “IRC … listening on” is known by that)")
    add("--tls", action="store_true", help="talk TLS to the server. The certificate is "
        "not checked: the crowd is here to measure, and has nothing to hide")
    add("--versus", type=command, action="append", default=[], metavar="COMMAND",
        help="measure another server too, in turn with ours, and show the ratios (ours "
        "to theirs); it must print “… listening on HOST:PORT”; may stand twice; "
        "with --tls in it, the crowd talks TLS to it")
    add("--versus-plain", dest="versus", action="append_const", const=OURS,
        help="the other server is ours, without --tls")
    add("--pairs", type=number(1, 100), default=3, metavar="P",
        help="--versus: how many times (default: 3)")


def check(parser, options):
    options.senders = options.senders or min(10, options.people)
    if options.senders > options.people:
        parser.error(f"{options.senders} senders are more than {options.people} people")
    if (options.irc or options.pid) and not options.port:
        parser.error("--irc and --pid are about a server that runs already: say --port")
    if os.name == "nt" and options.people > 500:
        parser.error("Windows lets one program watch 500 people at most in this way")
    return options


def run(options, tell):
    """Measure what is asked for; return the text to print."""
    allow_open_sockets(options.people + 64)
    # A crowd is a load, so it goes to this computer alone.
    ours = Server("ChattyCat", OURS + ["--tls"] * options.tls,
                  options.port and ("127.0.0.1", options.port),
                  Irc if options.irc else ChattyCat, options.pid)
    if not options.versus:
        found = measure(ours, options, tell)
        return json.dumps(found) if options.json else report(found)
    servers = [ours] + [
        Server("ChattyCat, plain" if words is OURS else shlex.join(words), words)
        for words in options.versus]
    runs = versus(servers, options.pairs,
                  lambda server: measure(server, options, tell), tell)
    others = list(comparisons(servers, runs))
    if options.json:
        return json.dumps({"ours": runs[0], "others": others})
    return "\n\n".join(map(report_comparison, others))


def main():
    """Return the exit status: 0, 1, 2 as --help says, 130 after Ctrl+C."""
    options, tell = read_options(), Progress()
    # Ctrl+C and `kill`; a job that a shell has started with “&” ignores the first.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.default_int_handler)
    text, words, status = "", "", 0
    try:
        text = run(options, tell)
    except (Trouble, NoStart, OSError) as problem:
        words, status = f"{problem}.", 1 if isinstance(problem, Trouble) else 2
        if options.json:
            text = json.dumps({"trouble": str(problem)})
    except KeyboardInterrupt:
        words, status = "stopped.", 130
    tell.clear()
    if words:
        print(f"crowd.py: {words}", file=sys.stderr)
    if text:
        print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
