"""The protocol, line by line: what a client may rely on (lessons/PROTOCOL.md)."""
import collections
import datetime
import json
import random
import re
import socket
import threading

import pytest

from people import COMINGS

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def chat(text, **fields):
    return json.dumps({"type": "chat", "text": text, **fields}).encode() + b"\n"


def hello(name, **fields):
    message = {"type": "hello", "name": name, "version": 1, **fields}
    return json.dumps(message).encode() + b"\n"


def names_in(message):
    return sorted(person["name"] for person in message["people"])


# -------------------------------------------------------------------- hello and welcome

def test_welcome_has_every_field(join):
    welcome = join("Minou").welcome
    assert welcome["name"] == "Minou"
    assert type(welcome["color"]) is int and 0 <= welcome["color"] <= 11
    assert type(welcome["session"]) is str and len(welcome["session"]) >= 16
    assert welcome["resumed"] is False
    assert welcome["gap"] is False
    assert welcome["people"] == [{"name": "Minou", "color": welcome["color"]}]
    assert type(welcome["count"]) is int and welcome["count"] == 1
    assert type(welcome["last_id"]) is int and welcome["last_id"] >= 0
    assert type(welcome["history"]) is str and welcome["history"]
    limits = {"line": 65536, "text": 4000, "file": 10 * 1024 * 1024}
    assert limits.items() <= welcome["limits"].items()
    assert re.search(r"ChattyCat.*\d", welcome["server"])
    assert TIME.fullmatch(welcome["time"])


def test_times_are_utc(join):
    minou = join("Minou")
    stamp = minou.say("What time is it?")["time"]
    said = datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ")
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    assert abs(now - said) < datetime.timedelta(seconds=30)


def test_two_people_have_two_sessions_and_one_history(join, start_server):
    one, two = join("Minou").welcome, join("Tigrou").welcome
    assert one["session"] != two["session"]
    assert one["history"] == two["history"]
    elsewhere = join("Minou", start_server()).welcome
    assert elsewhere["history"] != one["history"]


