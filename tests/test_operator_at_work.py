"""What the operator can do about guests: /ban, /mute, /stats, and look with --trace."""
import json
import os
import re
import sys
import types

import pytest

import ChattyCat_Server
from people import COMINGS, SERVER, ServerProcess


@pytest.fixture
def server(start_server):
    return start_server("--rate", "0", "--recent", "0", console=True)


def order(server, line, answer):
    """Type a line, and wait for what the server says to it."""
    server.type_line(line)
    return server.wait_for_line(answer)


def refused(person, code):
    answer = person.expect("error", code=code, skip=COMINGS)
    assert answer["text"].endswith(".")
    return answer


def thrown_out(person, reason):
    *_, goodbye = person.until_closed()
    assert (goodbye["type"], goodbye["reason"]) == ("goodbye", reason)


# ---- ban ----
def test_ban_by_name_and_by_address(server, join):
    minou, tom = join("Minou", server), join("Tom", server)
    minou.expect("joined", name="Tom")
    order(server, "/ban TOM", "“Tom” is banned.*everybody new from 127.0.0.1")
    thrown_out(tom, "banned")
    minou.expect("left", name="Tom", reason="kicked")
    for name in ("Tom", "tom", "Thomas"):       # all of them come from one address
        newcomer = join(to=server)
        newcomer.hello(name)
        thrown_out(newcomer, "banned")
    minou.say("I am still here")
    minou.silence()


def test_who_was_in_may_come_back_to_a_banned_address(server, join):
    minou, tom = join("Minou", server), join("Tom", server)
    order(server, "/ban Tom", "is banned")
    thrown_out(tom, "banned")
    minou.reset()
    server.wait_for_line("Minou left")
    for whose, answer in ((minou, "welcome"), (tom, "goodbye")):
        again = join(to=server)
        again.hello(whose.name, session=whose.welcome["session"])
        again.expect(answer)
        again.name = whose.name


def test_a_ban_after_a_kick_knows_the_address_and_can_be_taken_back(server, join):
    tom = join("Tom", server)
    order(server, "/kick Tom", "was kicked")
    thrown_out(tom, "kicked")
    order(server, "/ban tom", "everybody new from 127.0.0.1")
    thomas = join(to=server)
    thomas.hello("Thomas")
    assert "somebody at your address" in thomas.expect("goodbye")["text"]
    server.wait_for_line(r"is banned wants to come in \(127.0.0.1\); said at most")
    order(server, "/unban Luna", r"“Luna” is not banned. Banned: tom \(127.0.0.1\)$")
    order(server, "/ban Thomas", "has been here")
    order(server, "/unban TOM", "“TOM” may come in again[.]$")
    order(server, "/unban thomas", "“thomas” may come in again[.]$")
    order(server, "/unban", "Banned: nobody")
    join("Tom", server).say("I am good now")
    join("Thomas", server).say("So am I")


def test_an_address_stays_banned_with_somebody_else(server, join):
    tom, luna = join("Tom", server), join("Luna", server)
    order(server, "/ban TOM", "“Tom” is banned")
    order(server, "/ban luna", "“Luna” is banned")
    order(server, "/unban Tom", "But nobody new from 127.0.0.1: somebody else is")
    order(server, "/unban Luna", "may come in again[.]$")
    join("Salem", server).say("Hello")
    thrown_out(tom, "banned"), thrown_out(luna, "banned")


def test_ban_somebody_who_is_not_here_yet(server, join):
    order(server, "/ban ſtraße", "nobody of that name has been here")
    late = join(to=server)
    late.hello("STRASSE")
    thrown_out(late, "banned")
    join("Minou", server).say("The address is free")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no 127.0.0.2")
def test_another_address_is_not_banned(server, join):
    tom = join("Tom", server)
    order(server, "/ban Tom", "is banned")
    thrown_out(tom, "banned")
    join("Luna", server, from_ip="127.0.0.2").say("Hello")


# ---- mute ----
def test_mute_and_again(server, join):
    minou, tom = join("Minou", server), join("Tom", server)
    minou.expect("joined")
    receipt = tom.say("before", ref="r1")
    minou.expect("chat")
    order(server, "/mute tom", "“tom” can only read")
    order(server, "/who", r"Tom from [0-9.:]+, muted$")
    for fields in ({}, {"to": "Minou"}, {"to": "Tom"}):
        tom.send({"type": "chat", "text": "let me", "ref": "r2", **fields})
        assert refused(tom, "muted")["ref"] == "r2"
    # Not a new message: the receipt of an old one.
    tom.send({"type": "chat", "text": "before", "ref": "r1"})
    assert tom.expect("chat")["id"] == receipt["id"]
    assert tom.silence()["count"] == 2          # list is no chat
    minou.say("Tom can read this")
    tom.expect("chat", text="Tom can read this")
    order(server, "/mute Tom 0", "“Tom” can write again")
    order(server, "/who", r"Tom from [0-9.:]+$")
    tom.say("after", ref="r2")
    minou.expect("chat", text="after")


