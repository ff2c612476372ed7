"""What is typed while the connection is cut off, or just before: where it goes.

It goes to whom it was typed for, once; and what cannot go is said before it is lost.
"""
import os
import signal
import time

import pytest

from bad_network import BadNetwork
from people import COMINGS, Person
from screen import ClientWindow, wait_until
from test_connection import WELCOME, chat, client, home, odd
from test_plain_lines import POSIX, STAMP, WAYS, come_in, piped, plain
from test_reconnecting import (
    arrive, back, break_off, logged, lose, notes, said, states)
from test_window import Desk, from_outside, open_window, until_now

FIXTURES = (client, home, odd, plain, Desk, open_window)

# A client that comes back at once, or whose clock runs 50 times as fast: half a minute
# is 0.6 s then.
CHANGED = """
import os, sys, time
sys.path.insert(0, os.path.dirname(sys.argv.pop(1)))
import ChattyCat_Client
clock = time.monotonic
{}
sys.exit(ChattyCat_Client.main())
"""
HASTY = "-c", CHANGED.format("ChattyCat_Client.FIRST_PAUSE = 0.05")
QUICK_CLOCK = "-c", CHANGED.format("time.monotonic = lambda: 50 * clock()")


def has_read_all(person):
    """Wait until a client on a terminal has read what was typed so far."""
    person.type_line("/help")
    person.wait_for("this list")


def come_back(person, server):
    """Somebody whose server was killed comes to the next one."""
    again = Person(server)
    again.hello(person.name, session=person.welcome["session"], since=0)
    again.expect("welcome", name=person.name, resumed=True)
    return again


def hang_up_at_the_bye(side):
    """As a server does. Without it the client waits half a second for that."""
    while side.read()["type"] != "bye":
        pass
    side.close()


def read_up_to(person, last):
    """(text, to) of all that somebody gets to read, up to one last text."""
    found = []
    while not found or found[-1][0] != last:
        message = person.expect("chat", skip=COMINGS)
        found.append((message["text"], message.get("to")))
    return found


# ------------------------------------------------------------- for whom it was typed

FROM_PRIVATE = ["/msg Tigrou", "cut", "one, Tigrou", "/everyone", "two, all",
                "/msg Felix three, Felix", "four, Felix", "/everyone", "The end"]
FROM_THE_ROOM = ["cut", "one, all", "/msg Tigrou", "two, Tigrou", "/msg Felix",
                 "three, Felix", "/everyone", "The end"]


@WAYS
@pytest.mark.parametrize("typed", [FROM_PRIVATE, FROM_THE_ROOM],
                         ids=["private", "room"])
def test_it_goes_to_the_one_it_was_typed_for(start_server, plain, tmp_path, terminal,
                                             typed):
    options = "--rate", 0, "--history", tmp_path / "history"
    server = start_server(*options)
    with Person(server, "Tigrou") as tigrou, Person(server, "Felix") as felix:
        minou = come_in(plain, server, terminal=terminal, python=HASTY)
        if typed is FROM_PRIVATE:
            minou.type_line(typed[0])
            minou.wait_for("goes to Tigrou alone")
        server.kill()
        minou.wait_for("was lost")
        for line in typed[typed.index("cut") + 1:]:
            minou.type_line(line)
        if terminal:
            has_read_all(minou)
        server = start_server(*options, "--port", server.port)
        seen = set()
        for person in (tigrou, felix):
            with come_back(person, server) as again:
                found = read_up_to(again, "The end")
            assert len(found) == len(set(found))
            seen.update(found)
    for text, to in seen - {("The end", None)}:
        assert text.partition(", ")[2] == (to or "all")
    assert len(seen) == sum(", " in line for line in typed) + 1