def test_a_session_is_a_secret(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.say("Hello")
    came = [tigrou.welcome, tigrou.expect("chat"), tigrou.silence()]
    assert minou.welcome["session"] not in json.dumps(came)


def test_a_session_nobody_knows_is_a_newcomer(join):
    person = join()
    person.hello("Minou", session="0123456789abcdef0123456789abcdef", since=3)
    person.expect("welcome", name="Minou", resumed=False, gap=False)


def test_unknown_fields_are_ignored(join):
    person = join()
    person.hello("Minou", mood="sleepy", weight=[4.5, None, {"kg": True}])
    person.expect("welcome", name="Minou")
    answer = person.say("Hello", urgent=True, color=77, id=-1, **{"from": "Tigrou"})
    assert answer["from"] == "Minou"
    assert answer["id"] > 0 and answer["color"] != 77
    person.send({"type": "list", "page": 2})
    person.expect("people")


def test_hello_in_pieces(join):
    person = join()
    for piece in (b'{"type": "hel', b'lo", "name": "Mi', b'nou", "version": 1}', b"\n"):
        person.send_raw(piece)
    person.expect("welcome", name="Minou")


def test_one_byte_at_a_time(join):
    person = join()
    for byte in '{"type":"hello","name":"Félix","version":1}\n'.encode():
        person.send_raw(bytes([byte]))
    person.expect("welcome", name="Félix")


def test_hello_glued_to_a_chat_and_a_bye(join):
    watcher, person = join("Watcher"), join()
    person.send_raw(hello("Minou") + chat("Hello") + b'{"type": "bye"}\n')
    person.expect("welcome", name="Minou")
    person.expect("chat", text="Hello", from_="Minou")
    person.expect("goodbye", reason="bye")
    assert person.until_closed() == []
    watcher.expect("joined", name="Minou")
    watcher.expect("chat", text="Hello", from_="Minou")
    watcher.expect("left", name="Minou", reason="bye")


def test_two_chats_and_a_half_in_one_packet(join):
    minou = join("Minou")
    third = chat("three")
    minou.send_raw(chat("one") + chat("two") + third[:7])
    minou.expect("chat", text="one")
    minou.expect("chat", text="two")
    minou.send_raw(third[7:])
    minou.expect("chat", text="three")


def test_line_ends_of_other_systems_and_blank_lines(join):
    person = join()
    person.send_raw(b"\n\r\n" + hello("Minou").replace(b"\n", b"\r\n") + b"\n" * 50)
    person.expect("welcome", name="Minou")
    person.send_raw(b"\r\n" * 50 + chat("Hello").replace(b"\n", b"\r\n"))
    person.expect("chat", text="Hello")
    person.silence()


# The order in which a hello is looked at.

def test_bad_version(join):
    person = join()
    person.send({"type": "hello", "name": "Minou", "version": 2})
    assert person.expect("error", code="bad_version")["text"]


def test_the_version_is_looked_at_before_the_name(join):
    minou = join("Minou")
    for name in ("!!", minou.name):
        person = join()
        person.send({"type": "hello", "name": name, "version": 7})
        person.expect("error", code="bad_version")


def test_hello_again_after_name_taken_and_bad_name(join):
    join("Minou")
    person = join()
    person.hello("Minou")
    person.expect("error", code="name_taken")
    person.hello("no spaces please")
    person.expect("error", code="bad_name")
    person.hello("Minou2")
    person.expect("welcome", name="Minou2")
    person.say("I am in")


def test_a_second_hello_is_a_bad_message(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.expect("joined", name="Tigrou")
    minou.hello("Felix")
    minou.expect("error", code="bad_message")
    assert minou.say("Still me")["from"] == "Minou"
    tigrou.expect("chat", from_="Minou")


def test_server_full(join, start_server):
    full = start_server("--max-clients", "2")
    minou, tigrou = join("Minou", full), join("Tigrou", full)
    late = join(to=full)
    late.hello("Felix")
    assert late.expect("error", code="server_full")["text"]
    assert late.expect("goodbye", reason="server_full")["text"]
    assert late.until_closed() == []
    minou.expect("joined", name="Tigrou")
    assert minou.silence()["count"] == 2
    tigrou.leave()
    minou.expect("left", name="Tigrou")
    join("Felix", full)


def test_a_connection_that_says_nothing_takes_nobodys_place(join, start_server):
    server = start_server("--max-clients", "2")
    join(to=server), join(to=server), join(to=server)
    join("Minou", server), join("Tigrou", server)


# --------------------------------------------------------------------- names and colors

@pytest.mark.parametrize("typed, shown", [
    ("M", "M"), ("7", "7"), ("a_b-c.d_", "a_b-c.d_"), ("x" * 20, "x" * 20),
    ("Мурка", "Мурка"), ("猫", "猫"), ("고양이", "고양이"), ("قطة", "قطة"),
    ("๑๒๓", "๑๒๓"), ("𠀀" * 20, "𠀀" * 20),
    ("Ｍｉｎｏｕ", "Minou"), ("Ame\u0301lie", "Amélie"), ("m²", "m2"),
    ("ﬁ" * 10, "fi" * 10), ("\u334d" * 5, "メートル" * 5)])
def test_good_names(join, typed, shown):
    person = join()
    person.hello(typed)
    welcome = person.expect("welcome", name=shown)
    assert names_in(welcome) == [shown]


@pytest.mark.parametrize("name", [
    "", " ", "x" * 21, "ﬁ" * 11, "\u334d" * 6, "_x", "-x", ".x", "a b", "a\u00a0b",
    "a\tb", "a\nb", "a\0b", "a\u200bb", "a\u202eb", "cat!", "a/b", "a@b", "½", "😀",
    "<b>", 'a"b', "\u0301a", "\ud83d"])
def test_bad_names(join, name):
    person = join()
    person.hello(name)
    assert person.expect("error", code="bad_name")["text"]
    person.hello("Minou")
    person.expect("welcome", name="Minou")


@pytest.mark.parametrize("name", ["Server", "server", "SERVER", "Ｓｅｒｖｅｒ"])
def test_server_is_nobodys_name(join, name):
    person = join()
    person.hello(name)
    error = person.expect("error")
    assert error["code"] in ("bad_name", "name_taken")
    person.hello(name + "2")
    person.expect("welcome")


@pytest.mark.parametrize("first, second", [
    ("Minou", "Minou"), ("Minou", "mINOU"), ("Minou", "Ｍｉｎｏｕ"), ("Straße", "STRASSE"),
    ("Amélie", "AME\u0301LIE"), ("ΣΑΣ", "σας"), ("ﬁfi", "FIFI")])
def test_names_that_are_the_same(join, first, second):
    join(first)
    person = join()
    person.hello(second)
    person.expect("error", code="name_taken")


def test_a_name_is_free_as_soon_as_its_owner_has_left(join):
    for _ in range(20):
        join("Minou").leave()


def test_twelve_people_have_twelve_colors(join):
    people = [join(f"Cat{number}") for number in range(12)]
    colors = [person.welcome["color"] for person in people]
    assert sorted(colors) == list(range(12))
    # One of the twelve goes: who comes next gets the color that nobody has.
    people[5].leave()
    assert join("Next").welcome["color"] == colors[5]
    more = [join(f"More{number}").welcome["color"] for number in range(12)]
    assert sorted(more) == list(range(12))


def test_one_color_everywhere(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    color = tigrou.welcome["color"]
    entry = {"name": "Tigrou", "color": color}
    assert minou.expect("joined", name="Tigrou")["color"] == color
    assert entry in tigrou.welcome["people"]
    assert entry in minou.silence()["people"]
    tigrou.say("Hello")
    assert minou.expect("chat", from_="Tigrou")["color"] == color


# --------------------------------------------------------------------------------- chat

def test_chat_to_everybody(join):
    people = [join(name) for name in ("Minou", "Tigrou", "Felix")]
    people[0].send({"type": "chat", "text": "Hello all"})
    copies = [person.expect("chat", skip=COMINGS) for person in people]
    assert copies[0] == copies[1] == copies[2]
    message = copies[0]
    assert type(message["id"]) is int and message["id"] > 0
    assert message["from"] == "Minou" and message["text"] == "Hello all"
    assert message["color"] == people[0].welcome["color"]
    assert TIME.fullmatch(message["time"])
    assert "to" not in message and "ref" not in message
    for person in people:
        person.silence()        # each got it once


def test_chat_to_one_person_alone(join):
    minou, emile, felix = join("Minou"), join("Émile"), join("Felix")
    minou.send({"type": "chat", "text": "psst", "to": "ÉMILE", "ref": "p1"})
    message = minou.expect("chat", skip=COMINGS, text="psst", to="Émile", ref="p1")
    assert emile.expect("chat", skip=COMINGS) == message
    felix.silence()
    minou.say("Hello all")
    assert felix.expect("chat", text="Hello all")["id"] > message["id"]


def test_the_answer_to_a_private_line(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.say("How are you?", to="tigrou")
    tigrou.expect("chat", from_="Minou", to="Tigrou")
    tigrou.say("Fine", to="ｍｉｎｏｕ")
    minou.expect("chat", from_="Tigrou", to="Minou", text="Fine")


def test_chat_to_oneself_comes_once(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.expect("joined")
    minou.say("buy fish", to="MINOU")
    assert minou.latest[-1]["to"] == "Minou"
    minou.silence()
    tigrou.silence()


@pytest.mark.parametrize("to", ["Nobody", "Server", "no name at all", ""])
def test_chat_to_nobody(join, to):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.expect("joined")
    minou.send({"type": "chat", "text": "psst", "to": to, "ref": "r"})
    assert minou.expect("error", code="no_such_person", ref="r")["text"]
    minou.silence()
    tigrou.silence()


def test_chat_to_somebody_who_has_left(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    tigrou.leave()
    minou.expect("left", skip=COMINGS[:1], name="Tigrou", reason="bye")
    minou.send({"type": "chat", "text": "psst", "to": "Tigrou"})
    minou.expect("error", code="no_such_person")


@pytest.mark.parametrize("ref", ["1", "x" * 64, "é😀\u2028", 'a"b\\c\n'])
def test_everybodys_copy_carries_the_ref(join, ref):
    minou, tigrou = join("Minou"), join("Tigrou")
    assert minou.say("Hello", ref=ref)["ref"] == ref
    tigrou.expect("chat", ref=ref)


@pytest.mark.parametrize("code, line", [
    ("bad_text", {"type": "chat", "text": " "}),
    ("bad_message", {"type": "chat"}),
    ("bad_message", {"type": "chat", "text": 5}),
    ("no_such_person", {"type": "chat", "text": "psst", "to": "Nobody"}),
    ("unknown_type", {"type": "meow"}),
    ("bad_message", {"type": "hello", "name": "Again", "version": 1})])
def test_an_error_carries_the_ref_of_its_line(join, code, line):
    minou = join("Minou")
    minou.send(dict(line, ref="my label"))
    minou.expect("error", code=code, ref="my label")
    minou.send(line)
    assert "ref" not in minou.expect("error", code=code)


def test_an_error_before_welcome_carries_the_ref_too(join):
    person = join()
    person.send({"type": "chat", "text": "too early", "ref": "r1"})
    person.expect("error", code="hello_first", ref="r1")
    person.hello("no good", ref="r2")
    person.expect("error", code="bad_name", ref="r2")


def test_ids_grow_and_everybody_sees_the_same_order(join):
    people = [join(f"Cat{number}") for number in range(5)]
    for number in range(40):
        for person in people:
            person.send({"type": "chat", "text": str(number),
                         "ref": f"{person.name} {number}"})
    seen = [[person.expect("chat", skip=COMINGS) for _ in range(200)]
            for person in people]
    assert all(copy == seen[0] for copy in seen)
    ids = [message["id"] for message in seen[0]]
    assert ids == sorted(set(ids))
    texts = collections.defaultdict(list)
    for message in seen[0]:
        assert message["ref"] == f"{message['from']} {message['text']}"
        texts[message["from"]].append(int(message["text"]))
    assert texts == {person.name: list(range(40)) for person in people}


def test_public_and_private_lines_keep_their_order(join):
    """Everybody sees what they may see, all of it, in the order of the ids."""
    people = [join(f"Cat{number}") for number in range(5)]
    by_name = {person.name: person for person in people}
    chance = random.Random(7)
    lines = collections.defaultdict(bytes)
    owed = collections.Counter()
    for number in range(1000):
        speaker, hearer = chance.choice(people), chance.choice(people + [None] * 5)
        fields = {"to": hearer.name} if hearer else {}
        lines[speaker] += chat(str(number), **fields)
        for person in {speaker, hearer} if hearer else people:
            owed[person] += 1
    for speaker, data in lines.items():
        speaker.send_raw(data)
    seen = {person: [person.expect("chat", skip=COMINGS) for _ in range(owed[person])]
            for person in people}
    everything = {message["id"]: message for messages in seen.values()
                  for message in messages}
    assert len({message["text"] for message in everything.values()}) == 1000
    for person in people:
        person.silence()
        assert seen[person] == [
            message for _, message in sorted(everything.items())
            if "to" not in message
            or person in (by_name[message["from"]], by_name[message["to"]])]


# --------------------------------------------------------------------------------- text

@pytest.mark.parametrize("typed, shown", [
    ("  hello \n", "hello"), ("\n\t hello\nyou\t!", "hello\nyou\t!"),
    ("a" * 4000, "a" * 4000), (" " * 500 + "b" * 4000 + "\n" * 500, "b" * 4000),
    ("😀" * 4000, "😀" * 4000), ('"\\' * 2000, '"\\' * 2000),
    ("a" + "\n" * 3998 + "b", "a" + "\n" * 3998 + "b"),
    (".\u2028\u202e\u200d\ufeff.", ".\u2028\u202e\u200d\ufeff."),
    ("<b>&amp;</b>", "<b>&amp;</b>")])
def test_text_arrives_as_it_was_said(join, typed, shown):
    minou, tigrou = join("Minou"), join("Tigrou")
    for escaped in (True, False):       # \ud83d\ude00, and the emoji's own 4 bytes
        line = json.dumps({"type": "chat", "text": typed}, ensure_ascii=escaped)
        minou.send_raw(line.encode() + b"\n")
        minou.expect("chat", skip=COMINGS, text=shown)
        tigrou.expect("chat", text=shown)


@pytest.mark.parametrize("text", [
    "", " ", "\n\t \n", "a" * 4001, "😀" * 4001, "a\0b", "a\x1b[31mb", "a\x7fb",
    "a\x85b", "a\x9bb", "a\rb", "a\ud83db", "\ude00\ud83d"])
def test_bad_text(join, text):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.expect("joined")
    minou.send({"type": "chat", "text": text, "ref": "r"})
    assert minou.expect("error", code="bad_text", ref="r")["text"]
    minou.silence()
    tigrou.silence()


# ------------------------------------------------------------------- people come and go

def test_list(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    for person in (minou, tigrou):
        person.send({"type": "list"})
        people = person.expect("people", skip=COMINGS)
        assert names_in(people) == ["Minou", "Tigrou"]
        assert type(people["count"]) is int and people["count"] == 2
    assert names_in(tigrou.welcome) == ["Minou", "Tigrou"]
    assert tigrou.welcome["count"] == 2


def test_joined_and_left_go_to_the_others_only(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    tigrou.silence()
    joined = minou.expect("joined", name="Tigrou")
    assert TIME.fullmatch(joined["time"])
    assert joined["color"] == tigrou.welcome["color"]
    tigrou.send({"type": "bye"})
    assert [message["type"] for message in tigrou.until_closed()] == ["goodbye"]
    left = minou.expect("left", name="Tigrou", reason="bye")
    assert TIME.fullmatch(left["time"])
    minou.silence()


def test_who_never_said_hello_neither_joins_nor_leaves(join):
    minou = join("Minou")
    silent, refused = join(), join()
    refused.hello("Minou")
    refused.expect("error", code="name_taken")
    silent.close()
    refused.reset()
    join("Felix").leave()
    minou.expect("joined", name="Felix")
    minou.expect("left", name="Felix")
    minou.silence()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_breaks_is_lost(join, how):
    # A name that is lost so is kept for a minute, so no test takes another's.
    minou, other = join("Minou"), join(f"Lost_by_{how}")
    minou.expect("joined", name=other.name)
    getattr(other, how)()
    minou.expect("left", name=other.name, reason="lost")
    assert minou.silence()["count"] == 1


def test_what_was_said_before_the_connection_closed_counts(join):
    minou, person = join("Minou"), join()
    person.send_raw(hello("Lost_in_peace") + chat("one") + chat("two"))
    person.socket.shutdown(socket.SHUT_WR)      # close() with unread bytes is an RST
    minou.expect("joined", name="Lost_in_peace")
    minou.expect("chat", text="one")
    minou.expect("chat", text="two")
    minou.expect("left", name="Lost_in_peace", reason="lost")


def test_nobody_is_heard_before_joined_or_after_left(join):
    watcher = join("Watcher")
    crowd = [join() for _ in range(30)]
    for number, person in enumerate(crowd):
        person.send_raw(hello(f"Cat{number}") + chat("Hello") * 3 + b'{"type":"bye"}\n')
    here, lefts, chats = {"Watcher"}, 0, 0
    while lefts < len(crowd):
        message = watcher.read()
        if message["type"] == "joined":
            assert message["name"] not in here
            here.add(message["name"])
        elif message["type"] == "left":
            here.remove(message["name"])
            lefts += 1
        else:
            assert message["from"] in here
            chats += 1
    assert chats == 3 * len(crowd)
    for person in crowd:
        came = person.until_closed()
        assert came[0]["type"] == "welcome" and came[-1]["type"] == "goodbye"
        own = [message for message in came if message.get("from") == came[0]["name"]]
        assert len(own) == 3


# ------------------------------------------------------------------------------ goodbye

def test_bye_is_answered_and_the_connection_closed_in_order(join):
    minou = join("Minou")
    minou.send({"type": "bye"})
    assert minou.expect("goodbye", reason="bye")["text"]
    assert minou.until_closed() == []       # an RST would fail here
    # Half-closed: for a moment the server still takes what we send, so that its
    # goodbye cannot be overtaken by an RST.
    minou.send({"type": "chat", "text": "one more thing"})


def test_a_goodbye_arrives_though_its_reader_goes_on_sending(join):
    minou, tigrou = join("Minou"), join("Tigrou")
    minou.expect("joined")
    tigrou.send_raw(b'{"type": "bye"}\n' + chat("x" * 3000) * 200)
    tigrou.expect("goodbye", reason="bye")
    assert tigrou.until_closed() == []
    minou.expect("left", name="Tigrou", reason="bye")
    minou.silence()         # nothing that stood behind the bye was said


def test_after_goodbye_the_server_does_not_wait_for_us_for_ever(join):
    minou = join("Minou")
    minou.send({"type": "bye"})
    minou.until_closed()
    # "reads on for at most 1 s, then closes": what is sent later is answered by
    # RST, and from then on no send succeeds.
    gone = threading.Event()
    for _ in range(100):
        try:
            minou.send_raw(b"\n")
        except ConnectionError:
            return
        gone.wait(0.05)
    pytest.fail("5 s after its goodbye the server still takes what is sent")


@pytest.mark.parametrize("last, answers, reason", [
    (b'{"type": "bye"}\n', ["welcome", "chat", "goodbye"], "bye"),
    (b'{"type": "list"}\n', ["welcome", "chat", "people"], "lost")], ids=["bye", "end"])
def test_a_client_that_half_closes_gets_its_answers(join, last, answers, reason):
    """`printf '...' | nc HOST PORT`: the end of the input comes with the input."""
    minou = join("Minou")
    for number in range(100):   # a server that closes too early does so now and then
        person, name = join(), f"Nc_{reason}_{number}"
        person.send_raw(hello(name) + chat("Hello") + last)
        person.socket.shutdown(socket.SHUT_WR)
        came = [message["type"] for message in person.until_closed()]
        assert came == answers
        minou.expect("joined", name=name)
        minou.expect("chat", from_=name)
        minou.expect("left", name=name, reason=reason)


def test_nothing_comes_after_a_goodbye(join):
    minou = join("Minou")
    for behind in (b"x" * 100_000, b"nonsense\n" * 30, chat("Hello") * 30,
                   b'{"type": "list"}\n' * 30, b'{"type": "bye"}\n' * 30):
        tigrou = join("Tigrou")
        tigrou.send_raw(b'{"type": "bye"}\n' + behind)
        assert [message["type"] for message in tigrou.until_closed()] == ["goodbye"]
        minou.expect("joined", name="Tigrou")
        minou.expect("left", name="Tigrou", reason="bye")
    minou.silence()


# ------------------------------------------------------------------------------ history

@pytest.mark.parametrize("options, kept", [
    ([], 50), (["--recent", "5"], 5), (["--recent", "0"], 0),
    (["--recent", "100"], 70)])
def test_a_newcomer_gets_the_newest_public_lines(join, start_server, options, kept):
    server = start_server("--rate", "0", *options)
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    public = []
    for number in range(70):
        public.append(minou.say(f"public {number}", ref=f"p{number}"))
        minou.say(f"private {number}", to="Tigrou")
        tigrou.expect("chat", text=f"public {number}")
        tigrou.expect("chat", text=f"private {number}")
    person = join("Felix", server)
    history = [person.expect("chat") for _ in range(kept)]
    assert history == public[len(public) - kept:]
    assert all(message["id"] <= person.welcome["last_id"] for message in history)
    person.silence()
    new = person.say("Hello")
    assert new["id"] > person.welcome["last_id"]


def test_those_of_a_private_line_do_not_meet_it_again_as_newcomers(join, start_server):
    server = start_server()
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    minou.say("a secret", to="Tigrou")
    tigrou.expect("chat", text="a secret")
    tigrou.leave()
    join("Tigrou", server).silence()


def test_a_long_history_throws_nobody_out(join, start_server):
    """11 MB of it are no reason to take a newcomer for somebody who does not read."""
    server = start_server("--rate", "0", "--recent", "3000")
    minou = join("Minou", server)
    said = [minou.say(f"{number} " + "x" * 3900) for number in range(3000)]
    person = join("Felix", server, receive_buffer=4096)
    person.send({"type": "list"})
    # History comes as fast as it is read; the answer stands within it or behind it.
    history = [person.expect("chat", skip=["people"])]
    while history[-1]["id"] != person.welcome["last_id"]:
        history.append(person.expect("chat", skip=["people"]))
    # How much of it is kept is the server's affair, from the 50 on that it promises;
    # but the newest it must be, with no line missing among them.
    assert len(history) > 50
    assert history == said[-len(history):]
    person.send({"type": "chat", "text": "I have read it all"})
    person.expect("chat", text="I have read it all", skip=["people"])


def test_history_and_what_is_new_have_no_seam(join, start_server):
    """Whoever joins while others talk sees each line once, and in order."""
    server = start_server("--rate", "0")
    talker, witness = join("Talker", server), join("Witness", server)
    stop = threading.Event()

    def talk():
        number = 0
        while not stop.is_set():
            talker.say(f"line {number}")
            number += 1
        talker.say("the end")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    newcomers = [join(f"Cat{number}", server) for number in range(30)]
    stop.set()
    thread.join(10)

    def chats(person):
        seen = [person.expect("chat", skip=COMINGS)]
        while seen[-1]["text"] != "the end":
            seen.append(person.expect("chat", skip=COMINGS))
        return seen

    everything = chats(witness)
    for person in newcomers:
        seen = chats(person)
        assert seen == everything[-len(seen):]
        last_id = person.welcome["last_id"]
        old = [message for message in seen if message["id"] <= last_id]
        before = [message for message in everything if message["id"] <= last_id]
        assert old == before[-50:]
