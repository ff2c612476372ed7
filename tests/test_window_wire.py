"""The wire view: what F12 shows is what travelled, and never a secret.

Most tests are the server themselves (OddServer), so they know each byte that went over
the wire, and can send what no server of ours would.
"""
import json
import re

import pytest

import ChattyCat_Client as client
from screen import why_no_screen, xdotool
from test_connection import WELCOME, OddServer, chat
from test_window import (contrast, lateness, loud_room, minou, open_window, text_pairs)

FIXTURES = (loud_room, minou, open_window)
from_outside = pytest.mark.skipif(bool(why_no_screen()), reason=why_no_screen())
ROW = re.compile(r"\d\d:\d\d:\d\d\.\d{3} ([→←·]) (?: *([\d,]+) bytes  (\w+) +)?(.*)")
# As the server makes its sessions; and each five characters of it stand nowhere else.
SECRET = "1234.ABCDEFGHIJKLMNOPQRSTUVWXYZ-_abcdefghijklmno"


@pytest.fixture
def odd():
    server = OddServer().listen()
    yield server
    server.close()


@pytest.fixture
def opened(open_window, odd):
    """Minou's window with the wire open, and the server's side of her connection."""
    desk = open_window("--port", odd.port, "--name", "Minou")
    connection = odd.let_in()
    desk.until(desk.inside)
    desk.press(desk.box, "<F12>")
    return desk, connection


def text_of(desk):
    return desk.window.wire.text.get("1.0", "end-1c")


def rows(desk):
    """What the wire view shows: [(way, bytes, thread, text), …]; notes not."""
    found = [ROW.fullmatch(line).groups() for line in text_of(desk).splitlines()]
    return [(way, int(size.replace(",", "")), thread, text)
            for way, size, thread, text in found if way != "·"]


def until_row(desk, text):
    desk.until(lambda: desk.window.wire and any(text in row[3] for row in rows(desk)))


def kept(tap):
    """All that the tap keeps, as somebody would find it in memory."""
    return repr((list(tap.fresh), list(tap.lines)))


# --- what is shown

def test_what_is_shown_is_what_travelled(open_window, odd):
    desk = open_window("--port", odd.port, "--name", "Minou")
    connection = odd.accept()
    came, sent = [connection.file.readline()], [
        json.dumps({**WELCOME, "session": ""}).encode(),
        json.dumps(chat(1, "é 小猫 😀")).encode(),           # as \u00e9 and so on
        json.dumps(chat(2, "é 小猫 😀"), ensure_ascii=False).encode(),
        b'{ "type" :"people",   "people": [ ],\t"count": 1 }', b'{"type":"x"}']
    connection.send_raw(b"\n".join(sent[:1]) + b"\n")
    desk.until(desk.inside)
    desk.press(desk.box, "<F12>")
    until_row(desk, '"welcome"')
    for line in sent[1:]:
        connection.send_raw(line + b"\n")
    until_row(desk, '"x"')
    desk.say("One\ntwo 🐈")
    came.append(connection.file.readline())
    until_row(desk, "🐈")
    shown = rows(desk)
    assert [row[1:] for row in shown if row[0] == "→"] == [
        (len(line), "send", line.decode()[:-1]) for line in came]
    # (The session is a secret even where it is none.)
    sent[0] = client.encode({**json.loads(sent[0]), "session": "•••"})[:-1]
    assert [(row[2], row[3]) for row in shown if row[0] == "←"] == [
        ("receive", line.decode().replace("\t", "\\t")) for line in sent]
    assert [row[1] for row in shown if row[0] == "←"][1:] == [
        len(line) + 1 for line in sent[1:]]
    assert "Connected to 127.0.0.1" in text_of(desk)


