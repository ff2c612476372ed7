"""Unmoved by bad guests: four people talk on as if nobody else were there.

The four are in a process of their own, or what a guest does in this one would be in
their times. Each says a line every 10 ms. From its send() to its arrival at each of
the four, the 99th percentile may grow by 5 ms at most while the guest is there.
"""
import collections
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import selectors
import socket
import subprocess
import sys
import time

import pytest

from people import COMINGS, Person, ServerProcess, keep_apart

NUMBERS = itertools.count(1)
LONG = pytest.mark.long
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TRIES = 5               # see unmoved()
AT_LEAST = 100          # lines that the four say in one phase: 0.25 s


# ----------------------------------------------------------------------------- the four

SAID = re.compile(rb'"text": ?"(\w+) (\d+)"')


class Talkers:
    """The four, in their own process: they speak in turn and read.

    Everybody is owed the same bytes. So one of them is read line by line, whoever is
    first, and the other three are compared with it: that is quick enough for a flood.
    """
    def __init__(self, server, pause):
        """`pause`: seconds between two lines, whoever says them."""
        self.people = [Person(server, f"Talker{number}") for number in range(4)]
        self.pause = pause
        self.sent_at = []                   # when each of their lines was sent
        self.times = []                     # how long each took to each of the four
        self.heard = collections.Counter()  # name -> how many lines
        self.left = {}                      # name -> reason
        self.stream, self.read_lines = bytearray(), 0   # what the first of them has
        self.place = dict.fromkeys(self.people, 0)      # how far in it each of them is
        # person -> (where in the stream a line of the four ends, when it was sent)
        self.coming = {person: collections.deque() for person in self.people}
        self.selector = selectors.DefaultSelector()
        self.people[0].send({"type": "chat", "text": "start"})
        for person in self.people:          # from here on it is the same for all
            person.expect("chat", skip=COMINGS, text="start")
            person.socket.settimeout(5)
            self.selector.register(person.socket, selectors.EVENT_READ, person)
            self.take(person, bytes(person.buffer))

    def phase(self, least, enough):
        """Say at least so many lines, and until `enough()`; then read what is on its
        way. Return the times."""
        self.times, begin = [], len(self.sent_at)
        due = time.perf_counter()
        while len(self.sent_at) - begin < least or not enough():
            if time.perf_counter() >= due:
                self.speak()
                due = max(due + self.pause, time.perf_counter())
            self.read(max(0, due - time.perf_counter()))
        limit = time.monotonic() + 10
        while missing := 4 * (len(self.sent_at) - begin) - len(self.times):
            self.read(0.1)
            assert time.monotonic() < limit, f"{missing} lines have not come"
        return self.times

    def speak(self):
        number, who = divmod(len(self.sent_at), 4)
        self.sent_at.append(time.perf_counter())
        self.people[who].socket.sendall(count(f"Talker{who}", number, number + 1))

    def read(self, limit):
        for key, _ in self.selector.select(limit):
            data = key.fileobj.recv(262144)
            assert data, f"{key.data.name} was cut off"
            self.take(key.data, data)

    def take(self, person, data):
        now, place = time.perf_counter(), self.place[person]
        known = len(self.stream) - place
        assert self.stream.startswith(data[:max(known, 0)], place), (
            f"{person.name} got other bytes than somebody else: {data[:200]!r}")
        self.place[person] += len(data)
        if len(data) > known:
            self.stream += data[known:]
            self.read_stream()
        coming = self.coming[person]
        while coming and coming[0][0] <= self.place[person]:
            self.times.append(now - coming.popleft()[1])

    def read_stream(self):
        end = self.read_lines
        for line in self.stream[end:self.stream.rfind(b"\n") + 1].splitlines(True):
            end += len(line)
            self.hear(line, end)
        self.read_lines = end

    def hear(self, line, end):
        """Everybody counts "NAME 0", "NAME 1", …: nothing is lost, nothing comes twice.
        """
        said = SAID.search(line)
        if said is None:
            message = json.loads(line)
            if message["type"] == "left":
                self.left[message["name"]] = message["reason"]
            return
        name, number = said[1].decode(), int(said[2])
        assert number == self.heard[name], f"{said[0]}, and not {self.heard[name]}"
        self.heard[name] += 1
        if name.startswith("Talker"):
            for coming in self.coming.values():
                coming.append((end, self.sent_at[4 * number + int(name[-1])]))


