"""A full room, and people who read slowly, late or never."""
import json
import os
import selectors
import signal
import subprocess
import sys
import time

import pytest

from people import SERVER, Person, ServerProcess

LONG_LIMIT = 60         # seconds for what takes one here, on a computer that is busy


class Crowd:
    """Many people and one loop that reads for all of them.

    Everybody is owed the very same bytes. So there is one `stream`, what the
    furthest reader has; whatever comes to anybody else is compared with it byte by
    byte, and only once, at the end, is it read as messages.
    """
    def __init__(self, people):
        self.people = people
        self.stream = bytearray()
        self.lines = 0                              # in the stream, until now
        self.taken = {person: 0 for person in people}
        self.selector = selectors.DefaultSelector()
        for person in people:
            self.selector.register(person.socket, selectors.EVENT_READ, person)

    def read_some(self, limit):
        """Read once from everybody who has something to read."""
        ready = self.selector.select(limit)
        assert ready, f"nothing came for {limit} s, after {self.lines} lines"
        for key, _ in ready:
            self.take(key.data, key.data.socket.recv(262144))

    def take(self, person, piece):
        assert piece, f"{person} was cut off after {self.lines} lines"
        place = self.taken[person]
        known = len(self.stream) - place
        assert self.stream[place:place + len(piece)] == piece[:max(known, 0)], (
            f"{person.name} got other bytes than somebody else: {piece[:200]!r}")
        if len(piece) > known:
            self.stream += piece[known:]
            self.lines += piece[known:].count(b"\n")
        self.taken[person] = place + len(piece)

    def all_have_all(self):
        return all(place == len(self.stream) for place in self.taken.values())

    def messages(self):
        return [json.loads(line) for line in bytes(self.stream).splitlines()]


def all_in(join, server, count):
    """`count` people, each of whom has seen everybody come."""
    people = [join(f"Cat{number}", server) for number in range(count)]
    for number, person in enumerate(people):
        for _ in range(number + 1, count):
            person.expect("joined", limit=LONG_LIMIT)
        assert not person.buffer
    return people


def test_two_hundred_people_and_20_000_messages(join, start_server):
    """10 of 200 talk at once: everybody gets every line once, in the same order."""
    total = 20_000
    server = start_server("--rate", "0", "--recent", "0", "--max-clients", "200")
    people = all_in(join, server, 200)
    crowd, speakers, sent = Crowd(people), people[:10], 0
    while crowd.lines < total or not crowd.all_have_all():
        # At most 500 on their way: far more than real people would have, and not so
        # many that those whom this loop has not read yet are thrown out.
        while sent < min(total, crowd.lines + 500):
            speaker = speakers[sent % len(speakers)]
            speaker.send({"type": "chat", "text": f"{sent} 😀", "ref": f"r{sent}"})
            sent += 1
        crowd.read_some(LONG_LIMIT)
    messages = crowd.messages()
    assert len(messages) == total
    ids = [message["id"] for message in messages]
    assert ids == sorted(set(ids))
    assert {message["text"] for message in messages} == {
        f"{number} 😀" for number in range(total)}
    for number, speaker in enumerate(speakers):
        own = [m["ref"] for m in messages if m["from"] == speaker.name]
        assert own == [f"r{n}" for n in range(number, total, len(speakers))]
    for person in people:
        person.silence()


def talk_until_somebody_leaves(speaker, listener):
    """Return what the two have seen, up to a `left` and the line after it."""
    seen = {speaker: [], listener: []}
    while not any(message["type"] == "left" for message in seen[speaker]):
        speaker.send({"type": "chat", "text": "x" * 3900})
        for person, messages in seen.items():
            messages.append(person.read())
            while messages[-1]["type"] != "chat":
                messages.append(person.read())
        assert len(seen[speaker]) < 10_000, "nobody was thrown out"
    return seen[speaker], seen[listener]


def test_somebody_who_never_reads_is_thrown_out(join, start_server):
    server = start_server("--rate", "0", "--recent", "0", "--max-clients", "3")
    speaker, listener = join("Speaker", server), join("Listener", server)
    # A small window, so that what is not read waits in the server and not here.
    sleeper = join("Sleeper", server, receive_buffer=4096)
    for person, name in (
            (speaker, "Listener"), (speaker, "Sleeper"), (listener, "Sleeper")):
        person.expect("joined", name=name)
    seen, same = talk_until_somebody_leaves(speaker, listener)
    assert seen == same         # so the listener has lost nothing
    left = [message for message in seen if message["type"] != "chat"]
    assert [(line["type"], line["name"], line["reason"]) for line in left] == [
        ("left", "Sleeper", "too_slow")]
    assert len(seen) * 3900 > 2 * 2**20, "that was less than may wait for somebody"
    # By RST, and without a goodbye: the sleeper may read what its own kernel holds.
    with pytest.raises(ConnectionResetError):
        while sleeper.read_line():
            pass
    sleeper.close()
    # The place is free again at once; the name waits for its owner.
    again = join(to=server)
    again.hello("Sleeper")
    again.expect("error", code="name_taken")
    again.hello("Sleeper", session=sleeper.welcome["session"],
                since=sleeper.welcome["last_id"])
    again.expect("welcome", name="Sleeper", resumed=True, count=3)
    again.expect("chat", text="x" * 3900)


