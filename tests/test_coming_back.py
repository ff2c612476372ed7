"""Coming back: what a client may rely on when its connection has broken.

Every sentence of "Coming back" in the protocol that can be seen without --history. What
would take a minute or a day runs in a server inside the test, whose clock limits can be
changed; its sockets and its people are as real as the others'.
"""
import contextlib
import itertools
import random
import re
import select
import threading
import time

import pytest

import ChattyCat_Server
from people import COMINGS, Person

NUMBERS = itertools.count(1)


def named(name):
    """A name that no test before has used: a lost one is kept for a minute."""
    return f"{name}{next(NUMBERS)}"


def secret(person):
    return person.welcome["session"]


def try_to_come_back(join, person, to=None, **fields):
    """Say hello on a new connection with somebody's session."""
    again = join(to=to)
    again.name = person.name
    again.hello(**{"name": person.name, "session": secret(person), **fields})
    return again


def come_back(join, person, to=None, since=10**9, **fields):
    """Come back. The usual `since`: what is old is not the question."""
    again = try_to_come_back(join, person, to, since=since, **fields)
    again.expect("welcome", resumed=True, session=secret(person))
    return again


def lose(person, witness):
    """Break somebody's connection, and wait until the server has seen it."""
    person.reset()
    witness.expect("left", skip=["chat", *COMINGS[:1]], name=person.name, reason="lost")


def history_of(person):
    """All lines with an id that are due to somebody who has just come."""
    person.send({"type": "list"})
    lines = iter(person.read, None)
    due = list(itertools.takewhile(lambda line: line["type"] != "people", lines))
    return [line for line in due if "id" in line]


def texts(messages):
    return [message["text"] for message in messages]


def talk(speaker, *lines, to=None):
    """Say these, and return the receipts."""
    more = {} if to is None else {"to": to}
    for line in lines:
        speaker.send({"type": "chat", "text": line, **more})
    receipts = []
    while len(receipts) < len(lines):       # others may be talking too
        message = speaker.expect("chat", skip=COMINGS)
        if message["text"] == lines[len(receipts)]:
            receipts.append(message)
    return receipts


@pytest.fixture
def pair(join):
    """Two people, each of whom knows that the other is here."""
    witness, minou = join(named("Witness")), join(named("Minou"))
    witness.expect("joined", name=minou.name)
    return witness, minou


@pytest.fixture
def inside(monkeypatch, tls):
    """A server in this process, with limits that a test can set."""
    options = ChattyCat_Server.read_options(
        ["--port", "0", "--rate", "0", "--recent", "0", "--max-clients", "5",
         *tls])
    server = ChattyCat_Server.ChatServer(options)
    server.limit = lambda name, value: monkeypatch.setattr(
        ChattyCat_Server, name, value)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()
    with contextlib.suppress(OSError):      # it may be quicker than this
        Person(server).close()              # else it sleeps on in accept() for 0.25 s
    thread.join(5)
    assert not thread.is_alive()


# --------------------------------------------------------------------------- who it is

def test_who_comes_back_is_the_same_person(join, pair):
    witness, minou = pair
    assert minou.welcome["resumed"] is False
    last = talk(minou, "I am here")[0]["id"]
    lose(minou, witness)
    again = come_back(join, minou, since=last)
    welcome = again.welcome
    for field in ("name", "color", "session", "history", "limits", "server"):
        assert welcome[field] == minou.welcome[field]
    assert welcome["gap"] is False and welcome["last_id"] == last
    assert welcome["people"][0] == {"name": minou.name, "color": welcome["color"]}
    assert welcome["count"] == 2
    witness.expect("joined", name=minou.name, color=welcome["color"])
    assert again.say("I am back")["from"] == minou.name
    witness.expect("chat", color=welcome["color"], text="I am back")


@pytest.mark.parametrize("fields", [
    {"name": "!!"}, {"name": ""}, {"name": "x" * 50}, {"name": "Server"},
    {"name": "another"}, {"name": "\ud83d"}, {"name": "WITNESS"}], ids=str)
def test_the_name_is_given_back_whatever_name_says(join, pair, fields):
    witness, minou = pair
    minou.reset()
    fields = {"name": fields["name"].replace("WITNESS", witness.name)}
    assert come_back(join, minou, **fields).welcome["name"] == minou.name