def count(name, start, end):
    """Lines that say "NAME 0", "NAME 1", …"""
    return "".join('{"type":"chat","text":"%s %d"}\n' % (name, number)
                   for number in range(start, end)).encode()


def talk(pipe, host, port, pause):
    """What the four's process runs: a phase for each number in the pipe, which says
    how many lines it has at least."""
    server = collections.namedtuple("Server", "host port")(host, port)
    try:
        talkers = Talkers(server, pause)
        pipe.send("ready")
        while True:
            times = sorted(talkers.phase(pipe.recv(), pipe.poll))
            pipe.recv()
            pipe.send((times, talkers.heard, talkers.left))
    except EOFError:
        pass                    # the test is over
    except (AssertionError, OSError) as trouble:
        pipe.send(str(trouble))


Phase = collections.namedtuple("Phase", "p99 longest heard left")


def nobody():
    """The guest of a quiet time."""


class Four:
    """The four, as a test sees them."""

    def __init__(self, server, pause=0.0025):
        # "spawn" and not "fork", which would copy our open sockets as well.
        context = multiprocessing.get_context("spawn")
        self.server = server
        self.pipe, end = context.Pipe()
        self.process = context.Process(
            target=talk, args=(end, server.host, server.port, pause), daemon=True)
        self.process.start()
        end.close()
        assert self.answer(30) == "ready"
        self.phase()                        # the first lines of all are slower

    def answer(self, limit):
        assert self.pipe.poll(limit), f"the four say nothing for {limit} s"
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise AssertionError("the four's process has ended") from None
        assert not isinstance(answer, str) or answer == "ready", answer
        return answer

    def begin(self, least=AT_LEAST):
        self.pipe.send(least)

    def end(self):
        self.pipe.send("enough")
        times, heard, left = self.answer(30)
        # Of 400 times the p99 is the fifth from the end.
        p99 = times[-1 - len(times) // 100]
        return Phase(1000 * p99, 1000 * times[-1], heard, left)

    def phase(self, guest=nobody):
        """Let them talk while `guest()` does its thing and what it returns is open."""
        people = ()
        self.begin()
        try:
            people = guest() or ()
        finally:
            phase = self.end()
            for person in people:
                person.close()
        return phase

    def see_leaving(self, names):
        """Talk on until the four have read that all of these have left."""
        limit = time.monotonic() + 20
        while True:
            self.begin(least=4)
            phase = self.end()
            if phase.left.keys() >= set(names):
                return phase
            assert time.monotonic() < limit, f"{phase.left} have left, and not {names}"

    def close(self):
        self.pipe.close()
        self.process.terminate()
        self.process.join(5)


def times_the_limit(limit, p99, without):
    """How much longer they waited with a guest; 1 is as much as they may.

    That is `limit` ms. But where they wait longer than that without a guest, they have
    to share the processors with another program, and a wait of 1 ms becomes several.
    """
    return (p99 - without) / max(limit, without)


class Unmoved:
    """Compares four who have a guest with four others on a server that has none.

    Both at the same time: what else this computer does, another test or a search for
    updates, can hold up anybody for far longer than 5 ms, and so it holds up both. But
    not to the millisecond. So there are up to five tries, and the first good one will
    do: a server that is held up by its guest is held up each time.
    """
    def __init__(self, others):
        self.others = others

    def __call__(self, four, guest, prepare=nobody):
        more = []
        for _ in range(TRIES):
            prepare()
            with_guest, without = self.compare(four, guest)
            more.append(times_the_limit(5, with_guest.p99, without.p99))
            print(f"p99 {with_guest.p99:.2f} ms, {without.p99:.2f} without guest")
            if more[-1] <= 1:
                break
        assert min(more) <= 1, "the limit is 1 (see times_the_limit)"

    def compare(self, four, guest):
        keep_apart(four.server, self.others.server)
        self.others.begin()
        try:
            with_guest = four.phase(guest)
        finally:
            without = self.others.end()
        return with_guest, without


@pytest.fixture(scope="module")
def unmoved():
    with ServerProcess("--rate", "0", "--recent", "0") as other_server:
        others = Four(other_server)
        yield Unmoved(others)
        others.close()


@pytest.fixture(scope="module")
def server():
    """One server for most of this file."""
    with ServerProcess("--rate", "0", "--recent", "0", "--max-clients", "1000",
                       console=True) as process:
        yield process


@pytest.fixture(scope="module")
def talking(server):
    four = Four(server)
    yield four
    four.close()


def resources(server):
    """(threads, descriptors) of the server's process; None where there is no /proc."""
    if not os.path.exists(f"/proc/{server.pid}/fd"):
        return None
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    return (int(re.search(r"Threads:\s*(\d+)", status)[1]),
            len(os.listdir(f"/proc/{server.pid}/fd")))


def resident(server):
    """The bytes of memory that the server has now; 0 where there is no /proc."""
    try:
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return 1024 * int(re.search(r"VmRSS:\s*(\d+)", status)[1])


def wait_for_resources(server, wanted):
    limit = time.monotonic() + 20           # a goodbye may wait for 10 s
    while resources(server) != wanted:
        assert time.monotonic() < limit, (
            f"{wanted} threads and descriptors before, {resources(server)} after")
        time.sleep(0.01)


@pytest.fixture
def four(talking, server):
    """The four; and when the guest has gone, nothing of it is left in the server."""
    before = resources(server)
    yield talking
    wait_for_resources(server, before)


def guest_name():
    """Each time another one: whose connection breaks keeps the name for a minute."""
    return f"Guest{next(NUMBERS)}"


# ------------------------------------------------------------------------------- guests

@pytest.mark.parametrize("inside", [False, True], ids=["before hello", "inside"])
def test_half_a_line(unmoved, four, server, inside):
    def guest():
        people = [Person(server, guest_name() if inside else None) for _ in range(10)]
        for person in people:
            person.send_raw(b'{"type": "cha')
        return people
    unmoved(four, guest)


def exchange(person, data, last=None):
    """Send `data` and read meanwhile, until `last` has come or the server closes.

    Whoever only sends may be cut off for not reading, and that is another test.
    """
    came, data, limit = bytearray(), memoryview(data), time.monotonic() + 30
    person.socket.settimeout(0)
    with selectors.DefaultSelector() as selector:
        selector.register(person.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while True:
            assert time.monotonic() < limit, f"{len(data)} bytes were not read"
            events = sum(events for _, events in selector.select(1))
            if events & selectors.EVENT_WRITE:
                data = data[person.socket.send(data[:65536]):]
                if not data:
                    selector.modify(person.socket, selectors.EVENT_READ)
            if events & selectors.EVENT_READ:
                piece = person.socket.recv(262144)
                came += piece
                start = max(0, len(came) - len(piece) - 100)
                if not piece or last and came.find(last, start) >= 0:
                    return came


def ends(came, reason):
    """The last line that came is the goodbye: it has arrived, whatever was sent."""
    assert came.endswith(b"\n")
    last = json.loads(came.splitlines()[-1])
    assert (last["type"], last["reason"]) == ("goodbye", reason)


MEGABYTE = random.Random(1).randbytes(10**6)


@pytest.mark.parametrize("inside", [False, True], ids=["before hello", "inside"])
@pytest.mark.parametrize("data, reason", [
    (MEGABYTE, "too_many_errors"), (b"x" * 10**7, "line_too_long")],
    ids=["1 MB of garbage", "10 MB without a newline"])
def test_garbage(unmoved, four, server, inside, data, reason):
    name = guest_name()

    def guest():
        # By the second try the name of the first one is free: it was not lost.
        person = Person(server, name if inside else None)
        ends(exchange(person, data), reason)
        return [person]

    unmoved(four, guest)
    assert not inside or four.see_leaving([name]).left[name] == "error"


def heard(name, number):
    return b'"%s %d"' % (name.encode(), number)


# 100,000 are 15 MB for each of the four, who are one process. Where that has to wait
# for others, more than 2 MiB lie in front of it at times: it is too slow a reader.
@pytest.mark.parametrize("messages", [
    20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_flood_without_a_limit(unmoved, four, server, messages):
    """Messages as fast as they go; the four get every one of them."""
    names = []

    def guest():
        names.append(guest_name())
        person = Person(server, names[-1])
        exchange(person, count(names[-1], 0, messages),
                 last=heard(names[-1], messages - 1))
        person.leave()

    unmoved(four, guest)
    heard_of = four.see_leaving(names).heard
    assert all(heard_of[name] == messages for name in names)


@LONG
def test_a_flood_that_is_slowed(unmoved, start_server):
    """With --rate 50 the server reads no more of it than that; what it reads counts."""
    server = start_server("--recent", "0")
    four = Four(server, pause=0.006)        # 42 lines a second each, which is allowed
    begin, names = time.monotonic(), []

    def guest():
        names.append(guest_name())
        person = Person(server, names[-1])
        exchange(person, count(names[-1], 0, 100_000), last=heard(names[-1], 130))
        person.reset()

    unmoved(four, guest)
    seconds = time.monotonic() - begin
    after = four.phase()
    four.close()
    for name in names:
        assert 130 < after.heard[name] <= 100 + 50 * (seconds + 1)


# --------------------------------------------------------------- one who does not read

MAY_WAIT = 2 * 2**20        # what may wait for somebody who does not read


class Load:
    """Somebody who says 20,000 lines a second, 100 at a time, and reads them all."""

    def __init__(self, server):
        self.name = guest_name()
        self.person = Person(server, self.name)
        self.said = 0

    def say(self, lines):
        begin, start = time.monotonic(), self.said
        while self.said < start + lines:
            data = count(self.name, self.said, self.said + 100)
            exchange(self.person, data, last=heard(self.name, self.said + 99))
            self.said += 100
            # Only a pace: the server would take more, but then all would be waiting
            # for the processor, and nobody could tell for whom else.
            ahead = begin + (self.said - start) / 20_000 - time.monotonic()
            time.sleep(max(0, ahead))


def highest(server, four, guest):
    """(A phase of the four, the most bytes that the server held meanwhile).

    Linux counts the latter; elsewhere it is 0.
    """
    process = pathlib.Path(f"/proc/{server.pid}")
    if not (process / "clear_refs").exists():
        return four.phase(guest), 0
    (process / "clear_refs").write_text("5")        # forget the highest so far
    phase = four.phase(guest)
    status = (process / "status").read_text()
    return phase, 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])


def come_back(server, person):
    """Come back as somebody who was cut off, and read all that is kept for them."""
    again = Person(server)
    again.hello(person.name, session=person.welcome["session"],
                since=person.welcome["last_id"])
    welcome = again.expect("welcome", name=person.name, resumed=True)
    ids = [again.expect("chat", skip=COMINGS)["id"]]
    while ids[-1] < welcome["last_id"]:
        ids.append(again.expect("chat", skip=COMINGS)["id"])
    again.leave()
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert welcome["gap"] or ids[0] == person.welcome["last_id"] + 1


def test_one_who_never_reads(start_server):
    """60,000 messages pass. What waits for one may be 2 MiB, and cost a quarter more.

    The history keeps its newest lines in memory too. So it is filled before, with the
    same lines; from then on it forgets one for each that comes.
    """
    server = start_server("--rate", "0", "--recent", "0")
    four, load, sleepers, more = Four(server), Load(server), [], []
    four.phase(lambda: load.say(6_000))

    def guest():
        # A small window, so that what is not read waits in the server and not here.
        sleepers.append(Person(server, guest_name(), receive_buffer=4096))
        load.say(60_000)

    # In turn and not at the same time as elsewhere: who talks so much should not have
    # to share the processor with another one like that.
    while not more or more[-1] > 1 and len(more) < TRIES:
        before, least = highest(server, four, lambda: load.say(6_000))
        during, most = highest(server, four, guest)
        after = four.phase(lambda: load.say(6_000))
        more.append(times_the_limit(3, during.p99, (before.p99 + after.p99) / 2))
        print(f"p99 {before.p99:.2f} {during.p99:.2f} {after.p99:.2f} ms, "
              f"{most - least:,} bytes more")
        assert most - least <= 1.25 * MAY_WAIT
    assert min(more) <= 1
    load.person.leave()
    after = four.see_leaving([sleeper.name for sleeper in sleepers])
    four.close()
    for sleeper in sleepers:
        assert after.left[sleeper.name] == "too_slow"
        with pytest.raises(ConnectionResetError):
            while sleeper.read_line():
                pass
        sleeper.close()
        come_back(server, sleeper)


# --------------------------------------------------------------- those who say nothing

def may_open(descriptors):
    """Let this process open so many, or skip the test."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < descriptors:
        pytest.skip(f"this computer lets a process open {hard} descriptors only")
    if soft < descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))


def goodbyes(people, wanted):
    """Wait until the server has parted with so many of them; return those."""
    gone, limit = [], time.monotonic() + 20
    with selectors.DefaultSelector() as selector:
        for person in people:
            selector.register(person.socket, selectors.EVENT_READ, person)
        while len(gone) < wanted:
            assert time.monotonic() < limit, f"{len(gone)} of {wanted} were sent away"
            for key, _ in selector.select(1):
                key.data.expect("goodbye", reason="hello_timeout")
                assert key.data.until_closed() == []
                selector.unregister(key.fileobj)
                key.data.close()
                gone.append(key.data)
    return gone


def test_500_who_say_nothing(unmoved, four, server):
    """Of those who are older than 5 s, the 64 youngest may stay.

    Two moments may move the four: when the 500 come, and when 436 are sent away.
    """
    may_open(1000)
    crowd = []

    def clear():
        for person in crowd:
            person.close()
        crowd.clear()

    def come():
        crowd.extend(Person(server) for _ in range(500))

    def come_again():
        if any(person.ended for person in crowd):
            clear()
            come()

    def sent_away():
        assert set(goodbyes(crowd, 436)) == set(crowd[:436])

    unmoved(four, come, prepare=clear)
    unmoved(four, sent_away, prepare=come_again)
    clear()


# ------------------------------------------------------------------- broken connections

def waits(server, name):
    """Whether the operator reads in /stats that something waits for somebody."""
    # Behind the answer we put another one, so that we know when it has all come.
    mark, start = f"/mark{next(NUMBERS)}", len(server.lines)
    server.type_line("/stats")
    server.type_line(mark)
    server.wait_for_line(mark)
    return any(re.search(rf"{name}\b.*\d bytes", line) for line in server.lines[start:])


def just_connected(server):
    return Person(server)


def half_a_hello(server):
    person = Person(server)
    person.send_raw(b'{"type":"hello","na')
    return person


def after_hello(server):
    return Person(server, guest_name())


def within_a_line(server):
    person = after_hello(server)
    person.send_raw(b'{"type":"chat","text":"unfin')
    return person


def something_waits(server, more=0):
    """A small window, and private lines to oneself until the kernel takes no more."""
    person = Person(server, guest_name(), receive_buffer=4096)
    line = json.dumps({"type": "chat", "text": "x" * 3900, "to": person.name}) + "\n"
    for _ in range(300):
        # Not much at a time: past 2 MiB they would be thrown out.
        person.send_raw(10 * line.encode())
        if waits(server, person.name):
            if not more:
                return person
            more -= 1
    raise AssertionError("all of it lies in the kernel")


def history_is_sent(server):
    """Come back to a history that is 1 MB more than the kernel takes."""
    first = something_waits(server, more=25)
    first.reset()
    person = Person(server, receive_buffer=4096)
    person.hello("", session=first.welcome["session"], since=0)
    person.expect("welcome", name=first.name, resumed=True)
    return person


def leaves_unread(server):
    """Has said bye, but the goodbye stands behind what they do not read."""
    person = something_waits(server)
    person.send({"type": "bye"})
    server.wait_for_line(rf"{person.name} left \(bye")
    return person


def leaves_and_stays(server):
    """Has read the goodbye, and does not close."""
    person = after_hello(server)
    person.send({"type": "bye"})
    person.expect("goodbye", skip=["chat"])
    return person


@pytest.mark.parametrize("state, times", [
    (just_connected, 30), pytest.param(half_a_hello, 30, marks=LONG),
    (after_hello, 30), (within_a_line, 30),
    (something_waits, 2), (history_is_sent, 2),
    pytest.param(leaves_unread, 2, marks=LONG),
    pytest.param(leaves_and_stays, 30, marks=LONG)],
    ids=lambda value: getattr(value, "__name__", None))
def test_a_reset(unmoved, four, server, state, times):
    def prepare():
        people[:] = [state(server) for _ in range(times)]
        names.extend(person.welcome["name"] for person in people if person.welcome)

    def guest():
        for person in people:
            person.reset()

    people, names = [], []
    unmoved(four, guest, prepare=prepare)
    reason = "bye" if state in (leaves_unread, leaves_and_stays) else "lost"
    after = four.see_leaving(names)
    assert {after.left[name] for name in names} <= {reason}
    limit = time.monotonic() + 10
    while any(waits(server, name) for name in names):
        assert time.monotonic() < limit, "something waits for people who have gone"


# ------------------------------------------------------------- no room in the computer

class FewDescriptors(ServerProcess):
    """A server that may open only `most` descriptors (not on Windows)."""

    def __init__(self, most, *options):
        super().__init__(*options)
        self.most = most
        self.resource = pytest.importorskip("resource")

    def limit(self):
        self.resource.setrlimit(self.resource.RLIMIT_NOFILE, (self.most, self.most))

    def open_process(self, env):
        return subprocess.Popen(
            self.command, env=env, stdin=self.stdin, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, preexec_fn=self.limit)


def let_in(server, name):
    """Say hello; return the Person, or None where the server has no room for one more.

    Then that is said in a sentence, and the connection ends in good order, though the
    hello was perhaps never read.
    """
    person = Person(server)
    person.hello(name)
    answer = person.read()
    if answer["type"] == "welcome":
        person.name = name
        return person
    assert answer["code"] == "server_full" and answer["text"]
    assert person.expect("goodbye", reason="server_full")["text"]
    assert person.until_closed() == []
    person.close()


def fill(server):
    """Let people in until no more fit; return them."""
    people = []
    while person := let_in(server, f"Cat{len(people)}"):
        people.append(person)
        assert len(people) < 200, "there is room for more than there can be"
    return people


def full_and_not_full_again(unmoved, server, four):
    """Nobody more fits in. The four talk on, the operator is told once, and when
    somebody leaves there is room again."""
    before, start = resources(server), len(server.lines)
    people = fill(server)
    unmoved(four, lambda: [let_in(server, "Late") for _ in range(10)].clear())
    silent = Person(server)                     # who says nothing is told as well
    silent.expect("error", code="server_full")
    silent.expect("goodbye", reason="server_full")
    assert silent.until_closed() == []
    told = [line for line in server.lines[start:] if not re.search(
        r"  \S+ (joined from|left \(|is back)", line)]
    assert len(told) == 1, told
    people.pop().leave()
    limit = time.monotonic() + 10
    while not (person := let_in(server, "Early")):
        assert time.monotonic() < limit, "there is no room again"
    person.say("There is room again")
    four.phase()
    for person in [person, *people]:
        person.leave()
    wait_for_resources(server, before)
    four.close()


# A person takes two descriptors: one of the two servers has one left over.
@pytest.mark.parametrize("most", [40, pytest.param(41, marks=LONG)])
def test_no_descriptor_is_left(unmoved, most):
    with FewDescriptors(most, "--rate", "0", "--recent", "0") as server:
        full_and_not_full_again(unmoved, server, Four(server))


@LINUX
def test_no_thread_is_left(unmoved, start_server):
    """Each thread needs memory for its stack. The server may have one stack and a half
    more than it has: one more gets in, and the half is enough to talk."""
    resource = pytest.importorskip("resource")
    server = start_server("--rate", "0", "--recent", "0")
    four = Four(server)
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    stack = 8 * 2**20 if stack == resource.RLIM_INFINITY else stack
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    now = 1024 * int(re.search(r"VmSize:\s*(\d+)", status)[1])
    most = now + stack * 3 // 2
    resource.prlimit(server.pid, resource.RLIMIT_AS, (most, most))
    full_and_not_full_again(unmoved, server, four)


# ----------------------------------------------------------------- coming and going

class ComingAndGoing:
    """A room where in each round 10 people say a line, one leaves and one comes."""

    def __init__(self, server, people):
        self.server, self.said, self.rounds = server, 0, 0
        self.came = 0                       # how many were new, and did not come back
        self.order = []                     # of the lines, as the first one got them
        self.place = {}                     # person -> how far in it they are
        self.selector = selectors.DefaultSelector()
        self.gone = collections.deque()     # who lost the connection
        for _ in range(people):
            self.come(guest_name())

    def come(self, name, session=""):
        person = Person(self.server)
        person.hello(name, session=session, since=10**9)    # nothing of the past
        welcome = person.expect("welcome")
        assert welcome["resumed"] == bool(session)
        self.came += not session
        person.name = welcome["name"]
        self.place[person] = self.said
        self.selector.register(person.socket, selectors.EVENT_READ, person)

    def go(self, person):
        """With a bye, by a reset, or by a close; who was cut off will come back."""
        self.selector.unregister(person.socket)
        del self.place[person]
        way = self.rounds % 4
        if way == 0:
            person.send({"type": "bye"})
        elif way % 2:
            self.gone.append(person)
        person.reset() if way == 1 else person.close()

    def read(self):
        """Everybody gets the same lines in the same order, and each of them once."""
        ready = self.selector.select(10)
        assert ready, "nothing comes any more"
        for key, _ in ready:
            person = key.data
            data = key.fileobj.recv(262144)
            assert data, f"{person.name} was cut off"
            person.buffer += data
            end = person.buffer.rfind(b"\n") + 1
            numbers = [int(said[2]) for said in SAID.finditer(person.buffer, 0, end)]
            del person.buffer[:end]
            place = self.place[person]
            self.place[person] += len(numbers)
            self.order += numbers[len(self.order) - place:]
            assert numbers == self.order[place:self.place[person]], (
                f"{person.name} got other lines than somebody else: {numbers}")

    def round(self):
        people = list(self.place)
        for person in people[:10]:
            person.send_raw(count("line", self.said, self.said + 1))
            self.said += 1
        while any(place < self.said for place in self.place.values()):
            self.read()
        assert sorted(self.order[-10:]) == list(range(self.said - 10, self.said))
        self.go(people[self.rounds % len(people)])
        back = self.gone.popleft() if self.rounds % 2 and len(self.gone) > 5 else None
        self.come(*(back.name, back.welcome["session"]) if back else (guest_name(),))
        self.rounds += 1

    def deliver(self, lines):
        end = self.said + lines
        while self.said < end:
            self.round()


@pytest.mark.parametrize("people, deliveries", [
    (50, 100_000),
    pytest.param(200, 2_000_000, marks=[LONG, pytest.mark.timeout(600)])])
def test_coming_and_going_leaves_nothing_behind(start_server, people, deliveries):
    """Threads and descriptors are as before, and memory is within 5 %.

    Who has left may come back for 24 h, so the server keeps their session (2,000 of
    them at most). Those are 0.8 KiB each, and 1 % of it here.
    """
    server = start_server(
        "--rate", "0", "--recent", "0", "--max-clients", people + 10)
    load = Load(server)
    load.say(6_000)                 # what the history keeps in memory is full of these
    load.person.leave()
    room = ComingAndGoing(server, people)
    before = resources(server)
    room.deliver(deliveries // people // 10)
    wait_for_resources(server, before)
    start, came = resident(server), room.came
    room.deliver(deliveries // people * 9 // 10)
    wait_for_resources(server, before)
    end, left = resident(server), room.came - came
    print(f"{start:,} bytes after a tenth, {end:,} at the end; {left} have left")
    assert end <= 1.05 * start
    for person in room.place:
        person.close()


# ------------------------------------------------------------------------- a full house

class House:
    """Thousands who come at once, in one loop; each keeps only the latest bytes."""

    def __init__(self, server):
        self.server, self.latest = server, {}
        self.selector = selectors.DefaultSelector()

    def come(self, people):
        """Let so many in at once; return the seconds until the last has the welcome."""
        begin, waiting = time.monotonic(), set()
        for _ in range(people):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((self.server.host, self.server.port))
            self.selector.register(sock, selectors.EVENT_WRITE)
            self.latest[sock] = b""
            waiting.add(sock)
        while waiting:
            for sock in self.heard(b'"type":"welcome"'):
                waiting.discard(sock)
        return time.monotonic() - begin

    def heard(self, word, limit=60):
        """Read once from all who have something; return those who have heard `word`."""
        ready = self.selector.select(limit)
        assert ready, f"nothing came for {limit} s"
        return [key.fileobj for key, events in ready
                if self.serve(key.fileobj, events) and self.read(key.fileobj, word)]

    def serve(self, sock, events):
        """Say hello as soon as connected. Return whether there is something to read."""
        if events & selectors.EVENT_WRITE:
            hello = {"type": "hello", "name": f"Cat{sock.fileno()}", "version": 1}
            sock.send(json.dumps(hello).encode() + b"\n")
            self.selector.modify(sock, selectors.EVENT_READ)
        return events & selectors.EVENT_READ

    def read(self, sock, word):
        data = sock.recv(262144)
        assert data, "somebody was cut off"
        text = self.latest[sock] + data
        self.latest[sock] = text[-100:]
        return word in text

    def tell(self, number):
        """One message to all; return the seconds until the last of them has it."""
        begin, waiting = time.monotonic(), set(self.latest)
        next(iter(waiting)).send(count("line", number, number + 1))
        while waiting:
            waiting.difference_update(self.heard(heard("line", number)))
        return time.monotonic() - begin

    def close(self):
        for sock in self.latest:
            sock.close()
        self.selector.close()


@LONG
@pytest.mark.timeout(600)
@pytest.mark.parametrize("people, at_once", [(1000, 1000), (5000, 500)])
def test_a_full_house(start_server, people, at_once):
    """1,000 come at once; one message to 5,000 in one room in less than a second."""
    may_open(2 * people + 100)              # the server's, which has the same limit
    server = start_server("--rate", "0", "--recent", "0", "--max-clients", people)
    house = House(server)
    seconds = [house.come(at_once) for _ in range(people // at_once)]
    house.tell(0)                           # behind it nobody has anything to read
    told = [house.tell(number) for number in (1, 2, 3)]
    print(f"came in {sum(seconds):.1f} s; told in {told} s; "
          f"{resident(server) / people / 1024:.0f} KiB a person")
    assert min(told) < 1
    house.close()