@POSIX
def test_a_line_that_waits_is_not_taken_for_the_name(plain, odd):
    minou = plain(odd, "--name", "Minou", terminal=True, python=HASTY)
    odd.let_in(session="secret").close()
    minou.wait_for("was lost")
    minou.type_line("Hello")
    has_read_all(minou)
    side = odd.accept()
    assert side.read()["name"] == "Minou"
    side.send({"type": "error", "code": "name_taken", "text": "Taken."})
    minou.wait_for("Taken. Type your name")
    minou.type_line("Duchesse")
    hello = side.read()
    assert (hello["name"], hello["session"]) == ("Duchesse", "secret")
    side.send({**WELCOME, "name": "Duchesse", "resumed": True})
    sent = side.read()
    assert sent["text"] == "Hello"
    side.send(chat(1, "Hello", "Duchesse", ref=sent["ref"]))
    minou.wait_for(f"^{STAMP}Duchesse: Hello$")
    minou.type_line("The next one")
    assert side.read()["text"] == "The next one"


# ------------------------------------------------------------------- a pipe that breaks

def test_a_long_pipe_over_a_connection_that_breaks(start_server, plain):
    """More lines than the server remembers refs of; each of them comes once.

    The first reset comes after some 2,000 lines. Who had sent all of them by then, and
    had no receipt, would send more of them again than the server knows.
    """
    server = start_server("--rate", 0)
    lines = [f"line {number}" for number in range(2000)]
    with Person(server, "Minou") as minou, BadNetwork(
            (server.host, server.port), delay=60, reset_every=1700, seed=34) as network:
        data = "\n".join(lines) + "\n"
        status, bot = piped(plain, network, data, "--name", "Bot", python=HASTY)
        assert status == 0 and network.resets >= 2
        came = [message["text"] for message in until_now(minou)
                if message["type"] == "chat"]
    assert sorted(came) == sorted(lines)
    printed = [line for line in bot.printed if line.startswith("Bot: ")]
    assert sorted(printed) == sorted(f"Bot: {line}" for line in lines)


def test_no_more_than_500_lines_without_a_receipt(plain, odd):
    bot = plain(odd, "--name", "Bot")
    bot.write("".join(f"line {number}\n" for number in range(700)))
    side = odd.let_in()
    sent = [side.read() for _ in range(500)]
    # What is printed next was looked at after all these had been sent, and no more.
    side.send(chat(1, "That was all?"))
    bot.wait_for("That was all")
    side.send(*[chat(2 + at, message["text"], "Bot", ref=message["ref"])
                for at, message in enumerate(sent[:3])])
    assert [side.read()["text"] for _ in range(3)] == [
        f"line {number}" for number in range(500, 503)]
    side.send(chat(9, "And now?"))
    bot.wait_for("And now")
    side.sock.shutdown(1)               # the client ends, and all it sent comes first
    assert side.file.read() == b""


def test_a_pipe_waits_half_a_minute_for_the_return(plain, odd):
    bot = plain(odd, "--name", "Bot", python=QUICK_CLOCK)
    odd.let_in().close()
    bot.wait_for("was lost")
    odd.listener.close()
    bot.write("one\ntwo\n")
    begin = time.monotonic()
    bot.close_input()
    assert bot.status() == 1
    assert 0.5 < time.monotonic() - begin < 4
    assert bot.text.count("2 of your lines have not arrived") == 1


def test_each_receipt_gives_a_pipe_another_half_minute(plain, odd):
    """Its clock is quick: to it there are 11 s between two receipts."""
    bot = plain(odd, "--name", "Bot", python=QUICK_CLOCK)
    side = odd.let_in()
    bot.write("".join(f"line {number}\n" for number in range(4)))
    bot.close_input()
    for number, message in enumerate([side.read() for _ in range(4)], 1):
        time.sleep(0.22)                # it is the time itself that is in question
        side.send(chat(number, message["text"], "Bot", ref=message["ref"]))
    hang_up_at_the_bye(side)
    assert bot.status() == 0
    assert "not arrived" not in bot.text


@POSIX
@pytest.mark.parametrize("cut", [False, True], ids=["waiting", "kept"])
def test_quit_says_what_has_not_arrived(plain, odd, cut):
    minou = plain(odd, "--name", "Minou", terminal=True)
    side = odd.let_in()
    minou.wait_for("You are in")
    if cut:
        side.close()
        minou.wait_for("was lost")
    minou.type_line("one")
    minou.type_line("two")
    has_read_all(minou)
    minou.type_line("/quit")
    if not cut:
        hang_up_at_the_bye(side)
    assert minou.status() == 0
    assert minou.text.count("2 of your lines have not arrived") == 1