def test_the_name_is_given_back_without_any(join, pair):
    _, minou = pair
    minou.reset()
    again = join()
    again.send({"type": "hello", "version": 1, "session": secret(minou)})
    again.expect("welcome", name=minou.name, resumed=True)


def test_the_color_stays_though_somebody_else_took_it(join):
    people = [join(named("Cat")) for _ in range(12)]
    lost = people[3]
    lose(lost, people[-1])
    assert join(named("Cat")).welcome["color"] == lost.welcome["color"]
    assert come_back(join, lost).welcome["color"] == lost.welcome["color"]


def test_again_and_again(join, pair):
    witness, minou = pair
    for number in range(20):
        lose(minou, witness)
        talk(witness, f"line {number}")
        minou = come_back(join, minou, since=witness.latest[-1]["id"] - 1)
        witness.expect("joined", name=minou.name)
        assert texts(history_of(minou)) == [f"line {number}"]


def test_a_session_is_long_and_new_for_each(join):
    people = [join(named("Cat")) for _ in range(20)]
    numbers, letters = zip(*[secret(person).split(".") for person in people])
    assert len(set(numbers)) == len(set(letters)) == 20
    # 22 letters of base64 are 132 bits.
    assert all(re.fullmatch(r"[\w-]{22,}", word) for word in letters)
    everywhere = [set(column) for column in zip(*letters)]
    assert sum(map(len, everywhere)) / len(everywhere) > 10     # they differ all over


def changed(word):
    return word[:-1] + ("A" if word[-1] != "A" else "B")


@pytest.mark.parametrize("guess", [
    lambda word: changed(word), lambda word: word[:-1], lambda word: word + "A",
    lambda word: word.split(".")[0], lambda word: word.split(".")[0] + ".",
    lambda word: "0" + word, lambda word: " " + word, lambda word: word + "\n",
    lambda word: word.upper(), lambda word: word.split(".")[1],
    lambda word: "1." + word.split(".")[1], lambda word: "." + word.split(".")[1],
    lambda word: word.split(".")[0] + ".\ud83d", lambda word: "9" * 5000 + ".x",
    lambda word: "-1.x", lambda word: "١.x", lambda word: "", lambda word: "é" * 9000])
def test_a_guess_is_a_new_person(join, pair, guess):
    witness, minou = pair
    talk(witness, "for Minou alone", to=minou.name)
    minou.expect("chat")
    stranger = join()
    stranger.hello(named("Guest"), session=guess(secret(minou)), since=0)
    stranger.expect("welcome", resumed=False, gap=False)
    assert secret(stranger) not in (secret(minou), guess(secret(minou)))
    stranger.silence()                      # and gets no history with `since`
    for person in pair:
        person.expect("joined", name=stranger.welcome["name"])
        person.silence()                    # nor is anybody replaced


def test_a_session_of_another_server_is_a_new_person(join, start_server, pair):
    _, minou = pair
    stranger = join(to=start_server())
    stranger.hello("Minou", session=secret(minou), since=10**6)
    stranger.expect("welcome", resumed=False, gap=False, last_id=0)
    assert stranger.welcome["history"] != minou.welcome["history"]


# ------------------------------------------------------------------------------- since

def test_since(join, pair):
    """The lines after it that this person may see, in order; then what is new."""
    witness, minou = pair
    other = join(named("Other"))
    said = talk(witness, "one", "two")
    said += talk(witness, "to Minou", to=minou.name)
    talk(witness, "to somebody else", to=other.name)
    said += talk(minou, "from Minou", to=other.name) + talk(minou, "three")
    talk(other, "to myself", to=other.name)
    lose(minou, other)
    said += talk(witness, "four")
    for skipped, line in enumerate(said):
        again = come_back(join, minou, since=line["id"])
        assert again.welcome["gap"] is False
        assert history_of(again) == said[skipped + 1:]
    witness.send({"type": "chat", "text": "five"})
    assert again.expect("chat")["id"] > again.welcome["last_id"]


@pytest.mark.parametrize("fields", [
    {}, {"since": 0}, {"since": -1}, {"since": -10**30}], ids=str)
def test_since_the_beginning(join, start_server, fields):
    server = start_server("--recent", "2")
    witness, minou = join("Witness", server), join("Minou", server)
    said = talk(witness, *"abcde") + talk(witness, "psst", to="Minou")
    minou.reset()
    again = try_to_come_back(join, minou, server, **fields)
    again.expect("welcome", resumed=True, gap=False)
    assert history_of(again) == said


