"""Random and broken lines by a seed: each is answered, and the others talk on.

The lines are valid ones that were flipped, cut, glued, retyped and blown up. What the
protocol demands of the server for each of them is worked out here once more (`judge`).
20,000 lines of one seed; with --long 100,000 of each of six. For another seed:

    CHATTYCAT_SEED=7 python3 -m tests tests/test_random_lines.py
"""
import itertools
import json
import os
import random
import re

import pytest

from people import COMINGS, Person, shorten

GUESTS = 12             # so many send them, all at the same time
PORTION = 40            # lines from each of them, before we look at the answers
LINE_LIMIT = 65536
LAST_ERROR = 20         # the counted error that ends a connection
COUNTED = ("bad_message", "unknown_type", "bad_text", "hello_first")
SEED = int(os.environ.get("CHATTYCAT_SEED", 2026))
NUMBERS = itertools.count(1)


# ------------------------------------------------------------------------- broken lines

TEXTS = ["Hello", "x" * 4000, "😀" * 50, "é\u0301" * 9, "\u202e", " a\n\tb ", "NaN"]
ODD_TEXTS = ["", " ", "\n", "x" * 4001, "\0", "a\x1b[2J", "\x7f", "\ud83d", "\udc00a"]
ODD_VALUES = [None, True, False, 0, -1, 1.5, 10**30, [], {}, [[]], {"type": "chat"},
              ["chat"], *TEXTS, *ODD_TEXTS]
ODD_BYTES = [
    b"\0", b"\xff", b"\xc0\xaf", b"\xed\xa0\xbd", b"\xf0\x9f", b"\xef\xbb\xbf", b"\n",
    b"\r\n", b"\r", b" " * 50, b"\\", b'"', b"{", b"}", b"[", b",", b":", b"NaN",
    b"-Infinity", b"1e999999", b"\\u0000", b"\\ud83d"]


