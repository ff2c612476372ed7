"""The client when its connection breaks: nothing is lost, and nothing comes twice.

Also its two logs: what was said, and what the program did.
"""
import collections
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import ChattyCat_Client
from ChattyCat_Client import local_time
from people import COMINGS
from test_connection import (   # client, home and odd are fixtures
    REQUIRED, TIME, WELCOME, WRONG, chat, client, home, odd)
from test_plain_lines import CLIENT, POSIX, WAYS, come_in, plain

FIXTURES = (client, home, odd, plain)


def cut(person):
    """Break somebody's connection, if it is not broken already."""
    with contextlib.suppress(OSError):
        person.chat.connection.sock.shutdown(socket.SHUT_RDWR)


def break_off(person):
    cut(person)
    person.until_state("waiting")


def back(person, state="online"):
    person.chat.retry_now()
    person.until_state(state)


def lose(person, server):
    """Kill somebody's server, and wait until they know."""
    server.kill()
    person.until_state("waiting")


def arrive(person):
    """Wait until all that somebody has typed has its receipt."""
    person.until(lambda: not person.chat.unconfirmed)


def said(conversation):
    """What people said there, as somebody reads it, from top to bottom."""
    return [line.text for line in conversation.lines if line.kind == "chat"]


def notes(conversation):
    return [line.text for line in conversation.lines if line.kind == "system"]


def states(conversation):
    return [line.state for line in conversation.lines if line.kind == "chat"]


def in_order(conversation, *patterns):
    """Whether these stand below each other, in this order; others may be between."""
    lines = [f"{line.author}: {line.text}" for line in conversation.lines]
    places = [next((at for at, line in enumerate(lines) if re.search(pattern, line)),
                   -1) for pattern in patterns]
    assert -1 not in places and places == sorted(places), (patterns, lines)


# ------------------------------------------------------- what was sent is read once

def say(person, text, to):
    """To everybody, or to one of the others alone."""
    name = None if to is person else to.chat.me
    assert person.chat.say(text, person.chat.conversation_with(name))


def talk_and_break(people, choose, rounds):
    """Let people type and lose their connections at any moment; return what they said.

    Right after typing, when the line is in the outbox or just beyond it; or between
    two receipts; or before they type. Those who were cut come back at once.
    """
    typed = []
    for round_ in range(rounds):
        for person in choose.sample(people, len(people)):
            happens = choose.choice(("typing", "cut", "cut", "cut first", "reading"))
            if happens == "cut first":
                break_off(person)
            for number in range(choose.randrange(1, 5)):
                typed.append(f"{person.chat.me} {round_}.{number}")
                say(person, typed[-1], choose.choice([person, *people]))
            if happens == "reading":
                person.chat.drain(choose.randrange(1, 6), 1)
                cut(person)
            elif happens == "cut":
                cut(person)
        for person in people:
            person.chat.drain(1000, 1)
            # Who was cut may not know it yet; then it comes to light later.
            if person.status == "waiting":
                back(person)
    return typed


def settle(people, last):
    """Take in all there is, up to one last line that all of them get."""
    for person in people:
        person.until(lambda: person.status == "online" or person.chat.retry_now())
        arrive(person)
    people[0].chat.typed(last)
    for person in people:
        person.until(lambda: last in said(person.chat.everyone))
        arrive(person)


def all_read_the_same(people, typed):
    """Everybody has every line once, all in one order; and nothing waits."""
    copies = collections.defaultdict(list)      # who may read it -> what each one has
    for person in people:
        for conversation in person.chat.conversations.values():
            place = {person.chat.me, conversation.name} if conversation.name else {}
            copies[frozenset(place)].append(said(conversation))
            assert set(states(conversation)) <= {""}
    for place, (first, *others) in copies.items():
        assert others == [first] * (len(place or people) - 1)
    assert sorted(sum((first for first, *_ in copies.values()), [])) == sorted(typed)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_sent_is_read_once_whatever_breaks(start_server, client, seed):
    server = start_server("--rate", 0)
    people = [client(server, name) for name in ("Minou", "Tigrou", "Garfield")]
    typed = talk_and_break(people, random.Random(seed), rounds=12)
    settle(people, "The end")
    all_read_the_same(people, typed + ["The end"])