@pytest.mark.parametrize("more", [0, 1, 10**30])
def test_since_the_end_and_later(join, pair, more):
    witness, minou = pair
    last = talk(witness, "line")[0]["id"]
    lose(minou, witness)
    again = come_back(join, minou, since=last + more)
    assert again.welcome["gap"] is False
    again.silence()
    talk(witness, "new")
    again.expect("chat", text="new", id=last + 1)


@pytest.mark.parametrize("fields", [
    {"since": True}, {"since": "3"}, {"since": 1.5}, {"since": None}, {"since": [1]},
    {"session": 5}, {"session": None}, {"session": True}, {"session": ["x"]}], ids=str)
def test_fields_of_the_wrong_kind(join, pair, fields):
    _, minou = pair
    again = try_to_come_back(join, minou, **{"ref": "h", **fields})
    again.expect("error", code="bad_message", ref="h")
    minou.say("I am here all the time")
    again.hello("?", session=secret(minou))         # that was not the end of it
    again.expect("welcome", resumed=True)


def test_the_version_is_looked_at_before_the_session(join, pair):
    _, minou = pair
    again = join()
    again.send({"type": "hello", "version": 2, "session": secret(minou)})
    again.expect("error", code="bad_version")
    minou.silence()                                 # not replaced


def test_since_without_a_session_means_nothing(join, pair):
    talk(pair[1], "line")
    guest = join()
    guest.hello(named("Guest"), since=0)
    guest.expect("welcome", resumed=False, gap=False)
    guest.silence()


def test_the_last_id_and_the_history_are_the_same_for_all(join, pair):
    witness, minou = pair
    last = talk(witness, "psst", to=witness.name)[0]["id"]
    others = [join(named("Guest")), come_back(join, minou, since=0)]
    assert [person.welcome["last_id"] for person in others] == [last, last]
    assert {person.welcome["history"] for person in others} == {
        witness.welcome["history"]}


def test_what_was_said_in_the_moment_of_the_return(join, pair):
    """In one packet: hello, a question and a message, answered in this order."""
    witness, minou = pair
    lose(minou, witness)
    last = talk(witness, "while you were away")[0]["id"]
    again = join()
    again.send_raw(
        b'{"type": "hello", "version": 1, "session": "%s", "since": %d}\n'
        b'{"type": "chat", "text": "back", "ref": "b"}\n{"type": "list"}\n'
        b'{"type": "bye"}\n' % (secret(minou).encode(), last - 1))
    assert [message.get("text", message["type"]) for message in again.until_closed()][
        :-1] == ["welcome", "while you were away", "back", "people"]


# ---------------------------------------------------------------------------- replaced

def test_the_old_connection_is_replaced_and_nobody_sees_it(join, pair):
    witness, minou = pair
    again = come_back(join, minou)
    assert minou.expect("goodbye", reason="replaced")["text"]
    assert minou.until_closed() == []
    witness.silence()
    assert again.welcome["count"] == 2
    witness.say("Hello")
    again.expect("chat", text="Hello")
    lose(again, witness)


def test_what_the_old_connection_still_says_is_not_obeyed(join, pair):
    witness, minou = pair
    again = come_back(join, minou)
    minou.send({"type": "chat", "text": "from the grave"})
    minou.send({"type": "bye"})
    assert [message["reason"] for message in minou.until_closed()] == ["replaced"]
    witness.silence()
    assert again.silence()["count"] == 2


def test_two_who_fight_for_a_session(join, pair):
    witness, minou = pair
    people = [minou]
    people += [try_to_come_back(join, minou, since=10**9) for _ in range(30)]
    # Each has a thread of its own, so nobody knows whose hello is obeyed first. But the
    # newest connection wins, and a hello that was long on its way replaces nobody.
    people[-1].expect("welcome", resumed=True, count=2)
    for person in people[:-1]:
        came = [message["type"] for message in person.until_closed()]
        assert came in (["welcome", "goodbye"], ["goodbye"])
        assert person.latest[-2]["reason"] == "replaced"
    witness.say("Who has won?")
    people[-1].expect("chat", text="Who has won?")


# -------------------------------------------------------------------------- kept names