def test_a_question_stands_above_its_answer(opened):
    desk, connection = opened
    for number in range(1, 9):
        desk.chat.typed("/list")
        assert connection.read() == {"type": "list"}
        connection.send({"type": "people", "people": [], "count": number})
        desk.until(lambda: desk.chat.count == number)
    until_row(desk, '"count": 8')
    ways = [row[0] for row in rows(desk)][2:]
    assert ways == ["→", "←"] * 8


def test_what_would_harm_a_screen_is_one_row(opened):
    desk, connection = opened
    bad = ["\x1b[2J", "\0", "\x85", "\u2028", "\u202e", "\u2066", "\r", "\x0b", "\x7f"]
    for character in bad:
        connection.send_raw(f'{{"type":"x{character}"}}\n'.encode())
    connection.send_raw(b'{"type":"\\ud83d"}\n{"type":"\xed\xa0\xbd\xff"}\n\xff\xfe\n')
    connection.send_raw(b"[" * 60_000 + b'\n{"type":"the end"}\n')
    until_row(desk, "the end")
    text = text_of(desk)
    assert not set("".join(bad)) & set(text) - set("[2J")
    assert all(line.isprintable() for line in text.split("\n"))
    for word in (r"\x1b[2J", r"x\x00", r"\u2028", r"\u202e", r'"\ud83d"',
                 r"\xed\xa0\xbd\xff", r"\xff\xfe"):
        assert word in text
    assert len(rows(desk)) == 2 + len(bad) + 5


def test_a_long_line_is_cut(opened):
    desk, connection = opened
    for text in ("x" * 60_000, "🐈" * 10_000):
        line = json.dumps({"type": "x", "text": text}, ensure_ascii=False).encode()
        connection.send_raw(line + b"\n")
        until_row(desk, f"{len(line) - 1000:,} more")
        way, size, _, shown = rows(desk)[-1]
        assert way == "←" and size == len(line) + 1
        start = line[:1000].decode(errors="backslashreplace")
        assert shown == f"{start} … {len(line) - 1000:,} more"
    assert len(kept(desk.chat.tap)) < 15_000


# --- secrets

@pytest.mark.parametrize("line", [
    f'{{"type":"welcome","session":"{SECRET}"}}',
    f'{{ "session"\t:  "{SECRET}" , "type":"welcome"}}',
    f'{{"type":"welcome","s\\u0065ssion":"{SECRET}"}}',
    f'{{"type":"welcome","session":"{SECRET.replace("A", chr(92) + "u0041")}"}}',
    f'{{"type":"welcome","session":"{SECRET}","session":"•••"}}',
    f'{{"type":"welcome","session":["{SECRET}",{{"a":"{SECRET}"}}]}}',
    f'{{"type":"x","a":[{{"b":{{"password":"{SECRET}"}}}}]}}',
    f'{{"type":"error","text":"I know no {SECRET}."}}',
    f'{{"type":"error","text":"I know no {SECRET.replace(".", chr(92) + "u002e")}."}}',
    f'{{"type":"welcome","session":"{SECRET}"', f'"password":"{SECRET}"}}',
    f'{{"type":"welcome","session":"{SECRET}"}} and more', SECRET,
    '{"a":' * 5000 + f'"session":"{SECRET}"',
], ids=range(14))
def test_no_secret_is_kept(line):
    tap = client.Tap()
    # Wherever the line is cut, no half of a secret may be in front of the cut.
    for room in (0, 850, 880, 900, 940, 960, 970, 980, 990, 995, 1000):
        start = '{"fill":"' + "-" * room + '",'
        tap.line("←", (start + line[1:] if line[0] == "{" else line).encode())
    tap.line("→", line.encode() + b"\n")
    found = kept(tap)
    for start in range(SECRET.index("."), len(SECRET) - 4):
        assert SECRET[start:start + 5] not in found


@pytest.mark.parametrize("line", [
    '{"type":"chat","text":"Pass me the \\u00e9, and the passwords of this session"}',
    '{ "type":"chat", "text":"\\"password\\":\\"x\\"" }', "who speaks so? \\ pas",
    '{"type":"chat","text":"https://example.org/a.html?v=1.2.3"}'])