def test_quit_says_nothing_when_all_has_arrived(server, plain):
    minou = come_in(plain, server)
    minou.type_line("one")
    minou.wait_for("Minou: one$")
    minou.type_line("/quit")
    assert minou.status() == 0
    assert "not arrived" not in minou.text


# ------------------------------------------------------------------------- the window

def cut_off(open_window, start_server):
    """The window of somebody whose server was killed a moment ago."""
    server = start_server("--rate", 0)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    server.kill()
    desk.until(lambda: desk.chat.status["state"] == "waiting")
    return desk, server


def is_open(desk):
    return desk.window.root is not None


def close_button(desk):
    """Click on it: the window manager sends WM_DELETE_WINDOW."""
    desk.root.tk.call(desk.root.protocol("WM_DELETE_WINDOW"))


def test_the_window_closes_at_the_second_time(open_window, start_server):
    desk, _ = cut_off(open_window, start_server)
    desk.say("not sent yet")
    desk.say("nor this")
    close_button(desk)
    assert is_open(desk)
    desk.until(lambda: "Not sent yet: 2 of your lines" in desk.shown())
    close_button(desk)
    assert not is_open(desk)


def test_the_window_closes_at_once_where_nothing_is_lost(open_window, start_server):
    desk, _ = cut_off(open_window, start_server)
    close_button(desk)
    assert not is_open(desk)


def test_the_window_closes_at_once_when_all_has_arrived(open_window, start_server):
    desk, server = cut_off(open_window, start_server)
    desk.say("typed while cut off")
    start_server("--port", server.port)
    desk.chat.retry_now()
    desk.until(lambda: desk.chat.status["state"] == "online")
    desk.arrived("typed while cut off")
    desk.window.quit()
    assert not is_open(desk)


def test_a_window_that_logs_in_as_somebody_else(open_window, start_server):
    desk, server = cut_off(open_window, start_server)
    desk.say("Minou's")
    desk.say("/disconnect")
    desk.until(lambda: not desk.inside())
    desk.window.quit()                  # on the card the room's lines cannot be seen
    assert is_open(desk) and "1 of your lines" in desk.sentence()
    start_server("--port", server.port)
    desk.fill_in(name="Tigrou")
    desk.press(desk.card.name, "<Return>")
    desk.until(desk.inside)
    desk.until(lambda: "1 of your lines as Minou have not arrived" in desk.shown())
    assert desk.chat.me == "Tigrou" and desk.chat.unconfirmed == {}


@from_outside
def test_the_window_of_another_process(start_server):
    """With real keys; and a signal never asks."""
    server = start_server("--rate", 0)
    with ClientWindow("--port", server.port, "--name", "Minou") as minou, \
            ClientWindow("--port", server.port, "--name", "Tigrou") as tigrou:
        windows = minou, tigrou
        for window in windows:
            window.wait_for_title(f"ChattyCat — {window.command[-1]}")
        server.kill()
        for window in windows:
            window.wait_for_text("was lost")
            window.click(-200, -50)
            window.type("not sent yet\n")
            window.wait_for_text("sent when you are back")
        minou.key("ctrl+q")
        minou.wait_for_text("Not sent yet: 1 of your lines")
        minou.key("ctrl+q")
        tigrou.process.send_signal(signal.SIGTERM)
        for window in windows:
            wait_until(window.ended)
            assert window.process.returncode == 0


# ------------------------------------------------------- /again, and who is not back

def test_again_sends_what_was_refused(start_server, client, join):
    server = start_server("--rate", 0)
    minou, tigrou = client(server), join("Tigrou", server)
    tigrou.say("psst?", to="Minou")
    minou.until_line("psst?")
    lose(minou, server)
    server = start_server("--rate", 0, "--port", server.port)
    back(minou)                         # without memory, and before Tigrou
    minou.chat.typed("/msg Tigrou psst!")
    private = minou.chat.current
    minou.until(lambda: states(private)[-1] == "failed")
    tigrou = join("Tigrou", server)
    minou.chat.typed("/again")
    tigrou.expect("chat", text="psst!", to="Tigrou")
    arrive(minou)
    assert said(private) == ["psst?", "psst!"] and states(private) == ["", ""]
    minou.chat.typed("/again")
    assert minou.lines[-1] == "There is nothing to send again."
    tigrou.silence()