def test_a_lost_name_is_kept_in_every_spelling(join, pair):
    witness, minou = pair
    lose(minou, witness)
    for name in (minou.name, minou.name.upper(), minou.name.replace("M", "Ｍ")):
        stranger = join()
        stranger.hello(name)
        assert "kept" in stranger.expect("error", code="name_taken")["text"]
    come_back(join, minou)


def test_private_text_for_somebody_who_is_away(join, pair):
    witness, minou = pair
    third = join(named("Third"))
    lose(minou, witness)
    last = witness.silence()
    receipt = talk(witness, "psst", to=minou.name.upper())[0]
    assert receipt["to"] == minou.name
    assert last["count"] == 2               # so that was said to nobody who is here
    again = come_back(join, minou, since=receipt["id"] - 1)
    assert history_of(again) == [receipt]
    third.expect("left"), third.expect("joined")
    third.silence()
    later = come_back(join, again, since=receipt["id"])
    later.silence()                         # once, and not once more


def test_bye_frees_the_name_and_keeps_the_session(join, pair):
    witness, minou = pair
    minou.leave()
    witness.expect("left", reason="bye")
    witness.send({"type": "chat", "text": "psst", "to": minou.name})
    witness.expect("error", code="no_such_person")
    somebody = join(minou.name)             # at once
    again = try_to_come_back(join, minou, name=named("Other"))
    again.expect("error", code="name_taken")
    # "hello again with the same session and another name"
    for name, code in ((somebody.name, "name_taken"), ("?!", "bad_name")):
        again.hello(name, session=secret(minou))
        again.expect("error", code=code)
    name = named("Other")
    again.hello(name, session=secret(minou))
    again.expect("welcome", name=name, resumed=True, color=minou.welcome["color"])
    again.leave()
    # From now on this is the name that the session has.
    assert come_back(join, again, name="?").welcome["name"] == name


def test_bye_and_back_under_the_same_name(join, pair):
    witness, minou = pair
    minou.leave()
    said = talk(witness, "one", "two")
    again = come_back(join, minou, since=said[0]["id"])
    assert again.welcome["name"] == minou.name
    assert history_of(again) == said[1:]


def test_a_kick_frees_the_name(join, start_server):
    server = start_server("--rate", "0", console=True)
    minou = join("Minou", server)
    server.type_line("/kick Minou")
    minou.expect("goodbye", reason="kicked")
    join("Minou", server).leave()
    assert come_back(join, minou, server).welcome["name"] == "Minou"


def test_private_lines_never_go_to_another_of_the_same_name(join, pair):
    witness, minou = pair
    first = talk(witness, "for the first one", to=minou.name)[0]
    minou.leave()
    namesake = join(minou.name)
    second = talk(witness, "for the second one", to=minou.name)[0]
    namesake.expect("chat", text="for the second one")
    namesake = come_back(join, namesake, since=first["id"] - 1)
    assert history_of(namesake) == [second]
    namesake.leave()
    owner = come_back(join, minou, since=first["id"] - 1)
    assert history_of(owner) == [first]


# ------------------------------------------------------- one message for one ref

def chat(ref, text, **fields):
    return {"type": "chat", "ref": ref, "text": text, **fields}


def test_the_same_ref_twice_is_one_message(join, pair):
    witness, minou = pair
    receipt = minou.say("once", ref="r")
    assert minou.say("once", ref="r") == receipt
    assert minou.say("something else", ref="r") == receipt
    assert minou.say("once", ref="R")["id"] == receipt["id"] + 1    # another one
    assert [witness.expect("chat")["ref"] for _ in range(2)] == ["r", "R"]
    witness.silence()


def test_the_same_ref_after_the_return(join, pair):
    witness, minou = pair
    minou.send(chat("public", "all"))
    minou.send(chat("private", "psst", to=witness.name))
    came = [witness.expect("chat") for _ in range(2)]   # but Minou has not read them
    lose(minou, witness)
    again = come_back(join, minou, since=came[-1]["id"])
    witness.expect("joined")
    again.send(chat("public", "all"))
    again.send(chat("private", "psst", to=witness.name))
    again.send(chat("new", "new"))
    new = witness.expect("chat", ref="new")
    receipts = [again.expect("chat") for _ in range(3)]
    assert sorted(receipts, key=lambda line: line["id"]) == came + [new]
    witness.silence()


