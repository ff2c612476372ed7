"""The wire, region 2 of both scripts: bytes to messages and back, names, text, times.

No server here. The region is the same in both scripts (test_project compares them),
so testing one of them is testing both.
"""
import datetime
import itertools
import json
import random
import re
import socket
import sys
import time
import tracemalloc
import unicodedata

import pytest

import ChattyCat_Server as wire
from ChattyCat_Server import (WireError, clean_name, clean_text, name_key, tune,
                              utc_now)

LINE_LIMIT = 65_536             # from lessons/PROTOCOL.md, and not from the script
CONTROLS = [chr(number) for number in range(sys.maxunicode + 1)
            if unicodedata.category(chr(number)) == "Cc"]


def receiver(pieces):
    """A recv() that brings these pieces one after the other, and then the end."""
    pieces = iter(pieces)
    return lambda: next(pieces, b"")


def lines_of(pieces):
    return list(itertools.chain.from_iterable(wire.lines(receiver(pieces))))


def pieces_of(data, size):
    return [data[start:start + size] for start in range(0, len(data), size)]


def refusal(code, function, *arguments, **more):
    """The WireError that this call must end with."""
    with pytest.raises(WireError) as caught:
        function(*arguments, **more)
    assert caught.value.code == code
    # One plain sentence that fits on a screen, whatever was in the line.
    assert caught.value.text.endswith(".") and caught.value.text.isprintable()
    return caught.value


# ------------------------------------------------------------------- bytes to lines

STREAM = ('{"type":"hello"}\n\nold Mac \r and Windows\r\n\r\n\r\r\n'
          "Ｔｏｍ, straße, 🐱\n" + "long " * 30 + "\nhalf a line").encode()
LINES = [b'{"type":"hello"}', b"", b"old Mac \r and Windows", b"", b"\r",
         "Ｔｏｍ, straße, 🐱".encode(), b"long " * 30]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(STREAM)])
def test_lines_however_large_the_pieces(size):
    assert lines_of(pieces_of(STREAM, size)) == LINES


def test_lines_cut_at_every_place():
    for place in range(1, len(STREAM)):
        assert lines_of([STREAM[:place], STREAM[place:]]) == LINES, place


def test_lines_cut_at_random():
    for seed in range(300):
        chance = random.Random(seed)
        places = sorted(chance.sample(range(1, len(STREAM)), chance.randint(1, 40)))
        cuts = zip([0] + places, places + [len(STREAM)])
        assert lines_of([STREAM[a:b] for a, b in cuts]) == LINES, f"seed {seed}"


def test_a_line_comes_as_soon_as_its_end_does():
    """Not only with the next one: somebody waits for it."""
    coming = wire.lines(receiver([b"a\nb", b"c\n", b"no end"]))
    assert [next(coming), next(coming)] == [[b"a"], [b"bc"]]
    assert next(coming, "the end") == "the end"


def test_what_came_together_stays_together():
    coming = wire.lines(receiver([b"a\nb\r\nc", b"d\n\n", b"e", b"\n"]))
    assert list(coming) == [[b"a", b"b"], [b"cd", b""], [b"e"]]


@pytest.mark.parametrize("pieces", [[], [b"\n"[:0]], [b"half a line"], [b"\r"]],
                         ids=repr)
def test_an_end_without_a_line(pieces):
    assert lines_of(pieces) == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["n", "rn"])
@pytest.mark.parametrize("size", [100, 1460, 4096, LINE_LIMIT, 10 * LINE_LIMIT])
def test_the_longest_line_and_one_byte_more(size, end):
    longest = b"x" * (LINE_LIMIT - len(end)) + end
    assert lines_of(pieces_of(longest + b"next\n", size)) == [
        longest[:-len(end)], b"next"]
    coming = wire.lines(receiver(pieces_of(b"before\nx" + longest + b"after\n", size)))
    assert next(coming) == [b"before"]      # also where both came in one piece
    refusal("line_too_long", next, coming)
    assert next(coming, "the end") == "the end"