def test_plain_lines_say_which_line_was_refused(plain, odd):
    minou = plain(odd, "--name", "Minou")
    side = odd.let_in()
    minou.type_line("Hush")
    side.send({"type": "error", "code": "muted", "text": "You are muted.",
               "ref": side.read()["ref"]})
    minou.wait_for("[*] Not sent: Hush$")


def test_a_private_line_to_somebody_lost_a_moment_ago(start_server, client):
    server = start_server("--rate", 0)
    with Person(server, "Tigrou") as tigrou:
        minou = client(server)
        tigrou.reset()
        minou.until_line("Tigrou lost the connection")
        assert minou.chat.typed("/msg tigrou psst") is True
        arrive(minou)
        assert states(minou.chat.current) == [""]
    with come_back(tigrou, server) as tigrou:
        tigrou.expect("chat", text="psst", to="Tigrou", from_="Minou")


def test_a_private_line_to_somebody_who_is_not_back_yet(start_server, client, tmp_path):
    options = "--rate", 0, "--history", tmp_path / "history"
    server = start_server(*options)
    with Person(server, "Tigrou") as tigrou:
        minou = client(server)
        lose(minou, server)
    server = start_server(*options, "--port", server.port)
    back(minou)
    assert "tigrou" not in minou.chat.people
    assert minou.chat.typed("/msg Tigrou psst") is True
    arrive(minou)
    assert states(minou.chat.current) == [""]
    with come_back(tigrou, server) as tigrou:
        tigrou.expect("chat", text="psst", to="Tigrou", from_="Minou")


# ------------------------------------------------------------------------ the chat log

def test_a_line_without_a_receipt_stands_in_the_log(plain, odd, tmp_path):
    folder = tmp_path / "log"
    minou = plain(odd, "--name", "Minou", terminal=os.name != "nt")
    side = odd.let_in()
    minou.wait_for("You are in")
    minou.type_line(f"/log {folder}")
    minou.wait_for("is written into")
    for text in ("arrives", "does not"):
        minou.type_line(text)
    ref, _ = [side.read()["ref"] for _ in range(2)]
    side.send(chat(1, "arrives", "Minou", ref=ref), chat(2, "Hello"))
    minou.wait_for("Tigrou: Hello")
    assert logged(folder).startswith("Minou: arrives\n")
    minou.type_line("/quit")
    hang_up_at_the_bye(side)
    assert minou.status() == 0
    assert logged(folder) == ("Minou: arrives\nTigrou: Hello\n"
                              "Minou: does not  (no receipt)\n")


def test_the_log_is_switched_on_in_a_folder(server, client, tmp_path):
    minou = client(server)
    for folder, text in (("one", "into one"), ("two", "into two")):
        minou.chat.typed(f"/log {tmp_path / folder}")
        minou.chat.typed(text)
        arrive(minou)
    minou.chat.typed("/log")
    minou.chat.typed("into none")
    arrive(minou)
    for folder in ("one", "two"):
        assert logged(tmp_path / folder) == f"Minou: into {folder}\n"


# ------------------------------------------------------------- a new connection by hand

def test_connect_while_we_are_in(start_server, client, join):
    server = start_server("--rate", 0)
    tigrou, minou = join("Tigrou", server), client(server)
    session = minou.chat.session
    minou.chat.typed("before")
    minou.chat.typed("/connect")
    minou.chat.typed("in between")
    tigrou.send({"type": "chat", "text": "meanwhile"})
    minou.until_line("meanwhile")
    arrive(minou)
    minou.chat.typed("The end")
    read = [text for text, _ in read_up_to(tigrou, "The end")]
    assert sorted(read) == ["The end", "before", "in between", "meanwhile"]
    arrive(minou)
    assert said(minou.chat.everyone) == read
    assert minou.chat.session == session
    lines = notes(minou.chat.everyone)
    assert "Connected again." in lines and "logged out" not in " ".join(lines)