def test_a_repeat_has_its_receipt_though_the_other_one_has_left(join, pair):
    witness, minou = pair
    receipt = minou.say("psst", ref="r", to=witness.name)
    witness.leave()
    minou.expect("left")
    assert minou.say("psst", ref="r", to=witness.name) == receipt
    minou.send(chat("r2", "psst", to=witness.name))
    minou.expect("error", code="no_such_person", ref="r2")


def test_refs_of_two_people_do_not_mix(join, pair):
    witness, minou = pair
    one, two = witness.say("mine", ref="1"), None
    minou.expect("chat", from_=witness.name)
    two = minou.say("mine too", ref="1")
    assert two["id"] > one["id"] and two["from"] == minou.name
    minou.leave()
    namesake = join(minou.name)
    assert namesake.say("and mine", ref="1")["id"] > two["id"]


def test_an_error_with_a_ref_keeps_nothing(join, pair):
    _, minou = pair
    minou.send(chat("r", " "))
    minou.expect("error", code="bad_text", ref="r")
    assert minou.say("now it is good", ref="r")["text"] == "now it is good"


def test_the_newest_1000_refs_are_known(join, pair):
    witness, minou = pair
    minou.send_raw(b"".join(
        b'{"type": "chat", "text": "%d", "ref": "%d"}\n' % (number, number)
        for number in range(1001)))
    ids = [minou.expect("chat")["id"] for _ in range(1001)]
    for number in (1, 500, 1000):           # all but the oldest
        assert minou.say("?", ref=str(number))["id"] == ids[number]
    assert minou.say("?", ref="0")["id"] > ids[-1]


def test_a_receipt_does_not_overtake_history(join, pair):
    """Two connections break at once: what is asked again comes behind what is old."""
    witness, minou = pair
    said = talk(witness, *[f"{number} {'x' * 1100}" for number in range(300)])
    lose(minou, witness)
    receipt = come_back(join, minou, since=said[-1]["id"]).say("mine", ref="r")
    again = join()
    again.send_raw(
        b'{"type": "hello", "version": 1, "session": "%s", "since": %d}\n'
        b'{"type": "chat", "text": "mine", "ref": "r"}\n'
        % (secret(minou).encode(), said[0]["id"] - 1))
    again.expect("welcome", resumed=True)
    came = [again.expect("chat") for _ in range(302)]
    assert came == said + [receipt, receipt]
    again.silence()


def test_a_receipt_that_was_asked_again_comes_before_the_goodbye(join, pair):
    witness, minou = pair
    receipt = minou.say("mine", ref="r")
    minou.reset()
    again = join()
    again.send_raw(
        b'{"type": "hello", "version": 1, "session": "%s", "since": %d}\n'
        b'{"type": "chat", "text": "mine", "ref": "r"}\n{"type": "bye"}\n'
        % (secret(minou).encode(), receipt["id"]))
    again.expect("welcome", resumed=True)
    assert again.expect("chat") == receipt
    again.expect("goodbye")


# -------------------------------------------------------- a minute, a day, a full room

@pytest.fixture
def rooms(inside, join):        # in this order: people leave before it ends
    """The server inside the test, and two who are in it."""
    return inside, join("Witness", inside), join("Minou", inside)


A_MINUTE_LATER = ("NAME_SECONDS", -1)       # as if all that time had passed
A_DAY_LATER = ("SESSION_SECONDS", -1)


def test_after_a_minute_the_name_is_free(rooms, join):
    server, witness, minou = rooms
    lose(minou, witness)
    stranger = join(to=server)
    stranger.hello("Minou")
    stranger.expect("error", code="name_taken")
    server.limit(*A_MINUTE_LATER)
    witness.send({"type": "chat", "text": "psst", "to": "Minou"})
    witness.expect("error", code="no_such_person")
    stranger.hello("Minou")
    stranger.expect("welcome", resumed=False)
    again = try_to_come_back(join, minou, server, name="Other")
    again.expect("error", code="name_taken")    # the user is asked first
    again.hello("Other", session=secret(minou))
    again.expect("welcome", name="Other", resumed=True, session=secret(minou))
    assert again.say("Hello")["from"] == "Other"
    stranger.expect("joined", name="Other")


def test_after_a_minute_it_has_its_name_if_nobody_took_it(rooms, join):
    server, witness, minou = rooms
    lose(minou, witness)
    server.limit(*A_MINUTE_LATER)
    said = talk(witness, "line")
    again = come_back(join, minou, server, since=said[0]["id"] - 1, name="Other")
    assert again.welcome["name"] == "Minou"
    assert history_of(again) == said