def test_also_when_the_server_is_killed_again_and_again(start_server, client, tmp_path):
    options = "--rate", 0, "--history", tmp_path / "history"
    server = start_server(*options)
    people = [client(server, name) for name in ("Minou", "Tigrou")]
    choose, typed = random.Random(7), []
    for number in range(4):
        typed += talk_and_break(people, choose, rounds=2)
        for person in people:
            typed.append(f"{person.chat.me}, kill {number}")
            person.chat.typed(typed[-1])
        server.kill()
        server = start_server(*options, "--port", server.port)
    settle(people, "The end")
    all_read_the_same(people, typed + ["The end"])


def test_what_has_no_receipt_is_sent_again_with_its_ref_and_no_more(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in(session="secret")
    minou.until_state("online")
    for text in ("one", "two", "three"):
        minou.chat.typed(text)
    sent = [side.read() for _ in range(3)]
    side.send(chat(1, "two", "Minou", ref=sent[1]["ref"]))
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    side = odd.let_in(resumed=True, session="secret", last_id=3)
    minou.until_state("online")
    assert [side.read() for _ in range(2)] == [sent[0], sent[2]]
    # “one” had arrived all the same: its copy comes, then the answer to the repeat.
    first = chat(2, "one", "Minou", ref=sent[0]["ref"])
    side.send(first, chat(3, "Tigrou's"), first, chat(4, "three", "Minou",
                                                     ref=sent[2]["ref"]))
    minou.until_line("Tigrou's")
    arrive(minou)
    assert said(minou.chat.everyone) == ["two", "one", "Tigrou's", "three"]
    minou.chat.typed("four")
    assert side.read()["text"] == "four"
    assert not [line for line in minou.chat.everyone.lines if line.kind == "error"]


def test_a_line_of_ours_moves_behind_what_was_said_before_it(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    minou.chat.typed("mine")
    side.send(chat(1, "first"), chat(2, "second"))
    minou.until_line("second")
    assert said(minou.chat.everyone) == ["mine", "first", "second"]
    side.send(chat(3, "mine", "Minou", ref=side.read()["ref"]), chat(4, "last"))
    minou.until_line("last")
    assert said(minou.chat.everyone) == ["first", "second", "mine", "last"]


def test_where_it_broke_and_where_it_came_back_can_be_read(start_server, client, join):
    server = start_server()
    tigrou, minou = join("Tigrou", server), client(server)
    tigrou.say("before, to all")
    minou.chat.typed("/msg Tigrou before")
    arrive(minou)
    private, room = minou.chat.current, minou.chat.everyone
    break_off(minou)
    tigrou.expect("left", skip=["chat", "joined"], name="Minou", reason="lost")
    tigrou.say("meanwhile", to="Minou")
    tigrou.say("meanwhile, to all")
    back(minou)
    minou.until_line("meanwhile, to all")
    in_order(private, "before", "was lost", "Connected again[.]", "Tigrou: meanwhile")
    in_order(room, "before, to all", "was lost", "Connected again[.]", "meanwhile, to")
    assert len(notes(private)) == 2
    assert said(room) == ["before, to all", "meanwhile, to all"]


def test_the_hello_of_who_comes_back(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in(session="a secret", history="H", last_id=0)
    side.send(chat(1, "one"), chat(7, "seven"))
    minou.until_line("seven")
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    assert odd.accept().read() == {"type": "hello", "name": "Minou", "version": 1,
                                   "session": "a secret", "since": 7}


@pytest.mark.parametrize("last_id, came, since", [
    (1000, [], 950), (1000, [951, 952], 952), (20, [], 0), (20, [3], 3)])
def test_a_break_before_the_newest_lines_have_come(client, odd, last_id, came, since):
    """About these are asked for, and not for all there ever were."""
    minou = client(odd, wait=None)
    side = odd.let_in(last_id=last_id)
    side.send(*[chat(number, f"line {number}") for number in came])
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    assert odd.accept().read()["since"] == since


# ----------------------------------------------------- a server that knows us no more

@POSIX
def test_a_server_without_memory(start_server, client, join):
    server = start_server("--rate", 0)
    minou = client(server)
    for text in ("one", "two"):
        minou.chat.typed(text)
    arrive(minou)
    server.freeze()
    minou.chat.typed("Does this arrive?")
    lose(minou, server)
    minou.chat.typed("typed meanwhile")
    server = start_server("--rate", 0, "--port", server.port)
    tigrou = join("Tigrou", server)
    tigrou.say("Ids began anew")
    back(minou)
    minou.until_line("Ids began anew")
    tigrou.expect("joined", name="Minou")
    tigrou.expect("chat", text="typed meanwhile", from_="Minou")
    tigrou.silence()                    # so the other one was not sent behind our back
    arrive(minou)
    room = minou.chat.everyone
    assert said(room) == ["one", "two", "Does this arrive?", "Ids began anew",
                          "typed meanwhile"]
    assert states(room) == ["", "", "unknown", "", ""]
    for text in ("remembers nothing of you", "not known whether 1 of your lines"):
        assert len([note for note in notes(room) if text in note]) == 1
    minou.chat.typed("/again")
    tigrou.expect("chat", text="Does this arrive?", from_="Minou")
    arrive(minou)
    assert said(room)[-1] == "Does this arrive?" and set(states(room)) == {""}
    minou.chat.typed("/again")          # nothing is left of which it is not known
    minou.chat.typed("The end")
    tigrou.expect("chat", text="The end")


def test_again_also_sends_what_was_private(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in()
    minou.until_state("online")
    minou.chat.typed("/msg Tigrou psst")
    sent = side.read()
    side.close()
    minou.until_state("waiting")
    minou.chat.typed("/again")
    assert "not connected" in minou.lines[-1]
    minou.chat.retry_now()
    side = odd.let_in(history="another")
    minou.until_state("online")
    assert states(minou.chat.current) == ["unknown"]
    minou.chat.typed("/again")
    again = side.read()
    assert (again["text"], again["to"]) == ("psst", "Tigrou") == (sent["text"],
                                                                  sent["to"])


def test_without_memory_twice(start_server, client, join):
    """Each new server counts its ids from 1; all that is new is shown, and once."""
    minou, expected = None, []
    port = 0
    for number in range(3):
        server = start_server("--rate", 0, "--port", port)
        port = server.port
        if minou is None:
            minou = client(server)
        else:
            back(minou)
        tigrou = join("Tigrou", server)
        for line in range(3):
            expected.append(f"server {number}, line {line}")
            tigrou.say(expected[-1])
        minou.until_line(expected[-1])
        lose(minou, server)
    assert said(minou.chat.everyone) == expected


def test_a_gap_is_said(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in(last_id=5)
    side.send(chat(5, "five"))
    minou.until_line("five")
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    odd.let_in(resumed=True, gap=True, last_id=900).send(chat(900, "nine hundred"))
    minou.until_line("nine hundred")
    in_order(minou.chat.everyone, "five", "some of it is missing", "nine hundred")


def test_a_server_that_has_lost_its_newest_lines(client, odd):
    """A power cut can do that; then it gives their ids again."""
    minou = client(odd, wait=None)
    side = odd.let_in(last_id=5)
    side.send(*[chat(number, f"old {number}") for number in range(5, 11)])
    minou.until_line("old 10")
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    side = odd.let_in(resumed=True, last_id=7)
    side.send(*[chat(number, f"new {number}") for number in range(7, 10)])
    minou.until_line("new 9")
    assert said(minou.chat.everyone)[-3:] == ["old 10", "new 8", "new 9"]
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    assert odd.accept().read()["since"] == 9


# -------------------------------------------------------- what is typed while cut off

def test_what_is_typed_while_reconnecting_is_kept_and_sent(start_server, client, join):
    server = start_server()
    tigrou, minou = join("Tigrou", server), client(server)
    tigrou.expect("joined")
    break_off(minou)
    for text in ("one", "two", "/msg Tigrou for you alone", "/everyone", "three"):
        assert minou.chat.typed(text) is True
    room, private = minou.chat.everyone, minou.chat.conversations["tigrou"]
    assert states(room) == ["kept"] * 3 and states(private) == ["kept"]
    hint = "What you type now is sent when you are back."
    assert notes(private) == [hint] and notes(room).count(hint) == 1
    assert minou.chat.typed("x" * 4001) is False    # what is wrong is said at once
    back(minou)
    arrive(minou)
    assert set(states(room) + states(private)) == {""}
    for text, to in (("one", None), ("two", None), ("for you alone", "Tigrou"),
                     ("three", None)):
        assert tigrou.expect("chat", skip=COMINGS, text=text).get("to") == to
    assert said(room) == ["one", "two", "three"]
    tigrou.silence()


def test_what_is_typed_in_the_middle_of_coming_back(client, odd):
    """Connected, and no welcome yet."""
    minou = client(odd, wait=None)
    odd.let_in().close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    side = odd.accept()
    assert side.read()["type"] == "hello"
    minou.until_state("greeting")
    minou.chat.typed("too early")
    side.send({**WELCOME, "resumed": True})
    minou.until_state("online")
    minou.chat.typed("in time")
    assert [side.read()["text"] for _ in range(2)] == ["too early", "in time"]


@WAYS
def test_plain_lines_keep_what_is_typed_too(start_server, join, plain, terminal):
    server = start_server()
    minou = come_in(plain, server, terminal=terminal)
    server.kill()
    minou.wait_for("was lost")
    for text in ("one", "two"):
        minou.type_line(text)
    server = start_server("--port", server.port, "--recent", 0)
    tigrou = join("Tigrou", server)
    tigrou.expect("joined", name="Minou")
    for text in ("one", "two"):
        tigrou.expect("chat", text=text, from_="Minou")
    minou.wait_for("Minou: two$")
    assert minou.text.count("Minou: one") == minou.text.count("Minou: two") == 1


def test_a_pipe_that_ends_while_we_are_cut_off(start_server, join, plain):
    """It has been told nothing else than that its lines will be sent."""
    server = start_server()
    bot = come_in(plain, server, "Bot")
    server.kill()
    bot.wait_for("was lost")
    bot.type_line("The last line")
    bot.close_input()
    server = start_server("--port", server.port, "--recent", 0)
    tigrou = join("Tigrou", server)
    tigrou.expect("joined", name="Bot")
    tigrou.expect("chat", text="The last line", from_="Bot")
    assert bot.status() == 0


@POSIX
def test_plain_lines_say_what_is_not_known(start_server, join, plain):
    server = start_server()
    minou = come_in(plain, server)
    server.freeze()
    minou.type_line("Does this arrive?")
    minou.type_line("/help")            # answered here: so both have been read
    minou.wait_for("this list")
    server.kill()
    minou.wait_for("was lost")
    server = start_server("--port", server.port)
    minou.wait_for("[*] Not known whether it arrived: Does this arrive[?]$")
    minou.wait_for("whether 1 of your lines arrived")
    tigrou = join("Tigrou", server)
    minou.type_line("/again")
    tigrou.expect("chat", skip=COMINGS, text="Does this arrive?")
    minou.wait_for("Minou: Does this arrive[?]$")


# ----------------------------------------------------- logging out, and in by hand

def test_logging_out_on_purpose_does_not_reconnect(start_server, client, join):
    server = start_server()
    tigrou, minou = join("Tigrou", server), client(server)
    tigrou.expect("joined")
    minou.chat.typed("/disconnect")
    tigrou.expect("left", name="Minou", reason="bye")
    assert minou.chat.connection is None and minou.status == "offline"
    assert minou.chat.typed("Hello?") is False      # nobody will come back to send it
    tigrou.silence()


def test_logging_in_by_hand_brings_what_was_said_meanwhile(start_server, client, join):
    server = start_server("--recent", 0)
    tigrou, minou = join("Tigrou", server), client(server)
    tigrou.say("before")
    minou.until_line("before")
    minou.chat.typed("/disconnect")
    tigrou.expect("left", skip=["joined"])
    tigrou.say("meanwhile")
    minou.chat.typed("/connect")
    minou.until_line("meanwhile")
    assert said(minou.chat.everyone) == ["before", "meanwhile"]
    in_order(minou.chat.everyone, "before", "Connected again[.]", "meanwhile")


def test_logging_in_by_hand_asks_for_no_more_than_is_new(start_server, client, join):
    """Nothing was said in our presence; but all of yesterday's is not for us."""
    server = start_server("--recent", 0, "--rate", 0)
    tigrou = join("Tigrou", server)
    for number in range(200):
        tigrou.say(f"yesterday {number}")
    minou = client(server)
    minou.chat.typed("/disconnect")
    minou.chat.typed("/connect")
    minou.until_state("online")
    tigrou.say("today")
    minou.until_line("today")
    assert len(said(minou.chat.everyone)) <= 51


def test_somebody_else_gets_nothing_of_the_old_session(client, odd):
    minou = client(odd, wait=None)
    side = odd.let_in(session="Minou's secret", last_id=3)
    side.send(chat(4, "for Minou alone", to="Minou"))
    minou.until_line("for Minou alone")
    minou.chat.typed("mine, without a receipt")
    minou.connect(odd, "Garfield", wait=None)
    assert odd.accept().read() == {"type": "hello", "name": "Garfield", "version": 1}
    assert list(minou.chat.conversations) == [None]
    [line] = minou.chat.everyone.lines      # nothing is lost without a word
    assert line.text.startswith("1 of your lines as Minou") and line.kind == "error"
    assert minou.chat.unconfirmed == {}
    odd.accepted[-1].send({**WELCOME, "name": "Garfield"}, chat(5, "public"))
    minou.until_line("public")
    assert said(minou.chat.everyone) == ["public"]


def come_back_under_another_name(minou, odd):
    """The old name is taken by now; the session is not."""
    minou.chat.retry_now()
    side = odd.accept()
    assert side.read()["name"] == "Minou"
    side.send({"type": "error", "code": "name_taken", "text": "Taken."})
    minou.until_state("choose_name")
    minou.chat.connect(odd.host, odd.port, "Duchesse")
    return side, side.read()


def test_the_name_is_taken_on_the_return(client, odd):
    minou = client(odd, wait=None)
    odd.let_in(session="secret", last_id=3).send(chat(4, "before"))
    minou.until_line("before")
    odd.accepted[-1].close()
    minou.until_state("waiting")
    minou.chat.typed("kept")
    side, hello = come_back_under_another_name(minou, odd)
    assert hello == {"type": "hello", "name": "Duchesse", "version": 1,
                     "session": "secret", "since": 4}
    side.send({**WELCOME, "name": "Duchesse", "resumed": True, "last_id": 5},
              chat(5, "meanwhile"))
    minou.until_state("online")
    sent = side.read()
    assert sent["text"] == "kept"
    side.send(chat(6, "kept", "Duchesse", ref=sent["ref"]))
    minou.until_line("meanwhile")
    arrive(minou)
    assert minou.chat.me == "Duchesse"
    assert said(minou.chat.everyone) == ["before", "meanwhile", "kept"]


def test_a_receipt_that_bears_our_name_of_before(client, odd):
    """It arrived just before the break, so its author is who we were then."""
    minou = client(odd, wait=None)
    side = odd.let_in(session="secret")
    minou.until_state("online")
    minou.chat.typed("said as Minou")
    ref = side.read()["ref"]
    side.close()
    minou.until_state("waiting")
    side, _ = come_back_under_another_name(minou, odd)
    receipt = chat(1, "said as Minou", "Minou", ref=ref)
    side.send({**WELCOME, "name": "Duchesse", "resumed": True, "last_id": 1}, receipt)
    minou.until_state("online")
    assert side.read()["ref"] == ref
    side.send(receipt, chat(2, "end"))
    minou.until_line("end")
    assert minou.chat.unconfirmed == {}
    assert said(minou.chat.everyone) == ["said as Minou", "end"]


ODD_WELCOMES = [(field, value)
                for field in ("session", "resumed", "gap", "last_id", "history")
                for value in WRONG if type(value) is not type(WELCOME[field])]


@pytest.mark.parametrize("when", ["first", "return"])
def test_a_welcome_that_is_not_as_agreed(client, odd, when):
    """No crash, no chat, one sentence; and the next server is as good as ever."""
    minou = client()
    for field, value in ODD_WELCOMES:
        minou.connect(odd, wait=None)
        if when == "return":
            odd.let_in(history="H").close()
            minou.until_state("waiting")
            minou.chat.retry_now()
        side = odd.let_in(**{field: value})
        minou.until_state("offline")
        assert f"“{field}”" in minou.chat.status["text"]
        side.close()
    minou.connect(odd, wait=None)
    odd.let_in().send(chat(1, "Hello"))
    minou.until_line("Hello")
    assert set(REQUIRED["welcome"]) > {"session", "resumed", "gap", "last_id"}


@POSIX
@WAYS
def test_ctrl_c_frees_the_name_at_once(server, join, plain, terminal):
    minou = come_in(plain, server, "Duchesse", terminal=terminal)
    if terminal:
        minou.write(b"\x03")
    else:
        minou.process.send_signal(signal.SIGINT)
    assert minou.status() == 0
    join("Duchesse")                    # no name_taken: it said bye


def wait_in_vain_for_a_receipt(person, limit=5):
    """Let the seconds tick until it has been said that a receipt is overdue."""
    before, end = len(overdue(person)), time.monotonic() + limit
    while len(overdue(person)) == before:
        assert time.monotonic() < end, person.lines
        person.chat.tick()
        time.sleep(0.005)


def overdue(person):
    return [text for text in person.lines if text.startswith("No receipt for")]


def test_a_receipt_that_is_long_overdue_is_said_once(client, odd, monkeypatch):
    monkeypatch.setattr(ChattyCat_Client, "SLOW_SECONDS", 0.2)
    minou = client(odd, wait=None)
    side = odd.let_in()                 # it reads, and answers nothing
    minou.until_state("online")
    minou.chat.tick()
    for text in ("one", "two"):
        minou.chat.typed(text)
    refs = [side.read()["ref"] for _ in range(2)]
    minou.chat.tick()
    assert overdue(minou) == []         # it is too soon
    wait_in_vain_for_a_receipt(minou)
    for _ in range(5):
        minou.chat.tick()
    assert len(overdue(minou)) == 1 and minou.status == "online"
    side.send(*[chat(number, text, "Minou", ref=ref) for number, (text, ref) in
                enumerate(zip(("one", "two"), refs), 1)])
    arrive(minou)
    minou.chat.tick()
    minou.chat.typed("three")           # another trouble, another word
    wait_in_vain_for_a_receipt(minou)
    assert len(overdue(minou)) == 2
    minou.chat.typed("/connect")        # what the sentence says, and nothing is lost
    assert odd.accept().read()["session"] == WELCOME["session"]
    odd.accepted[-1].send({**WELCOME, "resumed": True})
    minou.until_state("online")
    assert odd.accepted[-1].read()["text"] == "three"


# --------------------------------------------------------------------- the chat log

def files(folder):
    """The names of the files in a folder, and what stands in them."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def logged(folder):
    """All that stands in the files, without the times."""
    text = "".join(files(folder).values())
    return re.sub(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", text)


ROOM = "# Everyone"


def file_of(stamp, conversation):
    return f"{local_time(stamp):%Y-%m-%d} {conversation} (Minou).txt"


def test_nothing_is_written_unless_somebody_asks(server, client, home, tmp_path):
    minou = client(server)
    minou.chat.typed("before")
    arrive(minou)
    folder = tmp_path / "chats"
    assert not folder.exists()
    minou.chat.typed("/log")
    assert str(folder) in minou.lines[-1]
    minou.chat.typed("while it is on")
    arrive(minou)
    minou.chat.typed("/log")
    assert "off" in minou.lines[-1]
    minou.chat.typed("after")
    arrive(minou)
    assert logged(folder) == "Minou: while it is on\n"


def test_a_file_for_each_conversation_and_day(client, odd, tmp_path):
    folder = tmp_path / "a" / "new folder"
    minou = client(odd, wait=None, words=["--log-chat", folder])
    side = odd.let_in()
    days = ["2026-11-20T12:00:00.000Z", "2026-11-23T12:00:00.000Z"]
    side.send(*[{**chat(at, f"on day {at}"), "time": day} for at, day in enumerate(
                days, 1)], {**chat(3, "psst", to="Minou"), "time": days[0]},
              {"type": "notice", "text": "The lesson begins.", "time": days[1]},
              {**chat(4, "one\ntwo: three\nfour"), "time": days[1]})
    minou.until_line("one\ntwo: three\nfour")
    first, second = (f"{local_time(day):%Y-%m-%d %H:%M:%S}  " for day in days)
    assert files(folder) == {
        file_of(days[0], ROOM): f"{first}Tigrou: on day 1\n",
        file_of(days[0], "Tigrou"): f"{first}Tigrou: psst\n",
        file_of(days[1], ROOM):
            f"{second}Tigrou: on day 2\n{second}[Server]: The lesson begins.\n"
            f"{second}Tigrou: one\n    two: three\n    four\n"}


def test_somebody_called_everyone(client, odd, tmp_path):
    """What is private does not stand among what is public."""
    minou = client(odd, wait=None, words=["--log-chat", tmp_path / "log"])
    odd.let_in().send(chat(1, "public"), chat(2, "psst", "Everyone", to="Minou"))
    minou.until_line("psst")
    found = {name: "psst" in text for name, text in files(tmp_path / "log").items()}
    assert sorted(found.values()) == [False, True], found


def test_our_own_lines_are_written_at_their_receipt(client, odd, tmp_path):
    minou = client(odd, wait=None, words=["--log-chat", tmp_path / "log"])
    side = odd.let_in()
    minou.until_state("online")
    minou.chat.typed("mine")
    minou.chat.typed("refused")
    refs = [side.read()["ref"] for _ in range(2)]
    side.send(chat(1, "theirs"))
    minou.until_line("theirs")
    assert logged(tmp_path / "log") == "Tigrou: theirs\n"
    side.send(chat(2, "mine", "Minou", ref=refs[0]), {
        "type": "error", "code": "muted", "text": "Hush.", "ref": refs[1]})
    arrive(minou)
    assert logged(tmp_path / "log") == "Tigrou: theirs\nMinou: mine\n"
    [name] = files(tmp_path / "log")
    assert name == file_of(TIME, ROOM)


def test_it_is_in_the_file_while_the_client_runs_and_stays(server, join, plain,
                                                            tmp_path):
    """Each line is there before the next one is shown; so a kill takes none away."""
    tigrou, folder = join("Tigrou"), tmp_path / "log"
    salem = plain(server, "--name", "Salem", "--log-chat", folder)
    salem.wait_for("You are in")
    for number in range(20):
        tigrou.say(f"line {number}")
    salem.wait_for("line 19$")
    expected = "".join(f"Tigrou: line {number}\n" for number in range(19))
    assert logged(folder).startswith(expected)
    salem.process.kill()
    salem.process.wait(8)
    assert logged(folder).startswith(expected)


def test_nothing_is_written_twice_and_nothing_left_out(start_server, client, join,
                                                       tmp_path):
    folder, history = tmp_path / "log", tmp_path / "history"
    options = "--rate", 0, "--history", history
    server = start_server(*options)
    tigrou = join("Tigrou", server)
    words = "--log-chat", folder
    minou = client(server, words=words)
    minou.chat.typed("one")
    arrive(minou)
    tigrou.say("two")
    minou.until_line("two")
    break_off(minou)
    minou.chat.typed("four")            # it stands here first, and there after “three”
    tigrou.say("three")
    back(minou)
    arrive(minou)
    lose(minou, server)
    server = start_server(*options, "--port", server.port)
    back(minou)
    minou.chat.typed("five")
    arrive(minou)
    chatted = [line for line in logged(folder).splitlines() if line[0] != "*"]
    assert chatted == ["Minou: one", "Tigrou: two", "Tigrou: three", "Minou: four",
                       "Minou: five"]
    troubles = [line for line in logged(folder).splitlines() if line[0] == "*"]
    assert len(troubles) == 4 and troubles[1] == troubles[3] == "* Connected again."
    minou.chat.hang_up()
    server.wait_for_line("Minou left")      # or the name would still be taken
    before = logged(folder)
    # The same person on another day: the newest 50 come again, and are no news.
    minou = client(server, words=words)
    minou.until_line("five")
    minou.chat.typed("six")
    arrive(minou)
    assert logged(folder) == before + "Minou: six\n"


def test_ids_that_are_given_again_are_written_too(client, odd, tmp_path):
    minou = client(odd, wait=None, words=["--log-chat", tmp_path / "log"])
    side = odd.let_in(last_id=10)
    side.send(*[chat(number, f"old {number}") for number in range(8, 11)])
    minou.until_line("old 10")
    side.close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    odd.let_in(resumed=True, last_id=7).send(chat(8, "new 8"), chat(9, "new 9"))
    minou.until_line("new 9")
    chatted = [line for line in logged(tmp_path / "log").splitlines() if line[0] != "*"]
    assert chatted == ["Tigrou: new 8", "Tigrou: new 9"]


def test_what_comes_from_a_new_history_is_written_too(client, odd, tmp_path):
    """It is new to us, though it was said before we came back."""
    minou = client(odd, wait=None, words=["--log-chat", tmp_path / "log"])
    odd.let_in(last_id=5).send(chat(5, "before we came"), chat(6, "six"))
    minou.until_line("six")
    odd.accepted[-1].close()
    minou.until_state("waiting")
    minou.chat.retry_now()
    odd.let_in(history="another", last_id=2).send(
        *[chat(number, f"new {number}") for number in (1, 2, 3)])
    minou.until_line("new 3")
    chatted = [line for line in logged(tmp_path / "log").splitlines() if line[0] != "*"]
    assert chatted == [f"Tigrou: {text}" for text in ("six", "new 1", "new 2", "new 3")]


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_log_that_cannot_be_written_does_not_cost_the_chat(server, client, tmp_path,
                                                             where):
    (tmp_path / "file").write_text("precious")
    minou = client(server, words=["--log-chat", tmp_path / where])
    for text in ("one", "two"):
        minou.chat.typed(text)
        arrive(minou)
    errors = [line.text for line in minou.chat.everyone.lines if line.kind == "error"]
    assert len(errors) == 1 and "cannot be written" in errors[0]
    assert errors[0].endswith(".") and "\n" not in errors[0]
    assert states(minou.chat.everyone) == ["", ""] and not minou.chat.log.on
    assert (tmp_path / "file").read_text() == "precious"


@POSIX
def test_nobody_else_may_read_the_chat_log(server, client, tmp_path):
    old = os.umask(0)
    try:
        minou = client(server, words=["--log-chat", tmp_path / "log"])
        minou.chat.typed("Hello")
        arrive(minou)
    finally:
        os.umask(old)
    [path] = (tmp_path / "log").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700


# ------------------------------------------------------------------ the program log

OOPS = """
import os, sys
sys.path.insert(0, os.path.dirname(sys.argv.pop(1)))
import ChattyCat_Client

class MyChat(ChattyCat_Client.Chat):
    def command_oops(self, rest):
        return {}["no such key"]

sys.exit(ChattyCat_Client.main(MyChat))
"""


def test_what_the_program_did_and_no_word_of_what_was_said(odd, plain, tmp_path):
    path = tmp_path / "log"
    minou = plain(odd, "--name", "Minou", "--log", path, python=("-c", OOPS))
    side = odd.let_in(session="SECRET-1")
    minou.type_line("a word of mine")
    ref = side.read()["ref"]
    side.send(chat(1, "a word of mine", "Minou", ref=ref), chat(2, "a word of yours"),
              {"type": "notice", "text": "a word of the operator", "time": TIME})
    side.send_raw(b"a word of nobody, and no JSON\n")
    minou.wait_for("a word of the operator")
    minou.type_line("/oops")
    minou.wait_for("/oops has a mistake in it")
    side.send({"type": "goodbye", "reason": "shutdown",
               "text": "Going\x1b[2J\n2026-11-21 12:00:00,000  down"})
    side.close()
    minou.wait_for("Going")
    side = odd.let_in(session="SECRET-1", resumed=True)
    minou.wait_for("Connected again")
    minou.type_line("/quit")
    assert minou.process.wait(8) == 0
    text = path.read_text(encoding="utf-8")
    for words in (r"^\S+ \S+  \w+  INFO  ChattyCat \d", "  receive  INFO  connecting: ",
                  "  receive  INFO  greeting: ", "  receive  INFO  waiting: .?Going",
                  "  MainThread  ERROR  ", "Traceback", "in command_oops",
                  "KeyError: 'no such key'"):
        assert re.search(words, text, re.MULTILINE), (words, text)
    for words in ("a word of", "SECRET", ref, "\x1b"):
        assert words not in text


def test_a_program_log_that_cannot_be_written_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "no such folder" / "log"):
        done = subprocess.run(
            [sys.executable, str(CLIENT), "--plain", "--name", "Minou", "--log",
             str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=20)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1 and str(path) in done.stderr