class Breaker:
    """Makes lines; all that is random in them comes from one seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def portion(self, name, lines, inside=True):
        """So many lines from the guest of this name, in one piece of bytes."""
        return b"".join(self.line(name, inside) for _ in range(lines)) + b"\n"

    def line(self, name, inside):
        """One line and its end. Now and then it is two, or half a line."""
        message = self.message(name, inside)
        way = self.random.random()
        if way < 0.6:
            return self.written(message)
        if way < 0.8:
            return self.written(self.retyped(message))
        if way < 0.95:
            return self.flipped(self.written(message))
        return self.random.choice((
            self.noise, self.deep, self.blank, self.digits, self.cut, self.long)
        )(message)

    def message(self, name, inside):
        """A valid message. Most are to oneself: what is to all costs 16 deliveries."""
        choose = self.random.random()
        if not inside and choose < 0.2:
            return {"type": "hello", "name": "Late",
                    "version": self.random.choice([2, "1", None, 1.5])}
        if choose < 0.1:
            return {"type": "list"}
        if choose < 0.102:
            return {"type": "bye"}
        message = {"type": "chat", "text": self.random.choice(TEXTS)}
        if choose < 0.98:
            message["to"] = self.random.choice([name, name, name, "Nobody", "Guest1"])
        if choose < 0.5:
            message["ref"] = f"r{self.random.randrange(50)}"
        return message

    def written(self, message):
        """As JSON, in one of the ways that JSON leaves open."""
        text = json.dumps(message, ensure_ascii=self.random.random() < 0.5,
                          indent=None, sort_keys=self.random.random() < 0.5)
        return text.encode("utf-8", "surrogatepass") + self.random.choice(
            [b"\n", b"\n", b"\r\n"])

    def retyped(self, message):
        """A field has another value, has gone, or is there and nobody knows it."""
        key = self.random.choice([*message, "to", "ref", "text", "type", "more"])
        if self.random.random() < 0.2:
            message.pop(key, None)
        else:
            message[key] = self.random.choice(ODD_VALUES)
        return message

    def flipped(self, line):
        """Some bytes are others, are gone, or came in between."""
        line = bytearray(line)
        for _ in range(self.random.randint(1, 3)):
            place = self.random.randrange(len(line))
            way = self.random.randrange(3)
            if way == 0:
                line[place] ^= 1 << self.random.randrange(8)
            else:
                line[place:place + way - 1] = self.random.choice(ODD_BYTES)
        return bytes(line)

    def noise(self, _):
        return self.random.randbytes(self.random.randrange(200)) + b"\n"

    def deep(self, message):
        depth = self.random.choice([10, 500, 20_000])
        message["more"] = 0
        return self.written(message).replace(
            b'"more": 0', b'"more": ' + b"[" * depth + b"]" * depth)

    def blank(self, _):
        return self.random.choice([b"\n", b"\r\n", b"\n\n\n", b" \n", b"\t\r\n"])

    def digits(self, message):
        message["more"] = 0
        return self.written(message).replace(
            b'"more": 0', b'"more": ' + b"7" * self.random.choice([20, 400, 5000]))

    def cut(self, message):
        """The rest of it never comes: what follows is glued to it."""
        line = self.written(message)
        return line[:self.random.randrange(len(line))]

    def long(self, message):
        """As long as may be, or a byte longer or shorter."""
        message["more"] = ""
        missing = LINE_LIMIT - len(self.written(message).rstrip()) - 1
        message["more"] = "x" * (missing + self.random.choice([-2, -1, 0, 0, 1]))
        return self.written(message)


# ---------------------------------------------------------------------- what must come

# What one line must bring: an error that counts, none, either of them (where JSON or
# the protocol lets the server choose), or the end of the connection for this reason.
ERROR, FINE, EITHER = "error", "fine", "either"
ENDS = ("bye", "line_too_long")


class Odd(ValueError):
    """JSON that one reader takes and another one does not."""


def no_constant(word):
    raise ValueError(word)


def once_each(pairs):
    if len(dict(pairs)) < len(pairs):
        raise Odd("a field that is there twice")
    return dict(pairs)


def judge(line, name):
    """Say what the server must do with this line (without its end); `name`: of whom
    it comes, or None before hello."""
    if len(line) >= LINE_LIMIT:
        return "line_too_long"
    line = line[:-1] if line.endswith(b"\r") else line
    if not line.strip():
        return FINE if not line else EITHER
    # Deep, or a byte order mark in front, or a number of very many digits.
    if (line.count(b"[") + line.count(b"{") > 50 or line.startswith(b"\xef\xbb\xbf")
            or len(line) > 300 and re.search(rb"[0-9]{300}", line)):
        return EITHER
    try:
        message = json.loads(line.decode("utf-8"), parse_constant=no_constant,
                             object_pairs_hook=once_each)
    except Odd:
        return EITHER
    except ValueError:
        return ERROR
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return ERROR
    if message["type"] in ("upload", "chunk", "download", "cancel"):
        return EITHER
    if name is None:
        return EITHER if message["type"] == "hello" else ERROR
    if message["type"] == "chat":
        return judge_chat(message, name)
    return {"list": FINE, "bye": "bye"}.get(message["type"], ERROR)


def judge_chat(message, name):
    verdicts = [judge_text(message.get("text"))]
    for key, limit in (("to", 10**6), ("ref", 64)):
        value = message.get(key, "")
        if value is None:
            verdicts.append(EITHER)         # null: left out, or of the wrong kind?
        elif not isinstance(value, str) or len(value) > limit:
            verdicts.append(ERROR)
        elif has_half_an_emoji(value):
            verdicts.append(ERROR if key == "ref" else EITHER)
    if ERROR in verdicts:
        # `no_such_person` is not counted, and may be what the server sees first.
        sure = message.get("to", name) == name
        return ERROR if sure else EITHER
    return EITHER if EITHER in verdicts else FINE


def has_half_an_emoji(text):
    return re.search("[\ud800-\udfff]", text) is not None


# Unicode's "Cc", without newline and tab; and the halves of an emoji.
BAD = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def judge_text(text):
    """EITHER where it depends on whether control characters are space to be trimmed."""
    if not isinstance(text, str):
        return ERROR
    good = [1 <= len(trimmed) <= 4000 and not BAD.search(trimmed)
            for trimmed in (text.strip(), text.strip(" \n\t"))]
    return FINE if all(good) else EITHER if any(good) else ERROR


# --------------------------------------------------------------------------- the guests

class Guest:
    """A connection that sends portions of broken lines, and checks every answer.

    When it ends, as it must with the 20th error, the next portion takes a new one.
    """
    def __init__(self, server, breaker):
        self.server, self.breaker = server, breaker
        self.person = None
        self.connections = 0

    def send(self):
        """Send a portion, cut in pieces where no line ends; return the lines in it."""
        if self.person is None:
            self.connect()
        data = self.breaker.portion(self.person.name, PORTION)
        self.judge(data, self.person.name)
        self.last = f"end {next(NUMBERS)}"
        data += json.dumps({"type": "chat", "text": "That was all", "ref": self.last,
                            "to": self.person.name}).encode() + b"\n"
        place = self.breaker.random.randrange(len(data))
        try:
            for piece in (data[:place], data[place:]):
                self.person.send_raw(piece)
        except ConnectionError:
            pass            # it has ended within this portion; read() sees how
        return len(self.verdicts)

    def judge(self, data, name):
        """Work out what must come: (the line, what it must bring), line by line."""
        self.verdicts = [(line, judge(line, name)) for line in data.split(b"\n")[:-1]]

    def connect(self):
        """Come in, in one of three cases after some lines that nobody may say yet."""
        self.connections += 1
        self.errors = 0
        self.person = person = Person(self.server)
        person.name = f"Guest{next(NUMBERS)}"
        data = b""
        if self.breaker.random.random() < 0.3:
            data = self.breaker.portion(person.name, 8, inside=False)
            person.send_raw(data)
        self.judge(data, None)
        self.last = "welcome"
        person.hello(person.name)
        self.read()
        if self.person is None:
            self.connect()

    def read(self):
        """Read up to the answer to the last line, or to the end; compare."""
        person, counted, end = self.person, 0, None
        while message := person.read(20):
            kind = message["type"]
            if kind == "error":
                assert message["text"] and "stumbled" not in message["text"], message
                counted += message["code"] in COUNTED
            elif kind == "goodbye":
                end = message["reason"]
            elif self.last in (kind, message.get("ref")):
                break
        self.check(counted, end)
        self.errors += counted
        if message is None:
            person.close()
            self.person = None

    def check(self, counted, end):
        """Compare what came with what had to come."""
        low = high = self.errors
        ends = set()                    # for which reasons it may have ended
        must_end = False
        for line, verdict in self.verdicts:
            low += verdict == ERROR
            high += verdict in (ERROR, EITHER)
            if high >= LAST_ERROR:
                ends.add("too_many_errors")
            if verdict in ENDS or verdict == EITHER and b"bye" in line:
                ends.add("bye" if verdict == EITHER else verdict)
            must_end = verdict in ENDS or low >= LAST_ERROR
            if must_end:
                break
        total = self.errors + counted
        assert end in ends or end is None and not must_end, (
            f"it ended with {end}, and not with one of {ends}: {self}")
        assert low <= total <= high or end in ends, (
            f"{total} errors were counted, and not {low} to {high}: {self}")
        assert (total == LAST_ERROR) == (end == "too_many_errors"), self

    def __str__(self):
        return shorten(f"{self.person}\n" + "\n".join(
            f"{verdict:6} {line[:200]}" for line, verdict in self.verdicts))


class Four:
    """Those who were here before, and who want to go on talking."""

    def __init__(self, server):
        self.people = [Person(server, f"Talker{number}") for number in range(4)]
        self.said = 0

    def talk(self):
        """One says a line; all get it, and ids that only grow."""
        speaker = self.people[self.said % 4]
        text = f"line {self.said}"
        speaker.send({"type": "chat", "text": text})
        for person in self.people:
            message = person.expect("chat", skip=COMINGS)
            while message["from"] != speaker.name:
                message = person.expect("chat", skip=COMINGS)
            assert message["text"] == text
        self.said += 1


@pytest.mark.parametrize("seed, count", [(SEED, 20_000), *(
    pytest.param(seed, 100_000, marks=pytest.mark.long) for seed in (SEED, *range(1, 6))
)])
def test_random_lines(start_server, seed, count):
    server = start_server("--rate", "0", "--recent", "0")
    breaker, four, lines = Breaker(seed), Four(server), 0
    guests = [Guest(server, breaker) for _ in range(GUESTS)]
    try:
        while lines < count:
            lines += sum(guest.send() for guest in guests)
            four.talk()
            for guest in guests:
                guest.read()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, after {lines} lines: {error}") from None
    finally:
        for guest in guests:
            if guest.person:
                guest.person.close()
    four.talk()
    stamped = [line for line in server.lines if "Traceback" in line]
    assert not stamped, f"seed {seed}: {server.lines[-30:]}"
    print(f"{sum(guest.connections for guest in guests)} connections, {lines} lines")