# A reader in a process of its own, that can be stopped as Ctrl+Z or a sleeping laptop
# would: its kernel goes on acknowledging, but nobody reads.
READER = """
import sys, types
sys.path.insert(0, sys.argv[1])
from people import Person
server = types.SimpleNamespace(host=sys.argv[2], port=int(sys.argv[3]))
person = Person(server, "Reader")
print("ready", flush=True)
texts = []
while texts[-1:] != ["the end"]:
    texts.append(person.expect("chat", limit=300)["text"])
print(" ".join(texts[:-1]), flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot stop a process for a while")
@pytest.mark.parametrize("seconds", [
    0, pytest.param(180, marks=[pytest.mark.long, pytest.mark.timeout(300)])])
def test_who_was_stopped_for_three_minutes_misses_nothing(join, start_server, seconds):
    """20 messages a second for three minutes; without --long, as fast as they go."""
    server = start_server("--rate", "0")
    speaker = join("Speaker", server)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(SERVER.parent / "tests"), server.host,
         str(server.port)], stdout=subprocess.PIPE, text=True)
    try:
        assert reader.stdout.readline() == "ready\n"
        speaker.expect("joined", name="Reader")
        reader.send_signal(signal.SIGSTOP)
        # SIGSTOP is not instantaneous; the kernel says when it has happened.
        os.waitpid(reader.pid, os.WUNTRACED)
        begin = time.monotonic()
        for number in range(3600):
            speaker.say(f"{number:0100}")
            time.sleep(max(0, begin + seconds * number / 3600 - time.monotonic()))
        speaker.silence()               # nobody was thrown out
        reader.send_signal(signal.SIGCONT)
        speaker.say("the end")
        texts, _ = reader.communicate(timeout=LONG_LIMIT)
    finally:
        reader.kill()
        reader.wait()
    assert texts.split() == [f"{number:0100}" for number in range(3600)]


# 20 characters of 4 bytes each: a longer name there is not.
LONG_NAMES = [
    "𠀀" * 16 + "".join(chr(0x20000 + int(digit)) for digit in f"{number:04}")
    for number in range(505)]


@pytest.fixture(scope="module")
def long_names():
    """505 people on one server, with the longest names (to let them in takes 3 s)."""
    with ServerProcess("--max-clients", "510", "--recent", "1") as server:
        people = [Person(server, name, limit=LONG_LIMIT) for name in LONG_NAMES]
        yield server, people
        for person in people:
            person.close()


def test_a_list_of_more_than_500_people(long_names):
    """At most 500 names, the count of all, and still one line of 65,536 bytes."""
    _, people = long_names
    for number in (0, 250, 498, 499, 500, 504):
        welcome = people[number].welcome
        assert welcome["count"] == number + 1
        listed = [person["name"] for person in welcome["people"]]
        assert len(listed) == len(set(listed)) == min(number + 1, 500)
        assert LONG_NAMES[number] in listed
        assert set(listed) <= set(LONG_NAMES)
    for number in (0, 504):
        people[number].send({"type": "list"})
        answer = people[number].expect("people", skip=["joined"], limit=LONG_LIMIT)
        assert answer["count"] == 505
        listed = [person["name"] for person in answer["people"]]
        assert len(listed) == len(set(listed)) == 500
        assert LONG_NAMES[number] in listed


def test_the_longest_lines_of_the_server_fit(long_names, join):
    server, people = long_names
    for line in ({"type": "list"}, {
            "type": "chat", "text": "😀" * 4000, "ref": '"' * 64, "to": LONG_NAMES[-1]}):
        people[-1].send(line)
        assert len(people[-1].read_line(LONG_LIMIT)) < 65536
    late = join(to=server)
    late.hello("𠀀" * 20)
    assert len(late.read_line(LONG_LIMIT)) < 65536


# --------------------------------------------------------------------------------- pace

def test_who_sends_too_fast_is_slowed_and_loses_nothing(join, start_server):
    server = start_server("--rate", "50", "--recent", "0")
    hasty, calm = join("Hasty", server), join("Calm", server)
    hasty.expect("joined", name="Calm")
    line = '{"type": "chat", "text": "%d", "to": "Hasty"}\n'
    begin = time.monotonic()
    hasty.send_raw("".join(line % number for number in range(200)).encode())
    first = [hasty.expect("chat") for _ in range(100)]
    burst = time.monotonic() - begin
    # While Hasty waits, Calm does not. These 20 go out and come back in the time in
    # which Hasty may say a few, so they stand before the last of Hasty's.
    for number in range(20):
        calm.say(f"calm {number}", to="Calm")
    last_calm = calm.latest[-1]["id"]
    rest = [hasty.expect("chat") for _ in range(100)]
    took = time.monotonic() - begin
    assert [int(message["text"]) for message in first + rest] == list(range(200))
    assert burst < 1.5
    # 100 of them at 50 a second. Slower is not wrong on a busy computer.
    assert 1.8 < took < 6
    assert last_calm < rest[-1]["id"]
    hasty.silence()


def test_who_was_slowed_can_leave(join, start_server):
    """What stands behind a long queue of one's own is obeyed in its turn."""
    server = start_server("--rate", "50", "--recent", "0")
    watcher, hasty = join("Watcher", server), join("Hasty", server)
    hasty.send_raw(b'{"type": "chat", "text": "quick"}\n' * 150 + b'{"type": "bye"}\n')
    came = [message["type"] for message in hasty.until_closed(10)]
    assert came == ["chat"] * 150 + ["goodbye"]
    watcher.expect("joined")
    for _ in range(150):
        watcher.expect("chat")
    watcher.expect("left", reason="bye")