def test_what_is_no_secret_stays_as_it_is(line):
    tap = client.Tap()
    tap.line("←", line.encode())
    [(_, _, size, _, text)] = tap.latest()
    assert text.decode() == line and size == len(line) + 1


@pytest.mark.parametrize("how", ["plain", "tls"])
def test_no_secret_is_seen(open_window, start_server, monkeypatch, request, how):
    monkeypatch.setenv("CHATTYCAT_PASSWORD", "Swordfish")
    tls = ["--tls", "--cert", request.getfixturevalue("certificate")]
    server = start_server(*tls * (how == "tls"))
    words = ["--fingerprint", server.fingerprint()] if how == "tls" else []
    desk = open_window("--port", server.port, "--name", "Minou", *words)
    desk.until(lambda: "wants a password" in desk.sentence())
    desk.fill_in(password="Swordfish")
    desk.press(desk.card.password, "<Return>")
    desk.until(desk.inside)
    desk.press(desk.box, "<F12>")
    desk.say("Hello")
    desk.arrived("Hello")
    until_row(desk, '"id":1')
    session = desk.chat.session
    client.cut(desk.chat.connection.sock)       # the line breaks; it comes back
    desk.until(lambda: "Connected again." in desk.shown())
    until_row(desk, '"resumed":true')
    desk.buttons()["Copy"].invoke()
    copied = desk.root.clipboard_get()
    assert copied == text_of(desk) and "was lost" in copied
    for seen in (copied, kept(desk.chat.tap)):
        assert "Swordfish" not in seen
        assert session not in seen and session.split(".")[1][:8] not in seen
    none, first, again = [row for row in rows(desk) if '"hello"' in row[3]]
    assert "•••" not in none[3] and '"code":"bad_password"' in copied
    assert '"password":"•••"' in first[3] and '"session":"•••"' in again[3]
    # What the dots stand for is counted.
    assert first[1] == len(first[3].replace("•••", "Swordfish")) + 1
    assert sum('"session":"•••"' in row[3] for row in rows(desk) if row[0] == "←") == 2


# --- how it behaves

def test_two_thousand_rows(opened):
    desk, connection = opened
    wire, tap = desk.window.wire, desk.chat.tap
    for first in (0, 1300, 5000):
        connection.send(*({"type": f"x{at}"} for at in range(first, first + 1300)))
        until_row(desk, f"x{first + 1299}\"")
    last = [row[3] for row in rows(desk)]
    assert last[-1300:] == [f'{{"type": "x{number}"}}' for number in range(5000, 6300)]
    assert len(last) == len(tap.lines) == 2000
    assert wire.text.yview()[1] == 1.0
    # Who has scrolled up stays there.
    wire.scroll(-1)
    wire.text.update()
    assert not wire.stick
    connection.send({"type": "y"})
    until_row(desk, '"y"')
    assert wire.text.yview()[1] < 1.0 and len(rows(desk)) == 2000
    # Closed, it goes on keeping them, and no more of them.
    desk.press(desk.box, "<F12>")
    assert desk.window.wire is None
    connection.send(*({"type": f"z{number}"} for number in range(2100)), chat(1, "End"))
    desk.until(lambda: "End" in desk.shown())
    assert len(tap.fresh) == 2000
    desk.press(desk.box, "<F12>")
    assert len(rows(desk)) == 2000 and "z101\"" in rows(desk)[0][3]


def test_pause_keeps_all_and_shows_it_later(opened):
    desk, connection = opened
    desk.buttons()["Pause"].invoke()
    before = text_of(desk)
    connection.send({"type": "x"}, chat(1, "While it was paused"))
    desk.until(lambda: "While it was paused" in desk.shown())
    assert text_of(desk) == before
    desk.buttons()["Go on"].invoke()
    until_row(desk, "While it was paused")
    assert text_of(desk).startswith(before) and len(rows(desk)) == 4
    assert "Pause" in desk.buttons()