def test_mute_for_some_seconds(server, join):
    tom = join("Tom", server)
    order(server, "/mute Tom 1", "only read for 1 second[.]")
    tries = 0
    while True:
        tries += 1
        tom.send({"type": "chat", "text": "now?"})
        answer = tom.read()
        if answer["type"] == "chat":
            break
        assert answer["code"] == "muted" and "for 1 second;" in answer["text"]
    assert tries > 1


def test_mute_holds_on_a_new_connection(server, join):
    tom = join("Tom", server)
    order(server, "/mute Tom 600", "600 seconds")
    session = tom.welcome["session"]
    tom.reset()
    server.wait_for_line("Tom left")
    again = join(to=server)
    again.hello("Tom", session=session)
    again.expect("welcome", resumed=True)
    again.send({"type": "chat", "text": "it is me"})
    refused(again, "muted")
    again.leave()
    new = join("Tom", server)
    new.send({"type": "chat", "text": "somebody new?"})
    refused(new, "muted")
    new.leave()
    order(server, "/mute Tom 0", "“Tom” can write again")       # though he is away
    join("Tom", server).say("at last")


@pytest.mark.parametrize("line, answer", [
    ("/ban", "Say whom"), ("/mute", "Say whom: /mute NAME"),
    ("/unban", "Banned: nobody"), ("/mute Nobody", "Nobody called"),
    ("/mute Tom soon", "whole number"), ("/mute Tom -1", "whole number"),
    ("/mute Tom 1e9", "whole number")])
def test_what_is_wrong_is_a_sentence(server, join, line, answer):
    tom = join("Tom", server)
    order(server, line, answer)
    tom.say("I can write")
    assert not any("Traceback" in line for line in server.lines)


# ---- stats ----
def test_stats(server, join):
    people = [join(name, server) for name in ("Minou", "Tom")]
    stranger = join(to=server)
    stranger.send({"type": "list"})
    stranger.expect("error", code="hello_first")
    for number in range(30):
        people[0].say(f"{number}")
    server.type_line("/stats")
    here = server.wait_for_line(r"(\d+) people, (\d+) without a hello, (\d+) threads")
    # Main, postman, printer, console, and one for each connection.
    assert here.groups() == ("2", "1", "7")
    into = server.wait_for_line(r"in: ([\d.,]+) messages a second, 30 in all")
    assert into[1] != "0.0"
    out = server.wait_for_line(r"out: ([\d,]+) bytes a second, ([\d,]+) in all")
    assert all(int(number.replace(",", "")) > 0 for number in out.groups())
    server.wait_for_line("Nothing waits")


def test_stats_tells_what_waits_for_whom(server, join):
    minou = join("Minou", server)
    sleeper = join("Sleeper", server, receive_buffer=4096)
    minou.expect("joined")
    waits = None
    while not waits:            # until the kernel's buffers are full
        for _ in range(50):
            minou.say("x" * 3000)
        answer = order(server, "/stats", "Nothing waits|Sleeper: [0-9,]+ bytes")
        waits = answer[0] != "Nothing waits"
        del server.lines[:]
    sleeper.close()


# ---- trace ----
def traced(server):
    return [line for line in server.lines if re.search(r"\] (from|to) ", line)]


def test_trace_shows_lines_with_time_thread_and_person(start_server, join):
    server = start_server("--trace", "--recent", "0")
    server.wait_for_line("--trace .*private")
    minou, tom = join("Minou", server), join("Tom", server)
    minou.say("only for you 🐈", to="Tom")
    tom.expect("chat")
    tom.leave()
    server.wait_for_line(r"to Tom: .*goodbye")
    server.wait_for_line(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  \[reader of Minou\] "
                         r'from Minou: .*"text":"only for you 🐈"')
    for name in ("Minou", "Tom"):
        server.wait_for_line(rf'\[postman\] to {name}: {{"type":"chat","id":1,.*🐈')
    server.wait_for_line(r"\[reader of 127.0.0.1:\d+\] from 127.0.0.1:\d+: .*hello")


def test_trace_shows_no_password_and_no_session(start_server, join):
    server = start_server("--trace", "--recent", "0")
    minou = join("Minou", server)
    session = minou.welcome["session"]
    minou.reset()
    server.wait_for_line("Minou left")
    again = join(to=server)
    again.hello("Minou", session=session, password="Swordfish")
    again.expect("welcome", resumed=True)
    for raw in (rb'{"type":"x","pass\u0077ord":"Swordfish"}',
                b'{"type":"x","a":[{"PASSWORD":["Swordfish"]}]}',
                b'{"type":"hello","password":"Swordfish"',
                b'{"type":"hello","session":"' + session.encode(),
                rb'{"pass\u0077ord":"Swordfish"',
                b'{"a":' * 5000 + b'"password":"Swordfish"'):
        again.send_raw(raw + b"\n")
        again.expect("error")
    again.send_raw(f"{session}\n".encode())
    again.expect("error")
    again.say(f"my session is {session}!")          # one's own fault, but still
    with join(to=server) as halves:                 # a hello that became two lines
        halves.send_raw(b'{"type":"hello","name":"T","version":1,"password":\n')
        halves.send_raw(b'"Swordfish"}\n')
        halves.send_raw('{"password":"Swordfish"}'.encode("utf-16-le") + b"\n")
        for _ in range(3):
            halves.expect("error")
    again.send_raw('{"password":"Swordfish"}'.encode("utf-16-le") + b"\n")
    again.expect("error")
    again.send_raw(b"{what is wrong here?\n")
    server.wait_for_line("what is wrong here?")
    printed = "\n".join(server.lines)
    assert "Swordfish" not in printed and session not in printed
    assert "Swordfish" not in printed.replace("\\x00", "")
    assert session.partition(".")[2] not in printed
    assert len(traced(server)) > 15
    assert '"session":"•••"' in printed and '"password":"•••"' in printed