@pytest.mark.parametrize("size", [100, 4096, LINE_LIMIT])
def test_an_endless_line_is_not_read_to_its_end(size):
    brought = itertools.count()

    def receive():
        next(brought)
        return b"x" * size

    refusal("line_too_long", next, wire.lines(receive))
    assert next(brought) * size < LINE_LIMIT + size


def peak_memory(function):
    """The most that was held at once while this ran, in bytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_endless_line_costs_no_memory():
    endless = itertools.repeat(b"x" * 4096)

    def read():
        refusal("line_too_long", next, wire.lines(receiver(endless)))

    assert peak_memory(read) < 8 * LINE_LIMIT


def test_a_stream_that_goes_on_for_long_costs_no_memory():
    """Four thousand lines, cut where it suits nobody: 20 MB."""
    stream = itertools.repeat((b"x" * 4999 + b"\n") * 13, 308)

    def read():
        assert sum(len(came) for came in wire.lines(receiver(stream))) == 4004

    assert peak_memory(read) < 8 * LINE_LIMIT


# --------------------------------------------------------------- messages and lines

MESSAGES = {
    "ascii": {"type": "chat", "text": "Hello"},
    "accents": {"type": "chat", "text": "Élise, straße, 小猫, สวัสดี"},
    "emoji": {"type": "chat", "text": "🐱 and 👩‍👩‍👧"},
    "line ends": {"type": "chat", "text": "a\nb\r\nc\td"},
    "odd ends": {"type": "chat", "text": "a\u2028b\u2029c\x85d\x0be"},
    "quotes": {"type": "chat", "text": '"\\"\'/'},
    "all kinds": {"type": "x", "number": -3, "float": 0.5, "yes": True, "no": None,
                  "list": [1, [2, {}]], "object": {"": ""}},
    "empty type": {"type": ""},
    "large number": {"type": "x", "number": 10 ** 30},
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_there_and_back(message):
    line = wire.encode(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert lines_of([line]) == [line[:-1]]
    assert wire.decode(line[:-1]) == message
    assert json.loads(line) == message


def test_a_line_can_be_read_by_a_student():
    line = wire.encode({"type": "chat", "text": "Élise 🐱", "id": 7})
    assert line == '{"type":"chat","text":"Élise 🐱","id":7}\n'.encode()


@pytest.mark.parametrize("text", ["\ud83d", "\udc31", "a\ud800b", "\udc31\ud83d"],
                         ids=ascii)
def test_half_an_emoji_can_be_sent_on(text):
    """As something else, but without the end of the thread that sends it."""
    message = wire.decode(wire.encode({"type": "chat", "text": text})[:-1])
    assert wire.is_unicode(message["text"]) and not wire.is_unicode(text)
    assert len(message["text"]) == len(text)


def test_json_may_write_an_emoji_as_two_halves():
    message = wire.decode(rb'{"type":"chat","text":"\ud83d\udc31"}')
    assert message["text"] == "🐱" and wire.is_unicode(message["text"])


NOT_A_MESSAGE = {
    "nothing": b"",
    "spaces": b"   ",
    "words": b"hello",
    "a web browser": b"GET / HTTP/1.1",
    "half": b'{"type": "chat"',
    "two": b'{"type": "a"} {"type": "b"}',
    "single quotes": b"{'type': 'a'}",
    "a comma too many": b'{"type": "a",}',
    "a control character": b'{"type": "a\x00"}',
    "Latin-1": '{"type": "é"}'.encode("latin-1"),
    "UTF-16": '{"type": "a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"type": "a"}',
    "a surrogate in UTF-8": b'{"type": "\xed\xa0\x80"}',
    "cut in an emoji": '{"type": "🐱'.encode()[:-1],
    "NaN": b'{"type": "a", "n": NaN}',
    "Infinity": b'{"type": "a", "n": [Infinity]}',
    "-Infinity": b'{"type": "a", "n": {"n": -Infinity}}',
    "null": b"null", "a number": b"5", "a string": b'"type"', "true": b"true",
    "a list": b'[{"type": "a"}]',
    "no type": b'{"text": "a"}',
    "a type in capitals": b'{"Type": "a"}',
    "type 5": b'{"type": 5}', "type null": b'{"type": null}',
    "type true": b'{"type": true}', "type list": b'{"type": ["a"]}',
    "lists in lists": b"[" * 60_000,
    "lists in lists, closed": b'{"type":"a","n":%s}' % (b"[" * 30_000 + b"]" * 30_000),
    "objects in objects": b'{"a":' * 13_000,
}


@pytest.mark.parametrize("line", NOT_A_MESSAGE.values(), ids=NOT_A_MESSAGE)
def test_bad_message(line):
    refusal("bad_message", wire.decode, line)


def test_a_number_of_10_000_digits():
    """Pythons since the summer of 2022 refuse it, since reading it takes long."""
    line = b'{"type":"a","n":' + b"9" * 10_000 + b"}"
    if hasattr(sys, "get_int_max_str_digits"):
        refusal("bad_message", wire.decode, line)
    else:
        assert wire.decode(line)["n"] == 10 ** 10_000 - 1


# ---------------------------------------------------------------------------- fields

VALUES = {
    "string": ("x", str), "empty string": ("", str), "zero": (0, int),
    "negative": (-5, int), "list": ([1], list), "empty list": ([], list),
    "true": (True, bool), "false": (False, bool), "float": (1.0, float),
    "object": ({}, dict), "null": (None, type(None)),
}


@pytest.mark.parametrize("kind", [str, int, list, bool])
@pytest.mark.parametrize("value, its_kind", VALUES.values(), ids=VALUES)
def test_field(value, its_kind, kind):
    """Above all: True is an int to Python, and none to JSON."""
    message = {"type": "a", "f": value}
    if its_kind is kind:
        assert wire.field(message, "f", kind) is value
        assert wire.field(message, "f", kind, default="else") is value
    else:
        assert "“f”" in refusal("bad_message", wire.field, message, "f", kind).text
        refusal("bad_message", wire.field, message, "f", kind, default="else")


def test_a_field_that_is_not_there():
    refusal("bad_message", wire.field, {"type": "a"}, "f")
    refusal("bad_message", wire.field, {"type": "a"}, "f", int)
    assert wire.field({"type": "a"}, "f", default=None) is None
    assert wire.field({"type": "a"}, "f", int, default=7) == 7


# ----------------------------------------------------------------------------- names

@pytest.mark.parametrize("typed, shown", [
    ("Tom", "Tom"), ("x", "x"), ("7", "7"), ("a_-.", "a_-."), ("x" * 20, "x" * 20),
    ("Élise", "Élise"), ("E\u0301lise", "Élise"), ("小猫", "小猫"), ("Мурка", "Мурка"),
    ("قطة", "قطة"), ("나비", "나비"), ("\u1102\u1161\u1107\u1175", "나비"),
    ("Ｔｏｍ", "Tom"), ("ｔｏｍ．７", "tom.7"), ("ﬁfi", "fifi"), ("x²", "x2"),
    ("Straße", "Straße"), ("e\u0301" * 20, "é" * 20), ("ﬁ" * 10, "fi" * 10),
    ("\u03b1\u0313\u0300\u0345" * 20, "\u1f82" * 20),  # four characters become one
    ("Servers", "Servers"), ("𝕿om", "Tom")], ids=ascii)
def test_good_names(typed, shown):
    assert clean_name(typed) == shown
    assert clean_name(shown) == shown
    assert name_key(typed) == name_key(shown)


@pytest.mark.parametrize("name", [
    "", " ", "x" * 21, "ﬁ" * 11, "_x", "-x", ".x", "a b", " a", "a\n", "a\0",
    "a\x1b[2J", "a@b", "a/b", "a,b", "“a”", "🐱", "a🐱", "a\ud83d", "\ud83d",
    "a\u200bb", "a\u00adb",
    "a\u202eb", "\ufeffa", "a\u0301\u0301", "\u0301", "a\u3000b", "x" * 60_000],
    ids=lambda name: ascii(name[:21]))
def test_bad_names(name):
    refusal("bad_name", clean_name, name)


@pytest.mark.parametrize("filler", "\u115f\u1160\u3164\uffa0", ids=ascii)
def test_letters_that_nobody_can_see(filler):
    """Hangul fillers: with them two people could look as if they had one name."""
    for name in (filler, "a" + filler, "Minou" + filler, filler + "Minou"):
        refusal("bad_name", clean_name, name)


@pytest.mark.parametrize("name", [
    "Server", "server", "SERVER", "sErVeR", "Ｓｅｒｖｅｒ", "ſerver", "ˢerver"], ids=ascii)
def test_server_is_nobodys_name(name):
    assert "Server" in refusal("bad_name", clean_name, name).text


def test_every_character_of_the_basic_plane_in_a_name():
    """What can be seen as a letter or digit may be in it, and nothing else."""
    accepted = 0
    for number in range(0x10000):
        character = chr(number)
        try:
            name = clean_name("a" + character)
        except WireError:
            # A letter may be refused for what it becomes: of "ŀ" NFKC makes "l·".
            plain = unicodedata.normalize("NFKC", character) == character
            refused = plain and unicodedata.category(character)
            assert refused not in ("Lu", "Ll", "Lt", "Nd"), hex(number)
            continue
        accepted += 1
        for shown in name:
            assert shown in "_-." or unicodedata.category(shown)[0] in "LN"
            assert shown.isprintable()
    assert accepted > 40_000


@pytest.mark.parametrize("one, other", [
    ("Tom", "tom"), ("Tom", "TOM"), ("Tom", "Ｔｏｍ"), ("STRASSE", "straße"),
    ("Strasse", "STRAẞE"), ("Élise", "e\u0301LISE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("ﬁfi", "FIFI"), ("Åke", "\u212bke"), ("\u0390", "\u03aa\u0301"),
    ("ǰim", "J\u030cIM")], ids=ascii)
def test_names_that_are_the_same(one, other):
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize("one, other", [
    ("Tom", "Tim"), ("Élise", "Elise"), ("a-b", "a_b"), ("ab", "a.b"), ("I", "ı"),
    ("Tom", "Тom"), ("x1", "x11")], ids=ascii)
def test_names_that_are_not_the_same(one, other):
    assert name_key(one) != name_key(other)


# Unicode's normal form sorts the accents on a letter. Some Pythons do it so that twice
# as many take four times as long: 1.5 s for these, with all other threads waiting.
ACCENTS = "\u0300" * 16_000 + "\u0316" * 16_000


def test_a_name_that_fills_a_line_keeps_nobody_waiting():
    begin = time.monotonic()
    refusal("bad_name", clean_name, "a" + ACCENTS)
    # `to` in a chat is compared with the names of those who are here.
    assert name_key("a" + ACCENTS) != name_key("a")
    assert time.monotonic() - begin < 0.3


# ------------------------------------------------------------------------------ text

@pytest.mark.parametrize("typed, kept", [
    ("Hello", "Hello"), ("  Hello \n", "Hello"), ("\u3000a\u00a0", "a"),
    ("a\nb", "a\nb"), ("a\tb", "a\tb"), ("\n\ta b\n\n", "a b"), ("🐱", "🐱"),
    ("👩‍👩‍👧", "👩‍👩‍👧"), ("/help", "/help"),
    ("a\u2028b\u2029c", "a\u2028b\u2029c"), ("a\u200bb\u00adc", "a\u200bb\u00adc"),
    ("a\u202eb", "a\u202eb"), ("e\u0301", "e\u0301"), ("Ｔｏｍ", "Ｔｏｍ"),
    ("\ue000", "\ue000"), ("x" * 4000, "x" * 4000), ("🐱" * 4000, "🐱" * 4000),
    ("a\n" * 2000, "a\n" * 1999 + "a"),
    (" " * 9000 + "x" * 4000 + "\n" * 9000, "x" * 4000)],
    ids=lambda text: ascii(text[:20]))
def test_good_text(typed, kept):
    assert clean_text(typed) == kept


@pytest.mark.parametrize("text", [
    "", " ", "\n", " \t\n \u3000", "x" * 4001, "🐱" * 4001, "x" + " " * 4000 + "x"],
    ids=lambda text: f"{ascii(text[:12])} {len(text)}")
def test_text_too_short_or_too_long(text):
    refusal("bad_text", clean_text, text)


@pytest.mark.parametrize("half", ["\ud83d", "\udc31", "\ud800", "\udfff"], ids=ascii)
def test_half_an_emoji_is_bad_text(half):
    for text in (half, half + "a", "a" + half, f"a{half}b", f"é\n{half}", "🐱" + half):
        refusal("bad_text", clean_text, text)


def test_no_control_character_of_unicode_passes():
    assert len(CONTROLS) == 65              # U+0000 to 1F, DEL, and U+0080 to 9F
    for character in set(CONTROLS) - set("\n\t"):
        for text in (f"a{character}b", f"a\n{character}b", f"小{character}猫"):
            with pytest.raises(WireError, match="control") as caught:
                clean_text(text)
            assert caught.value.code == "bad_text", ascii(character)
        try:
            # At the ends some of them count as space, which is cut off.
            assert clean_text(f"{character}a{character}") == "a"
        except WireError as problem:
            assert problem.code == "bad_text"


def test_every_other_character_of_unicode_passes():
    """Taken together in messages of 4,000: one by one would take four seconds."""
    others = [chr(number) for number in range(sys.maxunicode + 1)
              if unicodedata.category(chr(number)) not in ("Cc", "Cs")]
    for start in range(0, len(others), 3998):
        text = "x" + "".join(others[start:start + 3998]) + "x"
        assert clean_text(text) == text
    assert len(others) == sys.maxunicode + 1 - 65 - 2048


# ----------------------------------------------------------------------------- times

def test_the_time_as_it_travels():
    before = datetime.datetime.now(datetime.timezone.utc)
    stamp = utc_now()
    after = datetime.datetime.now(datetime.timezone.utc)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    said = datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ")
    millisecond = datetime.timedelta(milliseconds=1)    # what is behind it is cut off
    assert before - millisecond < said.replace(tzinfo=before.tzinfo) <= after


PARIS = "CET-1CEST,M3.5.0,M10.5.0/3"      # with its summer time


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows cannot change its zone")
@pytest.mark.parametrize("zone, stamp, shown", [
    ("UTC", "2026-11-20T17:01:02.345Z", "2026-11-20 17:01:02.345"),
    ("IST-5:30", "2026-11-20T17:01:02.345Z", "2026-11-20 22:31:02.345"),
    ("NST3:30", "2026-01-01T02:00:00.000Z", "2025-12-31 22:30:00.000"),
    (PARIS, "2026-07-01T12:00:00.000Z", "2026-07-01 14:00:00.000"),
    (PARIS, "2026-12-01T12:00:00.000Z", "2026-12-01 13:00:00.000"),
])
def test_local_time(monkeypatch, zone, stamp, shown):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        local = wire.local_time(stamp)
        assert local.isoformat(" ", "milliseconds")[:23] == shown
        assert local == datetime.datetime.strptime(
            stamp[:-1] + "+0000", "%Y-%m-%dT%H:%M:%S.%f%z")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_time_now_is_now():
    now = datetime.datetime.now().astimezone()
    assert abs(wire.local_time(utc_now()) - now) < datetime.timedelta(seconds=5)


@pytest.mark.parametrize("stamp", [
    "", "Z", "now", "17:01", "2026-13-01T00:00:00.000Z", "2026-11-20T25:00:00.000Z",
    "20. 11. 2026", "\ud83d", "2026-11-20T17:01:02.345ZZ", "9" * 60_000],
    ids=lambda stamp: ascii(stamp[:30]))
def test_a_stamp_that_is_no_time(stamp):
    with pytest.raises(ValueError):
        wire.local_time(stamp)


# --------------------------------------------------------------------------- sockets

def test_tune():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            tune(sock)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            # 30 s idle and six probes 10 s apart; macOS has another name for the first.
            for names, value in ((("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 30),
                                 (("TCP_KEEPINTVL",), 10), (("TCP_KEEPCNT",), 6)):
                here = [name for name in names if hasattr(socket, name)]
                if here:
                    option = getattr(socket, here[0])
                    assert sock.getsockopt(socket.IPPROTO_TCP, option) == value
    assert hasattr(socket, "TCP_KEEPIDLE") or sys.platform != "linux"
