"""The window under hands that know other chats: keys, links, marks, and its look.

Somebody sits before the window (Desk, of test_window.py) and expects what HexChat,
Element and the others have taught them.
"""
import ctypes
import json
import os
import re
import struct

import pytest

import ChattyCat_Client as client
from parcels import send_file
from screen import xdotool
from test_window import (click, drawn, from_outside, let_talk, many, minou,
                         open_window, posix, until_now)
from test_window_files import Seen, home, red

FIXTURES = (home, minou, open_window)


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """What opens links here: a program that writes down what it is told."""
    if os.name == "nt":
        pytest.skip("there it is a program of Windows")
    told = tmp_path / "told"
    for name in ("xdg-open", "open"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$#" "$@" >> "{told}"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return lambda: told.read_text().splitlines() if told.exists() else []


def look_away(desk):
    """The user goes to another program, and sees no toasts there: see
    test_window_toasts.py."""
    desk.window.choices.toasts = False
    desk.root.withdraw()
    desk.until(lambda: not desk.chat.looking)


def look_back(desk):
    client.back(desk.root)
    desk.until(lambda: desk.chat.looking)
    desk.types_into(desk.box)           # who is back can type on


def choose(desk, entry):
    """Choose it in the menu; all widgets may be others then."""
    desk.window.header.menu.invoke(entry)
    desk.root.update()
    desk.card, desk.box = desk.window.login, desk.window.composer.text
    desk.people = desk.window.sidebar.canvas


def messages(desk):
    return desk.window.views[desk.chat.current]


def jump(desk):
    """The words on the button that leads to the newest line; "" if it is not there."""
    desk.root.update()
    button = messages(desk).jump
    return button.cget("text") if button.winfo_ismapped() else ""


def badge(desk, name):
    """The number in somebody's row, and the colour of its ground."""
    words, images = desk.row(name), desk.window.look.images
    colour_of = {str(image): key[0] for key, image in images.items()}
    spot = next(item for item in desk.people.find_all()
                if desk.people.type(item) == "text"
                and desk.people.itemcget(item, "text") == words[-1])
    below = [item for item in desk.people.find_overlapping(*desk.people.bbox(spot))
             if desk.people.type(item) == "image"]
    return words[-1], colour_of[desk.people.itemcget(below[-1], "image")]


def mouse(desk, text, *events):
    """Do something with the mouse in the middle of these words in the messages."""
    view = desk.view()
    view.see(spot := view.search(text, "1.0", exact=True))
    desk.root.update()
    x, y, wide, high = view.bbox(f"{spot} +{len(text) // 2}c")
    x, y = x + wide // 2, y + high // 2
    for event in events:
        view.event_generate(event, x=x, y=y, rootx=view.winfo_rootx() + x,
                            rooty=view.winfo_rooty() + y)
        desk.root.update()


PRESS = "<Enter>", "<Motion>", "<Button-1>", "<ButtonRelease-1>"


# --- what was sent before: Up and Down

def test_up_and_down_bring_back_what_was_sent(minou, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    for text in ("one", "two", "two", "three"):
        minou.say(text)
    minou.type("a draft")
    seen = []
    for key in ("Up", "Up", "Up", "Up", "Down", "Down", "Down", "Down"):
        minou.press(minou.box, f"<{key}>")
        seen.append(minou.draft())
    assert seen == ["three", "two", "one", "one", "two", "three", "a draft", "a draft"]
    minou.press(minou.box, "<Up>", "<Return>")
    minou.until(lambda: minou.shown().count("three\n") == 2)
    minou.press(minou.box, "<Up>", "<Down>")
    minou.say("four")
    minou.press(minou.box, "<Up>")
    assert minou.draft() == "four"
    minou.box.delete("1.0", "end")
    # What was said to one alone must never be two keys away from being said to all.
    minou.click_on("Tigrou")
    minou.press(minou.box, "<Up>")
    assert minou.draft() == ""
    minou.say("secret")
    minou.press(minou.box, "<Up>")
    assert minou.draft() == "secret"
    minou.click_on(None)
    minou.press(minou.box, "<Down>", *["<Up>"] * 9)
    assert minou.draft() == "one"
    assert "secret" not in str([message for message in until_now(tigrou)
                                if not message.get("to")])
    # A draft outlives the history of another conversation.
    minou.press(minou.box, *["<Down>"] * 9)
    minou.type("dear to me")
    minou.press(minou.box, "<Up>")
    minou.click_on("Tigrou")
    minou.press(minou.box, "<Up>")
    minou.click_on(None)
    minou.press(minou.box, *["<Down>"] * 9)
    assert minou.draft() == "dear to me"


def test_keys_in_the_box(minou, join):
    minou.say("sent")
    # In a longer text Up and Down move the cursor, and in its first row …
    minou.type("first\nlast")
    minou.press(minou.box, "<Up>")
    assert minou.draft() == "first\nlast" and minou.box.index("insert")[0] == "1"
    minou.press(minou.box, "<Up>")
    assert minou.draft() == "sent"
    minou.press(minou.box, "<Down>")
    assert minou.draft() == "first\nlast"
    minou.box.delete("1.0", "end")
    minou.type("wrapped " * 60)
    minou.press(minou.box, "<Up>")
    assert minou.draft().startswith("wrapped"), "one line, but of several rows"
    minou.press(minou.box, *["<Up>"] * 9)
    assert minou.draft() == "sent"
    # With Shift these keys select, and nothing may take the text away.
    minou.box.delete("1.0", "end")
    minou.type("select me")
    minou.press(minou.box, "<Shift-Up>")
    assert minou.draft() == "select me"
    # End goes to the end of the line, and not into the emoji there.
    minou.box.delete("1.0", "end")
    minou.type("w " * 200 + "😀")
    minou.box.mark_set("insert", "1.0")
    minou.press(minou.box, "<End>")
    minou.type("!")
    assert minou.draft().endswith("😀!")
    # Every Enter sends.
    tigrou = join("Tigrou")
    minou.box.delete("1.0", "end")
    minou.type("by the number block")
    minou.press(minou.box, "<KP_Enter>")
    minou.type("by the button")
    minou.press(minou.buttons()["Send"], "<Return>")
    minou.arrived("by the button")
    texts = [message["text"] for message in until_now(tigrou)]
    assert texts == ["by the number block", "by the button"]


# --- Tab

COMPLETED = [
    ("Ti", "Tab", "Tigrou, "), ("hello ti", "Tab", "hello Tigrou "),
    ("@fé", "Tab", "@Félix, "), ("one\nFÉ", "Tab", "one\nFélix "),
    ("T", "Tab Tab", "Tom, "), ("T", "Tab Tab Tab", "Tigrou, "),
    ("T", "<PrevWindow>", "Tom, "), ("T", "Tab <PrevWindow>", "Tom, "),
    ("小", "Tab", "小猫, "), ("hello @小", "Tab", "hello @小猫 "),
    ("/ms", "Tab", "/msg "), ("/DISC", "Tab", "/disconnect "),
    ("/msg fé", "Tab", "/msg Félix "), ("/l", "Tab Tab", "/log "),
    # Nothing begins so; and nobody speaks to themselves.
    ("so /ms", "Tab", "so /ms"), ("Xaver", "Tab", "Xaver"), (".*", "Tab", ".*"),
    ("Min", "Tab", "Min"), ("/msg Tigrou Hello", "Tab", "/msg Tigrou Hello")]


def test_tab_completes_names_and_commands(minou, join):
    for name in ("Tom", "Tigrou", "Félix", "小猫"):
        join(name)
    minou.until(lambda: minou.chat.count == 5)
    got = []
    for text, keys, _ in COMPLETED:
        minou.box.delete("1.0", "end")
        minou.type(text)
        minou.press(minou.box, *(f"<{key}>" for key in keys.split()))
        got.append((text, keys, minou.draft()))
        assert minou.root.focus_get() is minou.box
    assert got == COMPLETED
    minou.box.delete("1.0", "end")
    minou.type("Ti, are you there?")
    minou.box.mark_set("insert", "1.2")
    minou.press(minou.box, "<Tab>")
    assert minou.draft() == "Tigrou, , are you there?"
    assert minou.box.index("insert") == "1.8"
    # Ctrl+Z takes just that back.
    minou.box.delete("1.0", "end")
    minou.box.edit_reset()
    minou.type("hello Ti")
    minou.press(minou.box, "<Tab>", "<Control-z>")
    assert minou.draft() == "hello Ti"
    # With nothing to complete, Tab goes on to the next widget.
    for text, leaves in (("", True), ("hello ", True), ("hello", False)):
        minou.box.delete("1.0", "end")
        minou.type(text)
        minou.press(minou.box, "<Tab>")
        there = minou.root.focus_get()
        assert minou.draft() == text and (there is not minou.box) == leaves
        assert not leaves or there.winfo_class() == "TButton"
        minou.press(minou.box, "<<PrevWindow>>")
        assert minou.root.focus_get() is not minou.box, "nobody is caught in here"


# --- from one conversation to another

def test_from_conversation_to_conversation_by_keys(minou, join):
    for name in ("Tigrou", "Félix"):
        join(name).say("Psst", to="Minou")
    join("Salem")                       # with whom nothing was said: not in between
    minou.until(lambda: len(minou.chat.conversations) == 3 and minou.chat.count == 4)

    def walk(widget, *keys):
        names = []
        for key in keys:
            minou.press(widget, f"<{key}>")
            names.append(minou.chat.current.name)
        minou.types_into(minou.box)     # wherever one was, one can type on
        return names

    # Not round and round: what is meant for one must not go to all by one press more.
    assert walk(minou.box, *["Alt-Down"] * 4) == ["Félix", "Tigrou", "Tigrou", "Tigrou"]
    assert walk(minou.box, *["Alt-Up"] * 3) == ["Félix", None, None]
    digits = [f"Alt-Key-{number}" for number in (3, 1, 2, 4, 9)]
    assert walk(minou.box, *digits) == ["Tigrou", None, "Félix", "Félix", "Félix"]
    assert minou.draft() == "" and minou.root.title() == "ChattyCat — Minou"
    # The same where the messages or the people have the keyboard.
    assert walk(minou.view(), "Alt-Down") == ["Tigrou"]
    assert walk(minou.view(), "Alt-Key-1") == [None]
    assert walk(minou.people, *["Alt-Down"] * 2) == ["Félix", "Tigrou"]
    assert set(minou.chat.conversations) == {None, "tigrou", "félix"}


def test_a_long_list_of_people_follows_the_keyboard(minou, join):
    for number in range(30):
        join(f"Cat{number:02}")
    minou.until(lambda: minou.chat.count == 31)

    def is_seen():
        minou.root.update()
        top = next(y for y, name in minou.window.sidebar.rows
                   if name == minou.chat.current.name)
        middle = top + minou.window.look.px(20)
        name_high = minou.window.look.px(24)
        return (minou.people.canvasy(0) <= middle - name_high / 2 and middle
                + name_high / 2 <= minou.people.canvasy(minou.people.winfo_height()))

    for keys in (["<Down>"] * 29, ["<Up>"] * 5, ["<Alt-Key-1>"], ["<Alt-Down>"] * 29):
        minou.press(minou.people, *keys)
        assert is_seen(), minou.chat.current.name
    assert minou.chat.current.name == "Cat27"


def test_keys_of_the_room_do_nothing_in_the_login_card(open_window, monkeypatch):
    desk = open_window()
    asked = []
    monkeypatch.setattr(client.filedialog, "askopenfilenames", asked.append)
    desk.press(desk.card.name, "<Control-o>", "<Alt-Down>", "<Alt-Up>", "<Alt-Key-1>",
               "<F12>", "<Escape>", "<Control-End>")
    assert not asked and not desk.inside() and desk.sentence() == ""
    desk.press(desk.card.name, "<F1>")
    desk.until(desk.window.page.window.winfo_ismapped)


# --- where one reads

def test_another_theme_keeps_the_place_though_the_top_is_forgotten(
        open_window, server, join, monkeypatch):
    monkeypatch.setattr(client, "KEPT_LINES", 60)
    desk, tigrou = open_window("--port", server.port, "--name", "Minou"), join("Tigrou")
    desk.until(desk.inside)
    for number in range(200):
        tigrou.say(f"line {number}\nhas two rows")
    desk.until(lambda: "line 199" in desk.shown())
    desk.window.views[desk.chat.current].scroll(-1)
    desk.root.update()

    def top():
        text = desk.window.views[desk.chat.current].text
        return text.get("@0,0 linestart", "@0,0 lineend +1l lineend")

    was = top()
    assert "line 199" not in was
    desk.window.choose_theme("dark")
    desk.until(lambda: top() == was)


def test_who_drags_beyond_the_edge_is_not_thrown_back(minou, join):
    """Tk scrolls then by itself, and without telling."""
    tigrou = join("Tigrou")
    for number in range(100):
        tigrou.say(f"line {number}")
    minou.until(lambda: "line 99" in minou.shown())
    text = minou.view()
    text.event_generate("<ButtonPress-1>", x=50, y=50)
    text.event_generate("<B1-Motion>", x=50, y=20, state=0x100)
    text.event_generate("<B1-Leave>", x=50, y=-20, state=0x100)
    minou.until(lambda: text.yview()[1] < 1.0)
    tigrou.say("meanwhile")
    minou.until(lambda: "meanwhile" in minou.shown())
    assert text.yview()[1] < 1.0
    text.event_generate("<ButtonRelease-1>", x=50, y=20, state=0x100)
    minou.until(lambda: not minou.window.views[minou.chat.current].stick)
    tigrou.say("and then")
    minou.until(lambda: "and then" in minou.shown())
    assert text.yview()[1] < 1.0


def test_two_fingers_that_move_to_the_side_scroll_nothing():
    """Tk 9's event for touchpads; delta is two numbers of 16 bits, across and down."""
    bound, scrolled = {}, []

    class Widget:
        def bind(self, name, function, add):
            bound[name] = function

    client.bind_wheel(Widget(), scrolled.append)
    for across, down in (5, 0), (-5, 0), (0, 0), (0, 7), (0, -7), (3, 7), (-3, -7):
        event = client.tk.Event()
        event.num, event.serial = "??", 0
        event.delta = across << 16 | down & 0xFFFF
        bound["<TouchpadScroll>"](event)
    assert scrolled == [-1, 1, -1, 1]


# --- what one has not seen yet

def new_lines(desk):
    """What stands right below each “New messages” in this conversation."""
    lines = desk.shown().split("\n")
    return [lines[at + 2] for at, line in enumerate(lines) if "New messages" in line]


def test_a_line_above_what_came_meanwhile(minou, join):
    tigrou, felix = join("Tigrou"), join("Félix")
    minou.until(lambda: minou.chat.count == 3)
    tigrou.say("seen")
    minou.until(lambda: "seen" in minou.shown())
    look_away(minou)
    for text in ("first", "second"):
        tigrou.say(text)
    minou.until(lambda: minou.root.title() == "(2) ChattyCat — Minou")
    assert new_lines(minou) == ["first"] and minou.row(None)[-1] == "2"
    look_back(minou)
    minou.until(lambda: minou.root.title() == "ChattyCat — Minou")
    assert minou.row(None)[-1] == "Everyone"
    tigrou.say("while we look")
    minou.until(lambda: "while we look" in minou.shown())
    assert new_lines(minou) == ["first"], "it stays while one reads"
    look_away(minou)
    felix.say("third")
    minou.until(lambda: "third" in minou.shown())
    assert new_lines(minou) == ["third"], "there is only one"
    look_back(minou)
    minou.click_on("Tigrou")
    minou.click_on(None)
    assert new_lines(minou) == [] and minou.shown().count("third") == 1
    minou.click_on("Tigrou")
    for text in ("elsewhere", "and on"):
        felix.say(text)
    minou.until(lambda: minou.root.title() == "(2) ChattyCat — Minou")
    minou.click_on(None)
    assert new_lines(minou) == ["elsewhere"]
    minou.say("mine")
    minou.arrived("mine")
    assert new_lines(minou) == ["elsewhere"]
    assert minou.view().tag_cget("new", "foreground") == minou.colour("new")
    # In a conversation that is shown for the first time, too.
    for text in ("Psst", "Are you there?"):
        felix.say(text, to="Minou")
    minou.until(lambda: minou.root.title() == "(2) ChattyCat — Minou")
    minou.click_on("Félix")
    assert new_lines(minou) == ["Psst"]


def test_a_button_leads_to_the_newest_line(minou, join):
    tigrou = join("Tigrou")
    for number in range(60):
        tigrou.say(f"Line {number}")
    minou.until(lambda: "Line 59" in minou.shown())
    assert jump(minou) == ""

    def scroll_up_and_hear(text):
        minou.press(minou.box, "<Prior>")
        tigrou.say(text)
        minou.until(lambda: text in minou.shown())

    scroll_up_and_hear("one")
    assert jump(minou) == "↓ 1 new message"
    scroll_up_and_hear("two")
    assert jump(minou) == "↓ 2 new messages"
    assert minou.cut_off() == []
    click(minou, messages(minou).jump)
    assert jump(minou) == "" and minou.view().yview()[1] == 1.0
    minou.types_into(minou.box)
    scroll_up_and_hear("three")
    minou.press(minou.box, "<Next>", "<Next>")
    assert jump(minou) == "", "it goes by itself where one scrolls down"
    scroll_up_and_hear("four")          # who speaks goes to the end, too
    minou.say("mine")
    minou.arrived("mine")
    assert jump(minou) == "" and minou.view().yview()[1] == 1.0
    minou.press(minou.box, "<Prior>")
    join("Félix")                       # who joins is not what one waits for
    minou.until(lambda: "Félix joined" in minou.shown())
    assert jump(minou) == ""
    # By keys: Ctrl+End from anywhere, or the button itself; and then one can type on.
    for widget, key in ((minou.box, "<Control-End>"), (minou.people, "<Control-End>"),
                        (messages(minou).jump, "<Return>"),
                        (messages(minou).jump, "<space>")):
        scroll_up_and_hear(f"five {widget} {key}")
        assert jump(minou)
        minou.press(widget, key)
        assert jump(minou) == "" and minou.view().yview()[1] == 1.0
        assert minou.keyboard_is_seen()


# --- who is meant

@pytest.mark.parametrize("text, named", [
    ("Minou", True), ("hello minou!", True), ("@Minou: yes", True), ("(MINOU)", True),
    ("a\nMinou\nb", True), ("Minou's", True), ("Minous", False), ("aMinou", False),
    ("Minou2", False), ("Min", False), ("小Minou", False)])
def test_who_is_named(text, named):
    book = client.Notebook(None, None)
    book.me = "Minou"
    assert book.names_me(text) == named


def test_to_be_named_outranks_chatter(minou, join):
    tigrou, felix = join("Tigrou"), join("Félix")
    minou.until(lambda: minou.chat.count == 3)
    minou.click_on("Félix")
    tigrou.say("blah")
    minou.until(lambda: minou.root.title().startswith("(1)"))
    assert badge(minou, None) == ("1", minou.colour("muted"))
    tigrou.say("Minou, are you there?")
    tigrou.say("Psst", to="Minou")
    minou.until(lambda: minou.root.title().startswith("(3)"))
    assert badge(minou, None) == ("@2", minou.colour("badge"))
    assert badge(minou, "Tigrou") == ("1", minou.colour("badge"))
    minou.click_on(None)
    assert "mention" in minou.tags_of("are you there?")
    assert "mention" not in minou.tags_of("blah")
    view = minou.view()
    for what in ("background", "lmargincolor", "rmargincolor"):
        assert view.tag_cget("mention", what) == minou.colour("mention")
    minou.say("I am Minou")
    minou.arrived("I am Minou")
    assert "mention" not in minou.tags_of("I am Minou")
    felix.say("Minou again, while she looks")
    minou.until(lambda: "while she looks" in minou.shown())
    assert "mention" in minou.tags_of("while she looks")
    assert minou.row(None)[-1] == "Everyone"


# --- links

LINKS = [("https://a.example", "https://a.example"),
         ("see http://a.example/b.", "http://a.example/b"),
         ("(https://a.example/b)", "https://a.example/b"),
         ("https://a.example/Cat_(animal), no", "https://a.example/Cat_(animal)"),
         ("[x](https://a.example/?q=1&r=%20#c)!", "https://a.example/?q=1&r=%20#c"),
         ("“https://a.example/”", "https://a.example/"),
         ("<https://a.example/>", "https://a.example/"),
         ("HTTPS://A.EXAMPLE/X", "HTTPS://A.EXAMPLE/X"),
         ("https://[::1]:8080/a", "https://[::1]:8080/a"),
         ("https://例え.jp/小猫?", "https://例え.jp/小猫"),
         *((text, "") for text in ("file:///etc/passwd", "javascript:alert(1)",
                                   "ftp://a.example", "www.a.example", "https://",
                                   "http:/a", "https:///x", "ssh://a@b", "data:x"))]


@pytest.mark.parametrize("text, link", LINKS)
def test_what_is_a_link(text, link):
    pieces = client.spans(text)
    assert "".join(piece for piece, _ in pieces) == text
    assert "".join(piece for piece, kind in pieces if kind == "link") == link


def test_links_by_mouse(minou, join, browser):
    tigrou, first = join("Tigrou"), "https://a.example/?a=1&b=%20;$(id)"
    tigrou.say(f"😀 Read {first}, and HTTP://B.EXAMPLE/x.")
    minou.until(lambda: "B.EXAMPLE" in minou.shown())
    assert "link" in minou.tags_of("HTTP://B") and "link" not in minou.tags_of(", and")
    mouse(minou, "a.example", *PRESS)
    minou.until(lambda: browser() == [f"1 {first}"])
    mouse(minou, "B.EXAMPLE", *PRESS)
    minou.until(lambda: browser()[1:] == ["1 HTTP://B.EXAMPLE/x"])
    mouse(minou, "Read", *PRESS)                    # no link: nothing
    # Who drags the mouse over a link wants to copy it, and not to go there.
    mouse(minou, "a.example", "<Motion>", "<Button-1>")
    mouse(minou, "b=%20", "<B1-Motion>", "<ButtonRelease-1>")
    assert minou.view().get("sel.first", "sel.last") in first
    menu = minou.window.look.popup

    def open_menu(where, event="<Button-3>"):
        mouse(minou, where, "<Motion>", event)
        minou.until(menu.winfo_ismapped)
        menu.event_generate("<Escape>")
        minou.until(lambda: not menu.winfo_ismapped())
        return [menu.entrycget(at, "label") for at in range(menu.index("end") + 1)]

    chosen = minou.view().get("sel.first", "sel.last")
    assert open_menu("Read") == ["Copy", "Select all"]
    menu.invoke("Copy")
    assert minou.root.clipboard_get() == chosen
    for event in ("<Button-3>", "<Shift-F10>"):
        assert open_menu("a.example", event) == ["Open link", "Copy link", "Copy",
                                                 "Select all"]
    menu.invoke("Copy link")
    assert minou.root.clipboard_get() == first
    menu.invoke("Open link")
    minou.until(lambda: browser()[2:] == [f"1 {first}"])
    menu.invoke("Select all")
    assert minou.view().get("sel.first", "sel.last").strip() == minou.shown().strip()


@from_outside
def test_a_menu_by_a_key_opens_where_one_looks(minou):
    xdotool("mousemove", 2, 2)
    minou.press(minou.view())
    xdotool("key", "shift+F10")
    menu, root = minou.window.look.popup, minou.root
    minou.until(menu.winfo_ismapped)
    x = menu.winfo_rootx() - root.winfo_rootx()
    y = menu.winfo_rooty() - root.winfo_rooty()
    xdotool("key", "Escape")
    minou.until(lambda: not menu.winfo_ismapped())
    assert 0 < x < root.winfo_width() and 0 < y < root.winfo_height()


def test_links_by_command(minou, join, browser, monkeypatch):
    tigrou = join("Tigrou")
    minou.say("/open")
    assert "There is no such link here." in minou.shown() and minou.draft() == "/open"
    minou.box.delete("1.0", "end")
    tigrou.say("https://a.example/1 and https://a.example/2")
    tigrou.say("https://a.example/3")
    minou.until(lambda: "example/3" in minou.shown())
    for number in ("", " 2", " 3", " 1"):
        minou.say(f"/open{number}")
    minou.until(lambda: len(browser()) == 4)
    assert [line[-1] for line in browser()] == ["3", "2", "1", "3"]
    for mistake in (" 4", " 0", " -1", " cat", " 99999"):
        minou.say(f"/open{mistake}")
        assert minou.draft() == f"/open{mistake}"
        minou.box.delete("1.0", "end")
    assert len(browser()) == 4
    monkeypatch.setenv("PATH", "")
    minou.say("/open")
    minou.until(lambda: "No program here opens links" in minou.shown())


# --- another theme, while it runs

def fill(minou, tigrou, felix):
    """Let there be something of everything: names, links, files, marks, drafts."""
    for number in range(40):
        felix.say(f"Line {number}")
    until_now(tigrou)
    tigrou.say("Minou, see https://a.example 😀")
    send_file(tigrou, red(20, 10), "photo.png")
    send_file(tigrou, b"Woof!", "essay.txt")
    until_now(felix)
    Seen(minou, "essay.txt")
    minou.until(lambda: Seen(minou, "photo.png").has_picture)
    minou.click_on("Tigrou")
    minou.type("for Tigrou")
    felix.say("Psst", to="Minou")
    felix.say("new to her")
    minou.until(lambda: minou.root.title().startswith("(2)"))
    minou.click_on(None)


def all_that_is_seen(desk):
    desk.root.update()
    rows = [desk.row(name) for name in (None, "Minou", "Tigrou", "Félix")]
    return (desk.root.title(), rows, drawn(desk.view()), new_lines(desk), desk.draft(),
            desk.view().yview()[1], len(messages(desk).cards))


@posix
def test_another_theme_loses_nothing(open_window, start_server, join, home):
    server = start_server("--rate", 0)
    tigrou, felix = join("Tigrou", server), join("Félix", server)
    minou = open_window("--theme", "light", "--port", server.port, "--name", "Minou")
    minou.until(lambda: minou.inside() and minou.chat.count == 3)
    fill(minou, tigrou, felix)
    server.freeze()
    minou.say("grey")
    minou.type("for all")
    before = all_that_is_seen(minou)
    assert before[3:] == (["new to her"], "for all", 1.0, 2)
    choose(minou, "Dark")
    assert minou.view().cget("bg") == minou.box.cget("bg") == minou.colour("surface")
    assert minou.colour("surface") == client.COLOURS["surface"][1]
    minou.until(lambda: len(messages(minou).cards) == 2)
    assert all_that_is_seen(minou) == before and "waiting" in minou.tags_of("grey")
    minou.types_into(minou.box)
    server.process.send_signal(client.signal.SIGCONT)
    minou.arrived("grey")
    minou.until(lambda: Seen(minou, "photo.png").has_picture)
    Seen(minou, "essay.txt").press("Save")
    minou.until(lambda: "saved as" in Seen(minou, "essay.txt").text)
    # While we are cut off, and in another conversation.
    minou.click_on("Tigrou")
    assert minou.draft() == "for Tigrou"
    server.stop()
    minou.until(minou.banner)
    minou.say(" kept")
    choose(minou, "Light")
    assert minou.banner() and "kept" in minou.tags_of("for Tigrou kept")
    assert minou.colour("surface") == client.COLOURS["surface"][0]
    assert minou.chat.current.name == "Tigrou"
    minou.window.quit()                 # it asks first, since that line would be lost


def test_another_theme_leaves_the_reader_where_he_is(minou, join):
    tigrou = join("Tigrou")
    for number in range(80):
        tigrou.say(f"Line {number}")
    minou.until(lambda: "Line 79" in minou.shown())
    minou.press(minou.box, "<Prior>", "<Prior>")
    tigrou.say("one more")
    minou.until(lambda: "one more" in minou.shown())

    def top():
        view = minou.view()
        return view.get("@0,0 linestart", "@0,0 lineend")

    was = top(), jump(minou)
    choose(minou, "Dark")
    assert (top(), jump(minou)) == was and was[1]
    tigrou.say("and one")
    minou.until(lambda: "and one" in minou.shown())
    assert (top(), jump(minou)) == (was[0], "↓ 2 new messages")
    # And of the old looks nothing is left: Python would throw their pictures away
    # later, in whatever thread, and that would wait for Tk.

    def left():
        return [len(minou.root.tk.splitlist(minou.root.tk.call(what, "names")))
                for what in ("image", "font")]

    before = left()
    choose(minou, "Light")
    choose(minou, "Dark")
    assert left() == before


def test_other_themes_while_messages_pour_in(open_window, start_server, join):
    server = start_server("--rate", 0)
    minou = open_window("--port", server.port, "--name", "Minou")
    minou.until(minou.inside)
    tigrou, count = join("Tigrou", server), 1_000
    let_talk(tigrou, many(count))
    for part in range(1, 4):
        minou.until(lambda: len(minou.chat.everyone.lines) > part * count // 4)
        choose(minou, ("Dark", "Light")[part % 2])
    minou.until(lambda: f"message {count - 1} of" in minou.view().get("end-3l", "end"))
    bodies = [line for line, tags in drawn(minou.view()) if "body" in tags]
    assert bodies == [f"This is message {number} of {count}" for number in range(count)]


# --- choices

def test_choices_are_kept_for_the_next_time(open_window, server, tmp_path):
    first = open_window("--port", server.port)
    first.card.remember.set(False)
    first.fill_in(name="Minou")
    first.press(first.card.name, "<Return>")
    first.until(first.inside)
    choose(first, "Light")
    choose(first, "Dark")
    for entry in ("Tell me what comes while I look elsewhere", "Ring the bell with it"):
        choose(first, entry)
    # The login card is another one now, and knows what stood in the first.
    first.say("/disconnect")
    first.until(lambda: not first.inside())
    assert first.card.name.get() == "Minou"
    assert first.card.port.get() == str(server.port)
    first.press(first.card.name, "<Return>")
    first.until(first.inside)
    first.close()
    assert not (tmp_path / "last_login.json").exists(), "nor was she to be remembered"
    kept = json.loads((tmp_path / "window.json").read_text())
    assert kept == {"theme": "dark", "toasts": False, "bell": True}
    second = open_window()
    assert second.colour("text") == client.COLOURS["text"][1]
    assert (second.window.choices.toasts, second.window.choices.bell) == (False, True)
    second.close()
    third = open_window("--theme", "light")     # said here and now: it counts
    assert third.colour("text") == client.COLOURS["text"][0]
    third.close()
    assert json.loads((tmp_path / "window.json").read_text()) == kept


@pytest.mark.parametrize("text", ['{"theme": "da', "[]", '{"theme": "pink", "toasts": '
                                  'true, "bell": true}', '{"theme": 5}', "\0\xff"])
def test_broken_choices_are_put_aside(tmp_path, monkeypatch, text):
    monkeypatch.setenv("CHATTYCAT_HOME", str(tmp_path))
    (tmp_path / "window.json").write_text(text)
    choices = client.Choices().load()
    assert (choices.theme, choices.toasts, choices.bell) == ("auto", True, False)
    assert "could not be read" in choices.trouble
    assert (tmp_path / "window.json.broken").read_text() == text


def test_trouble_with_the_choices_is_a_sentence(open_window, server, tmp_path):
    (tmp_path / "window.json").write_text("{")
    desk = open_window("--port", server.port)
    assert "window could not be read" in desk.sentence()
    desk.close()
    (tmp_path / "window.json").write_text("[]")
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(lambda: desk.inside() and "window could not be read" in desk.shown())
    (tmp_path / "window.json").mkdir()
    choose(desk, "Dark")
    desk.until(lambda: "could not be remembered" in desk.shown())
    assert desk.colour("text") == client.COLOURS["text"][1]


# --- pages

def test_the_help_has_every_key_and_command(minou, monkeypatch):
    def command_shout(self, rest):
        """/shout TEXT: say it in capitals"""

    monkeypatch.setattr(client.Chat, "command_shout", command_shout, raising=False)
    desk = minou
    desk.press(desk.box, "<F1>", "<F1>")
    pages = [widget for widget in desk.root.winfo_children()
             if widget.winfo_class() == "ChattyCat"]
    assert pages == [desk.window.page.window]
    text = desk.window.page.text.get("1.0", "end")
    for line in desk.chat.commands():
        word, _, does = line.partition(": ")
        assert f"\n{word}\t{does}\n" in text
    assert "\n/shout TEXT\tsay it in capitals\n" in text
    for shown, does, keys, _ in client.KEYS:
        assert f"\n{shown}\t{does}\n" in text
        assert all(desk.root.bind(f"<{key}>") for key in keys)
    bound = [key for key in desk.root.bind() if not re.search(r"Alt-Key-\d", key)]
    assert len(bound) == sum(len(keys) for _, _, keys, _ in client.KEYS)
    for key in ("PgUp", "Shift+Enter", "Tab", "Alt+9", "Shift+F10", "--plain"):
        assert key in text


def test_pages_close_and_one_can_type_on(minou, tmp_path):
    for keys in (["Escape"], ["Tab", "Return"], ["Tab", "space"], ["Tab", "Escape"]):
        minou.press(minou.box, "<F1>")
        page = minou.window.page
        minou.until(lambda: page.window.focus_lastfor() is page.text)
        for key in keys:
            minou.press(page.window.focus_lastfor(), f"<{key}>")
        assert not page.window.winfo_exists()
        minou.until(lambda: minou.root.focus_get() is minou.box)
    # The menu, too, opens by Enter and by the space bar.
    for key in ("<Return>", "<space>"):
        minou.press(minou.buttons()["Menu"], key)
        minou.until(minou.window.header.menu.winfo_ismapped, limit=3)
        minou.window.header.menu.event_generate("<Escape>")
        minou.until(lambda: not minou.window.header.menu.winfo_ismapped())
    choose(minou, "About ChattyCat")
    text = minou.window.page.text.get("1.0", "end")
    for word in (f"version {client.VERSION}", "Python 3", "Tk ", str(tmp_path), "MIT"):
        assert word in text
    # Closing with a page open: open_window looks whether it ends well.


def test_empty_rooms_say_so(minou, join):
    empty = messages(minou).empty
    minou.root.update()
    assert empty.winfo_ismapped() and "Nobody has said anything" in empty.cget("text")
    assert any("Nobody else is here yet." in minou.people.itemcget(item, "text")
               for item in minou.people.find_all() if minou.people.type(item) == "text")
    # With nothing said there, it is the first conversation all the same.
    for key in ("<Alt-Key-1>", "<Alt-Up>"):
        minou.click_on("Minou")
        minou.press(minou.box, key)
        assert minou.chat.current.name is None
    tigrou = join("Tigrou")
    minou.until(lambda: "Tigrou joined" in minou.shown())
    assert not empty.winfo_ismapped()
    minou.click_on("Tigrou")
    empty = messages(minou).empty
    minou.until(empty.winfo_ismapped)
    assert "between you and Tigrou" in empty.cget("text")
    tigrou.say("Psst", to="Minou")
    minou.until(lambda: not empty.winfo_ismapped())


# --- without a mouse

def picture(root):
    """All that is seen of a window, as bytes."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = x11.XGetImage.restype = ctypes.c_void_p
    screen = ctypes.c_void_p(x11.XOpenDisplay(None))
    wide, high = root.winfo_width(), root.winfo_height()
    # -1: all planes, that is, all bits of a pixel; 2: a pixel after the other.
    image = x11.XGetImage(screen, ctypes.c_ulong(root.winfo_id()), 0, 0, wide, high,
                          ctypes.c_ulong(2**64 - 1), 2)
    # Of its fields: width, height, offset, format, then the address of the pixels.
    fields = struct.unpack("iiiiP", ctypes.string_at(image, 24))
    pixels = ctypes.string_at(fields[4], wide * high * 4)
    x11.XDestroyImage(ctypes.c_void_p(image))
    x11.XCloseDisplay(screen)
    return pixels


def walk_by_tab(desk):
    """Go round by Tab; return {widget: whether one sees that it has the keyboard}.

    It must look different from the same window with the keyboard nowhere.
    """
    desk.root.focus_force()
    desk.root.update()
    nowhere, seen, widget = picture(desk.root), {}, desk.root
    while (widget := widget.tk_focusNext()) not in seen:
        widget.focus_force()
        desk.until(lambda: desk.root.focus_get() is widget)
        seen[widget] = picture(desk.root) != nowhere
    return seen


@from_outside
def test_one_sees_where_the_keyboard_is(open_window, server, join):
    desk = open_window("--theme", "light", "--port", server.port)
    card = desk.card
    seen = walk_by_tab(desk)
    assert set(seen) == {card.host, card.port, card.name, card.password,
                         card.tls.button, card.remember.button, card.button}
    assert all(seen.values()), seen
    desk.fill_in(name="Minou")
    desk.press(card.name, "<Return>")
    desk.until(desk.inside)
    send_file(join("Tigrou"), b"Woof!", "essay.txt")
    for theme in ("Light", "Dark"):
        choose(desk, theme)
        button = Seen(desk, "essay.txt").button("Save")
        seen = walk_by_tab(desk)
        assert all(seen.values()), seen
        assert {desk.box, desk.people, desk.view(), button} <= set(seen)
        assert set(desk.buttons().values()) <= set(seen)


def test_the_keyboard_is_never_lost_with_what_vanishes(open_window, start_server, join):
    server = start_server()
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    tigrou = join("Tigrou", server)
    send_file(tigrou, b"Woof!", "essay.txt")
    card = Seen(desk, "essay.txt")
    desk.press(card.button("Save"), "<Return>")
    desk.until(lambda: card.words == ["Open folder"])
    desk.until(desk.keyboard_is_seen)
    server.stop()
    desk.until(desk.banner)
    start_server("--port", server.port)
    desk.press(desk.window.header.retry, "<space>")
    desk.until(lambda: not desk.banner())
    desk.until(desk.keyboard_is_seen)