def test_a_minute_after_the_return_the_name_is_still_ones_own(rooms, join):
    server, witness, minou = rooms
    for _ in range(3):
        lose(minou, witness)
        minou = come_back(join, minou, server)
        witness.expect("joined")
    server.limit(*A_MINUTE_LATER)
    stranger = join(to=server)
    stranger.hello("Minou")
    stranger.expect("error", code="name_taken")
    talk(witness, "psst", to="Minou")
    minou.expect("chat", text="psst")


def test_after_a_day_the_session_is_over(rooms, join):
    server, witness, minou = rooms
    lose(minou, witness)
    server.limit(*A_MINUTE_LATER)
    server.limit(*A_DAY_LATER)
    again = try_to_come_back(join, minou, server, since=0)
    again.expect("welcome", resumed=False, name="Minou")
    assert secret(again) != secret(minou)
    # A day of being here is no day of being away.
    come_back(join, again, server)


def test_a_full_room_lets_its_own_people_back_in(rooms, join):
    server, witness, minou = rooms              # it has room for five
    lose(minou, witness)
    for number in range(4):
        join(f"Cat{number}", server)
    late = join(to=server)
    late.hello("Late")
    late.expect("error", code="server_full")
    late.expect("goodbye", reason="server_full")
    assert come_back(join, minou, server).welcome["count"] == 6


def come_and_be_lost(join, server, witness, name):
    person = join(name, server)
    lose(person, witness)
    return person


def test_the_number_of_kept_names_has_a_limit(rooms, join):
    server, witness, _ = rooms
    server.limit("AWAY_LIMIT", 3)
    lost = [come_and_be_lost(join, server, witness, f"Cat{number}")
            for number in range(13)]
    join("Cat0", server).leave()                # the oldest name is free
    for person in lost[-2:]:                    # that `bye` counts too: two are left
        stranger = join(to=server)
        stranger.hello(person.name)
        stranger.expect("error", code="name_taken")
    sessions = server.room.sessions
    assert len(sessions.away) <= 3
    assert len(sessions.names) <= 5 and len(sessions.numbers) <= 5
    # Without the name, but it is the same person nevertheless.
    come_back(join, lost[5], server)


def test_the_number_of_sessions_has_a_limit(rooms, join):
    server, witness, minou = rooms
    server.limit("AWAY_LIMIT", 0)
    server.limit("MEMORY_SESSIONS", 4)
    lost = [come_and_be_lost(join, server, witness, f"Cat{number}")
            for number in range(10)]
    try_to_come_back(join, lost[0], server).expect("welcome", resumed=False)
    come_back(join, lost[-1], server)
    # Who is here all the time is not forgotten.
    lose(minou, witness)
    come_back(join, minou, server)


# -------------------------------------------------------------------------------- gaps

def range_of_texts(first, last):
    return [f"{number:02}" for number in range(first, last + 1)]


@pytest.mark.parametrize("since, gap", [
    (0, True), (1, True), (19, True), (20, False), (25, False), (30, False),
    (None, False)])
@pytest.mark.parametrize("limit", ["MEMORY_LINES", "MEMORY_BYTES"])
def test_what_memory_has_forgotten_is_a_gap(rooms, join, limit, since, gap):
    server, witness, minou = rooms
    lose(minou, witness)
    length = len(ChattyCat_Server.encode(talk(witness, *range_of_texts(1, 10))[-1]))
    server.limit(limit, 10 if limit == "MEMORY_LINES" else 10 * length)
    said = talk(witness, *range_of_texts(11, 30))[-10:]
    fields = {} if since is None else {"since": since}
    again = try_to_come_back(join, minou, server, **fields)
    again.expect("welcome", resumed=True, gap=gap)
    assert history_of(again) == [line for line in said if line["id"] > (since or 0)]
    history = server.room.history
    assert len(history.lines) == 10
    assert history.bytes == sum(map(len, history.lines))


def test_a_receipt_of_a_line_that_memory_has_forgotten(rooms, join):
    server, witness, minou = rooms
    receipt = minou.say("first", ref="r")
    server.limit("MEMORY_LINES", 3)
    talk(witness, *"abcde")
    for _ in range(5):
        minou.expect("chat")
    again = minou.say("first", ref="r")
    again["time"] = receipt["time"]
    assert again == receipt
    minou.silence()