def test_what_others_send_cannot_steer_the_operators_terminal(start_server, join):
    server = start_server("--trace", "--recent", "0")
    minou = join("Minou", server)
    minou.send_raw(b"\x1b[2J\xc2\x9b31m\xe2\x80\xae no message\n")
    minou.expect("error")
    minou.say("a \u202e b \u2028 2026-11-21 faked")       # bidi, and a line's end
    minou.leave()
    server.wait_for_line("Minou left")
    printed = "\n".join(server.lines)
    assert r"\x1b[2J\x9b31m\u202e no message" in printed
    assert not set(printed) & set("\x1b\x9b\u202e\u2028")


def test_a_long_line_is_cut(start_server, join):
    server = start_server("--trace", "--recent", "0")
    minou = join("Minou", server)
    minou.say("x" * 3000)
    server.wait_for_line(r"from Minou: .{1000}…$")


def test_without_trace_no_word_of_the_chat_is_printed(start_server, join):
    server = start_server("--recent", "0")
    minou = join("Minou", server)
    minou.say("A secret", to="Minou")
    minou.leave()
    server.wait_for_line("Minou left")
    assert traced(server) == [] and "secret" not in "\n".join(server.lines)


# ---- the line that is put together by hand ----
@pytest.mark.parametrize("text", [
    "plain", 'quotes " and \\ and /', "new\nline\tand tab",
    "é 小猫 😀 \u2028 \x7f \u202e"])
@pytest.mark.parametrize("ref", [{}, {"ref": 'r"1\\ 😀'}, {"ref": ""}])
def test_the_hot_line_is_what_json_would_make_of_it(text, ref):
    message = {"type": "chat", "id": 12, "from": "Félix-小猫", "color": 3, "text": text,
               "time": "2026-11-20T17:01:02.345Z", **ref}
    felix = types.SimpleNamespace(name="Félix-小猫", color=3)
    line = ChattyCat_Server.chat_line(12, felix, text, message["time"], **ref)
    assert line == ChattyCat_Server.encode(message)
    assert json.loads(line) == message


# ---- the terminal and the log ----
MY_SERVER = '''
import sys
sys.path.insert(0, {folder!r})
from ChattyCat_Server import ChatServer, main

class MyServer(ChatServer):
    def on_paint(self, person, message):
        raise ValueError("no such colour: " + message["colour"])

    def console_leave(self, _):
        sys.exit(3)

if __name__ == "__main__":
    sys.exit(main(MyServer))
'''


def test_mistakes_of_coursework_harm_neither_terminal_nor_console(tmp_path, join):
    script = tmp_path / "my_server.py"
    script.write_text(MY_SERVER.format(folder=str(SERVER.parent)), encoding="utf-8")
    server = ServerProcess("--rate", "0", console=True)
    server.command[1] = str(script)
    with server:
        minou = join("Minou", server)
        minou.send({"type": "paint", "colour": "\x1b[31mred"})
        refused(minou, "bad_message")
        server.wait_for_line(r"no such colour: \\x1b\[31mred")
        order(server, "/leave", "SystemExit: 3")
        order(server, "/who", "1 here")
        minou.leave()
        assert "\x1b" not in "\n".join(server.lines)


@pytest.mark.skipif(os.name == "nt", reason="on Windows the folder says who may read")
def test_a_log_is_its_owners_alone(start_server, join, tmp_path):
    log = tmp_path / "server.log"
    old_mask = os.umask(0)
    try:
        server = start_server("--trace", "--rate", "0", "--log", log)
    finally:
        os.umask(old_mask)
    minou = join("Minou", server)
    while not (tmp_path / "server.log.1").exists():     # at 1 MiB
        for _ in range(50):
            minou.say("x" * 3000)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_terminal_that_is_held_up_says_what_it_leaves_out():
    lines = ChattyCat_Server.TERMINAL
    while not lines.empty():        # what other tests have left
        lines.get()
    try:
        for number in range(ChattyCat_Server.LINES_TO_PRINT + 5):
            ChattyCat_Server.say(f"line {number}")
        printed = [lines.get() for _ in range(lines.qsize())]
    finally:
        while not lines.empty():
            lines.get()
    assert len(printed) == ChattyCat_Server.LINES_TO_PRINT + 1
    assert "left out" in printed[-1]