def test_copy_and_clear(opened):
    desk, connection = opened
    text = desk.window.wire.text
    text.tag_add("sel", "2.0", "2.12")
    desk.buttons()["Copy"].invoke()
    assert desk.root.clipboard_get() == text.get("2.0", "2.12")
    desk.buttons()["Clear"].invoke()
    assert text_of(desk) == "" and "hello" not in kept(desk.chat.tap)
    connection.send({"type": "x"})
    until_row(desk, '"x"')
    assert len(rows(desk)) == 1


def test_another_theme_and_both_can_be_read(opened):
    desk, connection = opened
    for theme in ("light", "dark"):
        desk.window.choose_theme(theme)
        desk.root.update()
        desk.box = desk.window.composer.text
        wire = desk.window.wire
        assert wire.pane.winfo_ismapped() and len(rows(desk)) == 2
        assert min(contrast(*pair) for pair in text_pairs(wire.text)) >= 4.5
        connection.send({"type": f"x {theme}"})
        until_row(desk, theme)
        desk.buttons()["Clear"].invoke()
        connection.send({"type": "one"}, {"type": "two"})
        until_row(desk, "two")


def test_all_of_it_by_the_keyboard(opened):
    desk, _ = opened
    wire = desk.window.wire
    third = desk.window.main.winfo_height() / 3
    assert abs(wire.pane.winfo_height() - third) < 2
    assert desk.root.focus_lastfor() is desk.box, "one can type on"
    widget, seen = desk.box, []
    while widget is not wire.text and len(seen) < 20:
        widget = widget.tk_focusNext()
        seen.append(widget)
    assert seen[-5:] == [*wire.buttons, wire.text]
    for find in (lambda wire: wire.text, lambda wire: wire.buttons[0]):
        desk.press(find(desk.window.wire), "<Escape>")
        assert desk.window.wire is None and desk.root.focus_lastfor() is desk.box
        desk.press(desk.box, "<F12>")
    desk.press(desk.window.wire.buttons[-1], "<space>")
    assert desk.window.wire is None and desk.root.focus_lastfor() is desk.box


def test_not_under_the_login_card(open_window):
    desk = open_window()
    desk.press(desk.card.name, "<F12>")
    assert desk.window.wire is None
    desk.types_into(desk.card.name)


@from_outside
def test_by_the_real_key_in_a_small_window(minou):
    minou.root.geometry("560x400")
    minou.press(minou.people)
    xdotool("key", "F12")
    minou.until(lambda: minou.window.wire)
    minou.root.update()
    assert not minou.cut_off()
    until_row(minou, '"welcome"')
    wire = minou.window.wire
    assert wire.pane.winfo_ismapped() and minou.view().winfo_height() > 50
    for number in range(8):
        minou.say(f"This is line {number}, and it is wrapped when there is no room.")
    until_row(minou, "line 7")
    low = minou.window.look.px(300)
    for width, height in ((900, 700), (560, 400), (1000, 500)):
        minou.root.geometry(f"{width}x{height}")
        minou.until(lambda: wire.pane.winfo_height() == min(height // 3, height - low))
        minou.until(lambda: wire.text.yview()[1] == 1.0, limit=2)
    xdotool("key", "F12")
    minou.until(lambda: not minou.window.wire)
    minou.types_into(minou.box)


@pytest.mark.long
def test_a_thousand_messages_a_second_with_the_wire_open(loud_room):
    desk, people = loud_room
    desk.press(desk.box, "<F12>")
    tries = [lateness(desk, person, 3) for person in people[2:5]]
    print("\n1,000 messages a second, the wire open: a 10 ms timer is late by "
          + ", ".join(f"{late:.0f} ms" for late in tries) + " (p99)")
    assert min(tries) <= 50
    assert len(rows(desk)) > 1000