def test_coming_back_where_all_talk_and_memory_is_short(rooms, join):
    """Nobody is turned away again and again because the oldest line has just gone."""
    server, witness, minou = rooms
    server.limit("MEMORY_LINES", 60)
    over = threading.Event()

    def chatter():
        while not over.is_set():
            talk(witness, *["x"] * 20)

    thread = threading.Thread(target=chatter, daemon=True)
    thread.start()
    try:
        for number in range(60):
            minou = try_to_come_back(join, minou, server,
                                     **({"since": 0} if number % 2 else {}))
            minou.expect("welcome", resumed=True)
            ids = [minou.expect("chat")["id"] for _ in range(100)]
            assert ids == list(range(ids[0], ids[0] + 100))
    finally:
        over.set()
        thread.join(10)


# ---------------------------------------------------------------- as fast as it is read

def fill(speaker, count, size=3900):
    """Say so many long lines; return their ids."""
    ids = []
    for start in range(0, count, 50):       # and read in between, as a client does
        many = min(50, count - start)
        ids += [line["id"] for line in talk(speaker, *["x" * size] * many)]
    return ids


def waiting(server, person):
    """How much the server has taken up for somebody who does not read."""
    return max(len(connection.waiting) for connection in list(server.connections)
               if connection.name == person.name)


def slow_return(join, server, person, **fields):
    """Come back, and read no more than the welcome."""
    again = join(to=server, receive_buffer=4096)
    again.name = person.name
    again.hello(person.name, session=secret(person), **fields)
    again.expect("welcome", resumed=True)
    return again


@pytest.fixture
def slow(inside, join):
    """(server, speaker, who has come back slowly, what is due to them): 6.8 MB."""
    server = inside
    server.limit("MEMORY_BYTES", 64 * 2**20)    # the kernel has room for 4 of them
    speaker, minou = join("Speaker", server), join("Minou", server)
    lose(minou, speaker)
    due = fill(speaker, 1700)
    minou = slow_return(join, server, minou, since=0)
    speaker.expect("joined")
    deadline = time.monotonic() + 5
    while not waiting(server, minou):           # until the kernel takes no more
        assert time.monotonic() < deadline, "the kernel has taken it all"
        time.sleep(0.01)
    return server, speaker, minou, due


def test_who_reads_slowly_gets_the_history_slowly(slow):
    server, speaker, minou, due = slow
    due += fill(speaker, 30)
    # Not all 6.8 MB, and not as much as throws somebody out.
    assert waiting(server, minou) < 400_000
    assert speaker.silence()["count"] == 2
    got = [minou.expect("chat")["id"] for _ in range(len(due) // 2)]
    due += fill(speaker, 30)
    assert waiting(server, minou) < 400_000
    got += [minou.expect("chat")["id"] for _ in range(len(due) - len(got))]
    assert got == due
    minou.say("I have read it all")
    speaker.expect("chat", text="I have read it all")


def test_who_leaves_in_the_middle_has_no_hole(slow, join):
    """Else `since` would be an id behind lines that were never read."""
    server, speaker, minou, due = slow
    minou.send({"type": "bye"})
    speaker.expect("left", reason="bye")
    due += fill(speaker, 20)
    *chats, goodbye = minou.until_closed()
    assert goodbye["reason"] == "bye"
    assert 0 < len(chats) < len(due)
    assert [line["id"] for line in chats] == due[:len(chats)]
    again = come_back(join, minou, server, since=chats[-1]["id"])
    assert [again.expect("chat")["id"] for _ in due[len(chats):]] == due[len(chats):]


def test_memory_forgets_what_somebody_was_reading(slow, join):
    server, speaker, minou, due = slow
    server.limit("MEMORY_BYTES", 2**20)
    speaker.say("Now the rest is forgotten")
    got = [minou.expect("chat")["id"]]
    with pytest.raises(AssertionError, match="broken"):
        while True:
            got.append(minou.expect("chat")["id"])
    assert got == due[:len(got)]                # up to there, all in order
    speaker.expect("left", name="Minou", reason="too_slow")
    again = come_back(join, minou, server, since=got[-1])
    assert again.welcome["gap"] is True
    ids = [again.expect("chat")["id"]]
    while ids[-1] < again.welcome["last_id"]:
        ids.append(again.expect("chat")["id"])
    assert len(ids) > 200 and ids == list(range(ids[0], ids[0] + len(ids)))


def test_much_that_is_not_for_oneself(join, pair):
    """The postman reads on through what others have said to each other."""
    witness, minou = pair
    first = talk(witness, "first")[0]
    lose(minou, witness)
    for _ in range(30):
        talk(witness, *["to myself"] * 50, to=witness.name)
    last = talk(witness, "last")[0]
    again = come_back(join, minou, since=first["id"] - 1)
    assert [again.expect("chat") for _ in range(2)] == [first, last]
    again.silence()


# ------------------------------------------------------------------------ many of them

def test_two_hundred_come_back_at_once(join, start_server):
    server = start_server("--rate", "0", "--max-clients", "201")
    speaker = join("Speaker", server)
    crowd = [join(f"Cat{number}", server) for number in range(200)]
    for person in crowd:
        person.reset()
    for _ in crowd:
        speaker.expect("left", skip=["joined"])
    said = [line["id"] for line in talk(speaker, *["x" * 500] * 300)]
    # All have said hello before the first one reads.
    crowd = [try_to_come_back(join, person, server, since=said[0] - 1)
             for person in crowd]
    for person in crowd:
        person.expect("welcome", resumed=True, gap=False)
    for person in crowd:
        assert [person.expect("chat", skip=COMINGS)["id"] for _ in said] == said


class Walker:
    """A client that loses its connection, and shows every line once."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.person = Person(server, name)
        self.session = self.person.welcome["session"]
        self.since = self.person.welcome["last_id"]
        self.shown, self.open, self.said = [], {}, 0

    def say(self, to=None):
        self.said += 1
        line = chat(f"r{self.said}", f"{self.name} {self.said}")
        line.update({} if to is None else {"to": to.name})
        self.open[line["ref"]] = line           # until its receipt comes
        self.person.send(line)

    def lose(self):
        self.person.reset()
        self.person = Person(self.server)
        self.person.hello("?", session=self.session, since=self.since)
        for line in self.open.values():         # whatever may have been lost
            self.person.send(line)

    def read(self, limit=0.0):
        while b"\n" in self.person.buffer or select.select(
                [self.person.socket], [], [], limit)[0]:
            self.take(self.person.read())

    def take(self, message):
        if message.get("reason") == "replaced":
            # A hello of two connections ago was obeyed after the newest one.
            self.lose()
            return
        assert message["type"] in ("welcome", "chat", *COMINGS), message
        if message["type"] == "welcome":
            assert (message["resumed"], message["gap"]) == (True, False)
        elif message["type"] == "chat":
            mine = message["from"] == self.name
            if message["id"] > self.since:
                self.since = message["id"]
                self.shown.append(message)
            else:
                assert mine, f"twice: {message}"    # a receipt asked for again
            if mine:
                self.open.pop(message["ref"], None)


def walk(walkers, chance, steps):
    for _ in range(steps):
        walker, what = chance.choice(walkers), chance.random()
        if what < 0.3:
            walker.lose()
        elif what < 0.8:
            walker.say(chance.choice(walkers + [None] * len(walkers)))
        else:
            walker.read()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_breaks_every_line_is_shown_once(server, seed):
    """Some hundred connections break while all talk, to everybody and to one."""
    walkers = [Walker(server, named("Walker")) for _ in range(6)]
    walk(walkers, random.Random(seed), 600)
    deadline = time.monotonic() + 10
    while any(walker.open for walker in walkers):
        assert time.monotonic() < deadline, "somebody waits for a receipt in vain"
        for walker in walkers:
            walker.read(0.01)
    walkers[0].say()                            # now all is said: this is the last
    while any(walker.since < walkers[0].since or walkers[0].open for walker in walkers):
        assert time.monotonic() < deadline, "somebody waits for the last line in vain"
        for walker in walkers:
            walker.read(0.01)
    everything = {line["id"]: line for walker in walkers for line in walker.shown}
    said = [line["text"] for line in everything.values()]
    assert len(said) == len(set(said)) == sum(walker.said for walker in walkers)
    for walker in walkers:
        assert walker.shown == [
            line for _, line in sorted(everything.items())
            if "to" not in line or walker.name in (line["from"], line["to"])]
        walker.person.leave()
