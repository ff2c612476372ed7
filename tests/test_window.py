"""The client's window: with a user before it, and with other programs around it.

Half of the tests open the window in this process and press its keys and buttons. The
others start it as a user does, and drive it from outside (tests/screen.py).
"""
import contextlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time

import pytest

import ChattyCat_Client as client
from people import Person, ServerProcess
from screen import (ClientWindow, RemoteWindow, visible_windows, wait_until,
                    why_no_screen, xdotool)

# Every window of this process, for ever: one that Python throws away in another thread
# than the main one aborts the process (Tcl_AsyncDelete).
WINDOWS = []

posix = pytest.mark.skipif(os.name == "nt", reason="Windows cannot stop a process")
from_outside = pytest.mark.skipif(bool(why_no_screen()), reason=why_no_screen())


class Desk:
    """The client's window in this process, and the user who sits before it."""

    def __init__(self, *words):
        self.root, why = client.open_root()
        if self.root is None:
            pytest.skip(why)
        self.errors = []
        # What goes wrong in a callback, Tk would only print.
        self.root.report_callback_exception = lambda *what: self.errors.append(what)
        self.root.tk.createcommand("bgerror", self.errors.append)
        options = client.read_options([str(word) for word in words])
        self.window = client.Window(self.root, options)
        client.place(self.root, self.window.look.px, "")
        self.chat, self.card = self.window.chat, self.window.login
        self.box, self.people = self.window.composer.text, self.window.sidebar.canvas
        WINDOWS.append(self)

    def until(self, condition, limit=10):
        """Let the window live until the condition holds."""
        end = time.monotonic() + limit
        while not condition():
            assert not self.errors, self.errors
            if time.monotonic() > end:
                shown = self.shown() if self.chat.me else ""
                raise AssertionError(f"waited {limit} s in vain; {self.chat.status}; "
                                     f"card: {self.sentence()!r}; messages: {shown!r}")
            self.root.update()
            time.sleep(0.002)
        self.root.update()

    def close(self):
        if self.window.root is not None:
            self.root.update()
            self.window.close()         # quit() may ask for a second time first
        assert not self.errors, self.errors

    # --- what is on the screen

    def inside(self):
        """Whether the room is on the screen, and not the login card."""
        return bool(self.window.room.winfo_ismapped()
                    and not self.card.frame.winfo_ismapped())

    def view(self):
        return self.window.views[self.chat.current].text

    def shown(self):
        return self.view().get("1.0", "end-1c")

    def tags_of(self, text):
        """The tags of the newest line that reads so."""
        spot = self.view().search(text, "end", backwards=True, exact=True)
        assert spot, f"{text!r} is not in {self.shown()!r}"
        return set(self.view().tag_names(spot))

    def sentence(self):
        """What the login card says; "" if nothing."""
        label = self.card.sentence
        return label.cget("text") if label.winfo_manager() else ""

    def arrived(self, text):
        """Wait for the receipt of a line of ours."""
        self.until(lambda: not {"waiting", "kept"} & self.tags_of(text))

    def colour(self, role):
        return self.window.look[role]

    def banner(self):
        banner = self.window.header.banner
        return (self.window.header.sentence.cget("text") if banner.winfo_manager()
                else "")

    def row(self, name):
        """The words in somebody's row of the list of people, from left to right."""
        self.until(lambda: not self.window.changed)
        top = next(y for y, who in self.window.sidebar.rows if who == name)
        items = self.people.find_enclosed(0, top, 2000, top + self.window.look.px(40))
        texts = [item for item in items if self.people.type(item) == "text"]
        texts.sort(key=lambda item: self.people.bbox(item)[0])
        return [self.people.itemcget(item, "text") for item in texts]

    def types_into(self, widget):
        """Wait until the keyboard belongs to this widget."""
        self.until(lambda: self.root.focus_lastfor() is widget)

    def keyboard_is_seen(self):
        """Whether the keyboard belongs to something that one can see."""
        self.root.update()
        widget = self.root.focus_lastfor()
        return bool(widget is not self.root and widget.winfo_viewable())

    def buttons(self):
        """Every button that is on the screen, by its words."""
        self.root.update()
        found, todo = {}, [self.root]
        while todo:
            widget = todo.pop()
            todo += widget.winfo_children()
            kinds = client.ttk.Button, client.ttk.Menubutton
            if isinstance(widget, kinds) and widget.winfo_ismapped():
                found[widget.cget("text")] = widget
        return found

    def cut_off(self):
        """The words of the buttons that are on the screen, but not all of them."""
        buttons, root = self.buttons(), self.root
        right = root.winfo_rootx() + root.winfo_width()
        bottom = root.winfo_rooty() + root.winfo_height()
        assert buttons
        return [text for text, button in buttons.items()
                if button.winfo_width() < button.winfo_reqwidth()
                or button.winfo_height() < button.winfo_reqheight()
                or button.winfo_rootx() + button.winfo_width() > right
                or button.winfo_rooty() + button.winfo_height() > bottom]

    # --- what the user does

    def press(self, widget, *keys):
        """Press keys in a widget."""
        widget.focus_force()
        self.until(lambda: self.root.focus_get() is widget)
        for key in keys:
            widget.event_generate(key)
            self.root.update()

    def type(self, text):
        """Type into the composer, and no Enter."""
        self.box.insert("insert", text)
        self.root.update()

    def say(self, text):
        """Type and press Enter."""
        self.type(text)
        self.press(self.box, "<Return>")

    def draft(self):
        return self.box.get("1.0", "end-1c")

    def click_on(self, name):
        """Click on somebody in the list of people (None: Everyone)."""
        self.until(lambda: not self.window.changed)
        top = next(y for y, who in self.window.sidebar.rows if who == name)
        x, y = 80, top + 10
        for event in ("<Enter>", "<Motion>", "<Button-1>", "<ButtonRelease-1>"):
            self.people.event_generate(event, x=x, y=y)
        self.until(lambda: self.chat.current.name == name)

    def fill_in(self, **entries):
        """Type into the login card: fill_in(port="1", name="Minou")."""
        for name, text in entries.items():
            entry = getattr(self.card, name)
            entry.delete(0, "end")
            entry.insert(0, text)


@pytest.fixture
def open_window(tmp_path, monkeypatch):
    """A function that opens the window in this process. One at a time, please."""
    monkeypatch.setenv("CHATTYCAT_HOME", str(tmp_path))
    desks = []

    def open_one(*words):
        desks.append(Desk(*words))
        return desks[-1]

    yield open_one
    for desk in desks:
        desk.close()


@pytest.fixture
def minou(open_window, server):
    """Minou's window: she is in."""
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    return desk


def free_port():
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def until_now(person):
    """All that has come to somebody: what stands before the answer to a `list`."""
    person.send({"type": "list"})
    came = []
    while (message := person.read())["type"] != "people":
        came.append(message)
    return came


@contextlib.contextmanager
def stopped(server):
    """The server does nothing for a while, as if it were very busy."""
    server.freeze()
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


# --- the login card

def test_login_card_shows_the_last_login(open_window, server):
    desk = open_window()
    assert desk.card.host.get() == "127.0.0.1" and desk.card.port.get() == "9999"
    desk.types_into(desk.card.name)
    desk.fill_in(port=server.port, name="Minou")
    desk.press(desk.card.name, "<Return>")
    desk.until(desk.inside)
    assert desk.root.title() == "ChattyCat — Minou"
    desk.close()

    again = open_window()
    assert again.card.port.get() == str(server.port)
    assert again.card.name.get() == "Minou"
    again.card.remember.set(False)
    again.fill_in(name="Tigrou")
    again.buttons()["Connect"].invoke()
    again.until(again.inside)
    again.close()

    third = open_window()
    assert third.card.name.get() == "Minou", "Tigrou did not want to be remembered"


def test_a_broken_last_login_is_put_aside(open_window, tmp_path):
    (tmp_path / "last_login.json").write_text('{"host": 5, "po')
    desk = open_window()
    desk.root.update()
    assert "could not be read" in desk.sentence()
    assert (tmp_path / "last_login.json.broken").exists()
    assert desk.card.host.get() == "127.0.0.1"


@pytest.mark.parametrize("entries, word", [
    ({"port": "cat"}, "port"), ({"port": "0"}, "port"), ({"port": "65536"}, "port"),
    ({"port": ""}, "port"), ({"port": "9" * 40}, "port"),
    ({"host": " "}, "address"), ({"name": ""}, "name"), ({"name": "two words"}, "name"),
    ({"name": "x" * 21}, "name"), ({"name": "Server"}, "Server"),
    ({"name": "a\nb\0"}, "name"),
], ids=str)
def test_a_mistake_in_the_card_is_a_sentence(open_window, entries, word):
    desk = open_window()
    desk.fill_in(**{"name": "Minou", **entries})
    desk.press(desk.card.name, "<Return>")
    assert word in desk.sentence() and len(desk.sentence()) < 200
    assert desk.chat.connection is None and not desk.inside()


def test_an_address_that_no_computer_has(open_window):
    desk = open_window("--host", "a..b", "--name", "Minou")
    desk.until(lambda: "“a..b”" in desk.sentence())
    assert "Connect" in desk.buttons(), "it does not go on trying"


def test_emoji_and_backspace_in_the_entries(open_window):
    desk = open_window()
    for entry in (desk.card.host, desk.card.port, desk.card.name):
        entry.delete(0, "end")
        entry.insert(0, "x")
        for emoji in ("😀", "y😀", "𝒳"):
            entry.insert("end", emoji)          # refused as a whole
        assert entry.get() == "x"
        desk.press(entry, "<End>", "<BackSpace>")
        assert entry.get() == ""


# --- no server yet

def test_no_server_then_the_window_waits_and_stops(open_window):
    desk = open_window("--port", free_port(), "--name", "Minou")
    desk.until(lambda: "No server answers" in desk.sentence())
    assert "waits for it" in desk.sentence() and not desk.inside()
    assert desk.keyboard_is_seen()
    desk.buttons()["Stop trying"].invoke()
    desk.until(lambda: "Connect" in desk.buttons())
    assert "Start a server here" not in desk.buttons()


def test_a_server_started_from_the_window_ends_with_it(open_window):
    desk = open_window("--port", free_port(), "--name", "Minou")
    desk.until(lambda: "Start a server here" in desk.buttons())
    desk.buttons()["Start a server here"].invoke()
    desk.until(desk.inside)
    assert "A server was started here" in desk.shown()
    process = desk.chat.local_server.process
    assert process.poll() is None
    desk.close()
    assert process.wait(5) == 0


def test_a_server_started_from_the_window_that_ends_by_itself(open_window):
    """As the second of two does, when two windows start one in the same moment."""
    desk = open_window("--port", free_port(), "--name", "Minou")
    desk.until(lambda: "Start a server here" in desk.buttons())
    desk.buttons()["Start a server here"].invoke()
    desk.until(desk.inside)
    desk.chat.local_server.process.kill()
    desk.until(lambda: "The server that was started here has ended." in desk.shown())
    desk.until(lambda: "Start a server here" in desk.buttons())     # once more


def test_client_first_server_later(open_window, start_server):
    port = free_port()
    desk = open_window("--port", port, "--name", "Minou")
    desk.until(lambda: desk.chat.status["state"] == "waiting")
    start_server("--port", port)
    desk.until(desk.inside)


# --- the server says no

def test_name_taken_and_another_name_on_the_same_connection(open_window, server, join):
    join("Minou")
    desk = open_window("--port", server.port, "--name", "mINOU")
    desk.until(lambda: "taken" in desk.sentence())
    before = desk.chat.connection.sock
    assert before is not None
    desk.types_into(desk.card.name)
    desk.fill_in(name="Tigrou")
    desk.press(desk.card.name, "<Return>")
    desk.until(desk.inside)
    assert desk.chat.connection.sock is before
    assert desk.root.title() == "ChattyCat — Tigrou"


def test_name_taken_and_another_server_instead(open_window, server, start_server, join):
    join("Minou")
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(lambda: "taken" in desk.sentence())
    desk.fill_in(port=start_server().port)
    desk.buttons()["Connect"].invoke()
    desk.until(desk.inside)
    assert desk.row("Minou")[1] == "Minou (you)"


def test_server_full(open_window, start_server, join):
    server = start_server("--max-clients", 1)
    join("Félix", server)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(lambda: "no more fit" in desk.sentence())
    assert "Connect" in desk.buttons()


def test_kicked(open_window, start_server):
    server = start_server(console=True)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    server.type_line("/kick Minou")
    desk.until(lambda: "operator" in desk.sentence())
    assert not desk.inside()
    # She may come back, and then types where one types.
    desk.buttons()["Connect"].invoke()
    desk.until(lambda: desk.chat.status["state"] == "online" and desk.inside())
    desk.types_into(desk.box)


def test_kicked_while_a_dialog_has_the_keyboard(open_window, start_server):
    """Else the rest of a file's name would go nowhere, and Esc and Enter too."""
    server = start_server(console=True)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    dialog = client.tk.Toplevel(desk.root)
    entry = client.tk.Entry(dialog)
    entry.pack()
    desk.until(entry.winfo_viewable)
    dialog.grab_set()
    entry.focus_force()
    desk.until(lambda: desk.root.focus_get() is entry)
    server.type_line("/kick Minou")
    desk.until(lambda: "operator" in desk.sentence())
    assert desk.root.focus_get() is entry
    # Tk's own dialogs give the keyboard back to who had it, and that is out of sight.
    dialog.destroy()
    desk.box.focus_force()
    desk.until(lambda: desk.root.focus_get() is desk.card.frame)


def test_the_clock_takes_no_keyboard_away(open_window):
    """Its look, once a second, may come when the room is there and not drawn yet."""
    desk = open_window()
    desk.card.button.focus_force()
    desk.until(lambda: desk.root.focus_get() is desk.card.button)
    desk.card.frame.pack_forget()
    desk.window.room.pack(fill="both", expand=True)
    desk.box.focus_set()                    # this comes true when it is drawn
    desk.root.after_cancel(desk.window.timers["tick"])
    desk.window.tick()
    desk.until(lambda: desk.root.focus_get() is desk.box)


# --- the connection ends, and comes back

def test_the_server_shuts_down_and_comes_back(open_window, start_server):
    first = start_server()
    desk = open_window("--port", first.port, "--name", "Minou")
    desk.until(desk.inside)
    desk.say("Before")
    desk.type("a draft")
    first.stop()
    desk.until(lambda: "Trying again in" in desk.banner())
    assert desk.inside() and "Before" in desk.shown()
    assert "shutting down" in desk.shown()
    desk.press(desk.box, "<Return>")
    assert "sent when you are back" in desk.shown() and not desk.draft()
    assert "kept" in desk.tags_of("a draft")
    desk.type("another draft")
    start_server("--port", first.port)
    desk.window.header.retry.invoke()
    desk.until(lambda: not desk.banner())
    assert "Connected again" in desk.shown() and desk.draft() == "another draft"
    desk.arrived("a draft")
    desk.press(desk.box, "<Return>")
    desk.arrived("another draft")


@posix
def test_grey_until_the_receipt_comes(minou, server):
    with stopped(server):
        minou.say("Is anybody there?")
        assert "waiting" in minou.tags_of("Is anybody there?")
        assert minou.view().tag_cget("waiting", "foreground") == minou.colour("muted")
        assert minou.draft() == ""
    minou.arrived("Is anybody there?")
    assert "failed" not in minou.tags_of("Is anybody there?")
    assert minou.shown().count("Is anybody there?") == 1


@posix
def test_a_line_whose_fate_is_not_known(open_window, start_server):
    server = start_server()
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    server.freeze()
    desk.say("Does this arrive?")
    server.kill()
    desk.until(lambda: "was lost" in desk.shown() and desk.banner())
    assert "waiting" in desk.tags_of("Does this arrive?")   # nobody can tell yet
    start_server("--port", server.port)
    desk.chat.retry_now()
    desk.until(lambda: "not known whether" in desk.shown())
    assert {"waiting", "unknown"} & desk.tags_of("Does this arrive?") == {"unknown"}
    assert desk.view().tag_cget("unknown", "foreground") == desk.colour("warning")


def drawn(text):
    """What stands in a Text: each line, and the tags at its begin.

    Not “arrived”, which is no look of its own.
    """
    count = int(text.index("end-1c").split(".")[0])
    return [(text.get(f"{number}.0", f"{number}.end"), {*text.tag_names(f"{number}.0")}
             - {"arrived"}) for number in range(1, count + 1)]


@posix
def test_our_lines_move_to_where_the_others_have_them(minou, server, join):
    """And then all looks as if it had come in this order from the start."""
    tigrou = join("Tigrou")
    for number in range(8):
        with stopped(server):           # so many lines wait, and meet in any order
            for line in range(number % 4):
                tigrou.send({"type": "chat", "text": f"Tigrou {number}.{line}"})
            for line in range(number % 3):
                minou.say(f"Minou {number}.{line}")
            tigrou.send({"type": "chat", "text": f"The end of {number}"})
        minou.until(lambda: f"The end of {number}" in minou.shown())
        minou.until(lambda: not minou.chat.unconfirmed)
    said = [message["text"] for message in until_now(tigrou)
            if message["type"] == "chat"]
    assert [line.text for line in minou.chat.everyone.lines
            if line.kind == "chat"] == said
    fresh = client.Messages(minou.window.main, minou.window.look, minou.chat,
                            minou.chat.everyone)
    fresh.add(minou.chat.everyone.lines)
    assert drawn(minou.view()) == drawn(fresh.text)


def test_what_is_typed_while_cut_off_is_kept_and_sent(open_window, start_server, join):
    server = start_server()
    tigrou = join("Tigrou", server)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(lambda: desk.inside() and desk.chat.count == 2)
    desk.chat.connection.sock.shutdown(socket.SHUT_RDWR)
    desk.until(desk.banner)
    desk.say("For all")
    desk.click_on("Tigrou")
    desk.say("For you alone")
    assert "kept" in desk.tags_of("For you alone") and not desk.draft()
    assert desk.view().tag_cget("kept", "foreground") == desk.colour("muted")
    assert "sent when you are back" in desk.shown()
    desk.window.header.retry.invoke()
    desk.arrived("For you alone")
    tigrou.expect("chat", skip=["joined", "left"], text="For all")
    tigrou.expect("chat", text="For you alone", to="Tigrou")
    desk.click_on(None)
    desk.arrived("For all")
    assert desk.shown().count("For all") == 1


# --- the menu

def test_the_menu_writes_the_chat_and_logs_out(minou, tmp_path):
    menu = minou.window.header.menu

    def ticked():
        minou.root.tk.eval(str(menu.cget("postcommand")))     # as when it opens
        return minou.root.getvar(str(menu.entrycget(0, "variable")))

    assert not ticked() and not (tmp_path / "chats").exists()
    menu.invoke(0)
    minou.until(lambda: str(tmp_path / "chats") in minou.shown())
    assert ticked()
    minou.say("Write this")
    minou.arrived("Write this")
    [path] = (tmp_path / "chats").iterdir()
    assert path.read_text().endswith("  Minou: Write this\n")
    minou.say("/log")
    assert not ticked(), "it shows what is true, whoever has switched it"
    menu.invoke(0)
    assert ticked() and minou.chat.log.on
    menu.invoke("Log out")
    minou.until(lambda: not minou.inside())
    assert "logged out" in minou.sentence()


@from_outside
def test_the_menu_by_mouse_and_one_can_type_on(minou):
    menu, button = minou.window.header.menu, minou.buttons()["Menu"]
    minou.root.lift()
    minou.root.update()
    xdotool("mousemove", button.winfo_rootx() + 20, button.winfo_rooty() + 10,
            "click", 1)
    minou.until(menu.winfo_ismapped)
    xdotool("mousemove", menu.winfo_rootx() + 40,
            menu.winfo_rooty() + menu.yposition(0) + 8, "click", 1)
    minou.until(lambda: "What is said is written into" in minou.shown())
    minou.types_into(minou.box)
    xdotool("type", "Hello")
    minou.until(lambda: minou.draft() == "Hello")


@from_outside
def test_the_menu_by_keyboard(open_client):
    window = open_client("--name", "Minou")
    window.wait_for_title("ChattyCat — Minou")
    window.choose(1)
    window.wait_for_text("What is said is written into")
    window.choose(10)
    window.wait_for_title("ChattyCat")      # logged out
    close_well(window)


def test_logging_out_and_in_again(minou):
    minou.say("Hello")
    minou.arrived("Hello")
    minou.say("/disconnect")
    minou.until(lambda: not minou.inside())
    assert "logged out" in minou.sentence()
    minou.press(minou.card.name, "<Return>")
    minou.until(lambda: minou.chat.status["state"] == "online" and minou.inside())
    assert "Hello" in minou.shown(), "the same name on the same server: the same room"
    minou.types_into(minou.box)


def test_another_server_is_another_room(minou, start_server):
    minou.say("Only here")
    other = start_server()
    minou.say(f"/connect 127.0.0.1:{other.port}")
    minou.until(lambda: minou.chat.server == ("127.0.0.1", other.port))
    minou.say("Only there")
    minou.until(lambda: "Only there" in minou.shown())
    assert "Only here" not in minou.shown()
    assert len(minou.window.views) == 1


def test_a_password_is_only_for_its_own_server(open_window, start_server):
    """Also in a card that was made anew, for another theme, while one was elsewhere."""
    first, second = start_server(), start_server()
    desk = open_window("--port", first.port, "--name", "Minou", "--theme", "light")
    desk.chat.passwords["127.0.0.1", first.port] = "only for the first"
    desk.chat.remember = False          # so /connect does not change what is filled in
    desk.until(desk.inside)
    desk.say(f"/connect 127.0.0.1 {second.port}")
    desk.until(lambda: desk.chat.server == ("127.0.0.1", second.port) and desk.inside())
    desk.window.choose_theme("dark")
    desk.card = desk.window.login
    desk.chat.command_disconnect("")
    desk.until(lambda: not desk.inside())
    known = {str(first.port): "only for the first", str(second.port): ""}
    assert desk.card.password.get() == known[desk.card.port.get()]


def test_a_tick_for_the_next_time_stays(open_window):
    """Whoever ticks TLS while an attempt lasts must not be sent on in plain text."""
    desk = open_window("--port", free_port(), "--name", "Minou")
    desk.until(lambda: desk.chat.status["state"] == "waiting")
    desk.card.tls.button.invoke()
    desk.card.button.invoke()               # stop trying
    desk.until(lambda: desk.chat.status["state"] == "offline")
    assert desk.card.tls.get()
    desk.card.button.invoke()               # connect
    desk.until(lambda: desk.chat.status["state"] == "waiting")
    assert desk.chat.login.tls


def test_the_menu_of_an_entry_that_python_does_not_know(open_window):
    """Such as those in Tk's own dialogs."""
    desk = open_window()
    tk = desk.root.tk
    tk.call("ttk::entry", ".strange")
    tk.call("pack", ".strange")
    desk.root.update()
    desk.root.clipboard_clear()
    desk.root.clipboard_append("pasted")
    tk.call("event", "generate", ".strange", "<<ContextMenu>>")
    desk.window.look.popup.invoke(2)
    desk.window.look.popup.unpost()
    assert tk.call(".strange", "get") == "pasted"
    tk.call("destroy", ".strange")


def test_connect_as_a_plain_word(open_window, start_server):
    server = start_server()
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    port = server.port
    server.stop()
    desk.until(desk.banner)
    start_server("--port", port)
    desk.say("connect")
    desk.until(lambda: desk.chat.status["state"] == "online")
    assert desk.draft() == "" and not desk.banner()
    desk.say("connect")                     # now it is a word like any other
    desk.until(lambda: "connect\n" in desk.shown())


def test_every_button_fits_into_the_smallest_window(open_window, start_server):
    port = free_port()
    desk = open_window("--port", port, "--name", "Minou")
    desk.root.geometry("1x1")               # as small as it lets itself be made
    desk.until(lambda: "Start a server here" in desk.buttons())
    assert desk.root.winfo_width() <= desk.window.look.px(560)
    assert desk.cut_off() == []
    server = start_server("--port", port)
    desk.until(desk.inside)
    assert desk.cut_off() == []
    server.stop()
    desk.until(lambda: "Start a server here" in desk.buttons())
    assert desk.cut_off() == []


# --- what others say

def test_a_line_and_how_it_looks(minou, join):
    tigrou = join("Tigrou")
    color = next(person["color"] for person in tigrou.welcome["people"]
                 if person["name"] == "Tigrou")
    first = tigrou.say("Hello, Minou 🐱 小猫")
    minou.until(lambda: "小猫" in minou.shown())
    clock = client.local_time(first["time"]).strftime("%H:%M")
    assert f"●\tTigrou  {clock}\nHello, Minou 🐱 小猫\n" in minou.shown()
    assert {"head", f"name{color}"} <= minou.tags_of("Tigrou  ")
    assert "time" in minou.tags_of(f"  {clock}\n"[:-1])
    day = client.local_time(first["time"])
    assert minou.shown().startswith(f"{day:%A} {day.day} {day:%B %Y}\n")
    tigrou.say("And another one")
    minou.until(lambda: "And another" in minou.shown())
    assert minou.shown().count("●\tTigrou") == 1, "a second header within five minutes"
    minou.say("Hello!")
    minou.arrived("Hello!")     # or it would move behind what he says meanwhile
    tigrou.say("Bye")
    minou.until(lambda: "Bye" in minou.shown())
    assert minou.shown().count("●\tTigrou") == 2


def test_the_operator_speaks(open_window, start_server):
    server = start_server(console=True)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    server.type_line("/say The lesson begins.")
    desk.until(lambda: "The lesson begins." in desk.shown())
    assert "notice" in desk.tags_of("Server  ")


def test_private_by_a_click_unread_and_drafts(minou, join):
    tigrou, felix = join("Tigrou"), join("Félix")
    minou.until(lambda: minou.chat.count == 3)
    for _ in range(2):
        tigrou.say("Psst", to="Minou")
    for number in range(100):
        felix.say(f"Mouse {number}", to="Minou")
    minou.until(lambda: minou.root.title() == "(102) ChattyCat — Minou")
    assert minou.row("Tigrou") == ["T", "Tigrou", "2"]
    assert minou.row("Félix") == ["F", "Félix", "99+"]
    assert "Psst" not in minou.shown()
    minou.type("for everyone")
    minou.click_on("Tigrou")
    minou.until(lambda: minou.row("Tigrou") == ["T", "Tigrou"])
    assert minou.root.title() == "(100) ChattyCat — Minou"
    assert minou.window.header.title.cget("text") == "Tigrou"
    assert "Private" in minou.window.header.subtitle.cget("text")
    assert minou.shown().count("Psst") == 2 and minou.draft() == ""
    minou.types_into(minou.box)
    minou.say("Only for you")
    minou.arrived("Only for you")
    assert "Only for you" in str(until_now(tigrou))
    assert "Only for you" not in str(until_now(felix))
    minou.type("for Tigrou")
    minou.click_on(None)
    assert minou.draft() == "for everyone" and "Only for you" not in minou.shown()
    minou.click_on("Tigrou")
    assert minou.draft() == "for Tigrou"


def test_someone_leaves_back_to_everyone_but_never_over_a_draft(minou, join):
    tigrou, felix = join("Tigrou"), join("Félix")
    minou.until(lambda: minou.chat.count == 3)
    minou.click_on("Tigrou")
    tigrou.leave()
    minou.until(lambda: minou.chat.current.name is None)
    assert "Tigrou is gone; you are back with everyone." in minou.shown()
    minou.click_on("Félix")
    minou.type("I only wanted to say")
    felix.leave()
    minou.until(lambda: "Félix left" in minou.shown())
    # The look, once a second, that sends one back: it has come, and did nothing.
    minou.until(lambda: minou.chat.current.gone_at is None)
    assert minou.chat.current.name == "Félix"
    assert minou.draft() == "I only wanted to say"
    minou.press(minou.box, "<Return>")
    minou.until(lambda: "failed" in minou.tags_of("I only wanted to say"))
    assert minou.view().tag_cget("failed", "foreground") == minou.colour("danger")
    assert minou.row("Félix") == ["F", "Félix"], "he stays in the list while one reads"


def test_who_was_lost_may_come_back_for_a_while(minou, join, monkeypatch):
    monkeypatch.setattr(client, "AWAY_SECONDS", 1)
    salem = join("Salem")       # no other test's name: the server keeps it for a minute
    minou.until(lambda: minou.chat.count == 2)
    minou.click_on("Salem")
    salem.reset()
    minou.until(lambda: "lost the connection" in minou.shown())
    again = join()
    again.hello("Salem", session=salem.welcome["session"])
    minou.until(lambda: "Salem joined" in minou.shown())
    assert minou.chat.current.gone_at is None
    assert minou.chat.current.name == "Salem"
    again.reset()
    minou.until(lambda: minou.chat.current.name is None)
    assert "Salem is gone" in minou.shown()


# --- what one types

def test_shift_enter_is_a_new_line(minou, join):
    tigrou = join("Tigrou")
    minou.type("one")
    minou.press(minou.box, "<Shift-Return>")
    minou.type("two")
    assert minou.draft() == "one\ntwo" and minou.box.cget("height") == 2
    minou.press(minou.box, "<Return>")
    tigrou.expect("chat", text="one\ntwo")
    minou.until(lambda: "one\ntwo\n" in minou.shown())
    for _ in range(9):
        minou.press(minou.box, "<Shift-Return>")
    assert minou.box.cget("height") == 6, "it grows to six lines, and no further"


def test_emoji_and_backspace_in_the_composer(minou, join):
    tigrou = join("Tigrou")
    minou.type("x😀")
    minou.press(minou.box, "<BackSpace>")
    minou.draft().encode()                  # no half of an emoji
    minou.box.delete("1.0", "end")
    minou.say("👩‍🚀🇫🇷 done")
    tigrou.expect("chat", text="👩‍🚀🇫🇷 done")


def test_half_an_emoji_is_not_sent_and_kept_as_a_draft(minou, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    minou.type("x😀y")
    # Tk 8.6 counts an emoji as two, and some of its own keys stop in its middle.
    minou.box.mark_set("insert", "1.2")
    minou.press(minou.box, "<BackSpace>")
    minou.click_on("Tigrou")
    minou.click_on(None)
    minou.press(minou.box, "<Return>")
    text = minou.chat.everyone.lines[-1].text
    assert text.endswith("y")
    tigrou.expect("chat", text=text)


def test_help_names_every_command(minou):
    minou.say("/help")
    minou.until(lambda: "/help: this list" in minou.shown())
    minou.buttons()["Help"].invoke()
    minou.until(minou.window.page.window.winfo_ismapped)
    page = minou.window.page.text.get("1.0", "end")
    for word in ("/again", "/connect", "/disconnect", "/everyone", "/exit", "/list",
                 "/log", "/msg", "/open", "/quit"):
        assert f"\n{word}" in minou.shown()
        assert f"\n{word}" in page


def test_list(minou, join):
    join("Tigrou")
    minou.say("/LIST")
    minou.until(lambda: "2 here: Minou, Tigrou" in minou.shown())


def test_msg_and_everyone(minou, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    minou.say("/msg tigrou Are you there?")
    tigrou.expect("chat", to="Tigrou", text="Are you there?")
    assert minou.chat.current.name == "Tigrou"
    minou.say("/everyone")
    assert minou.chat.current.name is None
    minou.say("/msg tigrou")
    assert minou.chat.current.name == "Tigrou" and minou.draft() == ""


@pytest.mark.parametrize("text, sentence", [
    ("/mgs Tigrou secret", "There is no command /mgs"),
    ("/", "There is no command /"), ("/msg Nobody hello", "Nobody called “Nobody”"),
    ("/msg", "/msg NAME"), ("x" * 4001, "4000 characters"),
    ("/connect 127.0.0.1 99999", "A port is"), ("\x1b[2J", "control characters"),
], ids=lambda text: text[:12])
def test_a_mistake_stays_in_the_box_and_is_not_sent(minou, join, text, sentence):
    tigrou = join("Tigrou")
    minou.say(text)
    assert minou.draft() == text
    assert sentence in minou.shown() and minou.chat.status["state"] == "online"
    tigrou.silence()


def test_a_message_too_long_for_somebody_alone_is_not_lost(minou, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    minou.say("/msg Tigrou " + "x" * 4001)
    assert "4000" in minou.shown() and "x" * 4001 in minou.draft()
    tigrou.silence()


def test_two_slashes_send_one(minou, join):
    tigrou = join("Tigrou")
    minou.say("//help")
    tigrou.expect("chat", text="/help")
    minou.say("   ")
    assert minou.draft() == ""
    tigrou.silence()


# --- keys and scrolling

def test_the_view_follows_only_who_is_at_the_end(minou, join):
    tigrou = join("Tigrou")
    for number in range(100):
        tigrou.say(f"Line {number}")
    minou.until(lambda: "Line 99" in minou.shown())
    assert minou.view().yview()[1] == 1.0
    minou.press(minou.box, "<Prior>", "<Prior>")
    top = minou.view().index("@0,0")
    tigrou.say("And one more")
    minou.until(lambda: "one more" in minou.shown())
    assert minou.view().index("@0,0") == top, "the text moved under the reader's eyes"
    minou.press(minou.box, "<Escape>")
    assert minou.view().yview()[1] == 1.0
    # A window that gets smaller is not a user who scrolls.
    minou.root.geometry("700x450")
    minou.until(lambda: minou.root.winfo_height() == 450)
    tigrou.say("The last one")
    minou.until(lambda: "The last one" in minou.shown())
    assert minou.view().yview()[1] == 1.0


def test_the_list_of_people_by_keyboard(minou, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    minou.press(minou.people, "<Down>", "<Down>")
    assert minou.chat.current.name == "Tigrou"
    minou.press(minou.people, "<Down>")
    assert minou.chat.current.name == "Tigrou", "there is nobody below"
    minou.press(minou.people, "<Return>")
    minou.types_into(minou.box)
    minou.press(minou.people, "<Up>", "<Up>", "<Up>")
    assert minou.chat.current.name is None
    tigrou.silence()


def test_a_long_list_of_people_scrolls(minou, join):
    for number in range(40):
        join(f"Cat{number:02}")
    minou.until(lambda: minou.chat.count == 41 and not minou.window.changed)
    for _ in range(200):
        minou.people.event_generate("<Button-5>")       # the wheel, on X11
        minou.people.event_generate("<MouseWheel>", delta=-120)
    minou.root.update()
    assert minou.people.yview()[1] == 1.0
    last = minou.window.sidebar.rows[-1]
    y = last[0] - minou.people.canvasy(0) + 10
    minou.people.event_generate("<Button-1>", x=80, y=round(y))
    assert minou.chat.current.name == last[1] == "Cat39"


# --- a server that talks nonsense

class OddServer(socketserver.ThreadingTCPServer):
    """Says the same to everybody who connects, whatever they say."""
    daemon_threads = True
    block_on_close = False

    def __init__(self, said, hang_up):
        super().__init__(("127.0.0.1", 0), None)
        self.said, self.hang_up = said, hang_up
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def finish_request(self, sock, address):
        with contextlib.suppress(OSError):      # the client may hang up at any time
            sock.sendall(self.said)
            while not self.hang_up and sock.recv(65536):
                pass


@pytest.fixture
def odd_server():
    """A function that starts an OddServer and returns its port."""
    servers = []

    def start(said, hang_up=False):
        servers.append(OddServer(said, hang_up))
        return servers[-1].server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def lines_of(*messages):
    # With ensure_ascii, so that a lone surrogate travels as \\ud83d.
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


NOW = "2026-11-20T17:01:02.345Z"
TIGROU = {"name": "Tigrou", "color": 3}
WELCOME = {"type": "welcome", "name": "Minou", "color": 0, "session": "s",
           "resumed": False, "gap": False, "people": [{"name": "Minou", "color": 0}],
           "count": 1, "last_id": 0, "history": "h", "time": NOW}
CHAT = {"type": "chat", "id": 1, "from": "Tigrou", "color": 3, "text": "Hello",
        "time": NOW, "to": "Minou", "ref": "r"}
GOOD = [WELCOME, CHAT, {"type": "people", "people": [TIGROU], "count": 1},
        {"type": "joined", "time": NOW, **TIGROU},
        {"type": "left", "name": "Tigrou", "reason": "bye", "time": NOW},
        {"type": "notice", "text": "Hello", "time": NOW},
        {"type": "error", "code": "bad_text", "text": "No.", "ref": "r"}]
BAD_VALUES = (None, True, 1.5, -1, 10**30, "", "\ud83d", "\0", "x" * 300, [], [None],
              [{"name": 5}], {}, {"name": "x"})


@pytest.mark.parametrize("said", [
    b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n", b"not json\n", b"[]\n",
    b"{}\n", b'{"type": 5}\n', b"\xff\xfe\n", b"[" * 60_000 + b"\n", b"x" * 2**20,
    b"x" * 2**20 + b"\n", b'{"type": "chat", "id": NaN}\n',
], ids=lambda said: repr(said[:12]))
def test_what_answers_is_no_chattycat(open_window, odd_server, said):
    desk = open_window("--port", odd_server(said), "--name", "Minou")
    desk.until(lambda: "is not a ChattyCat server" in desk.sentence())
    assert "Connect" in desk.buttons() and not desk.inside()


def test_a_server_that_hangs_up_at_once(open_window, odd_server):
    desk = open_window("--port", odd_server(b"", hang_up=True), "--name", "Minou")
    desk.until(lambda: "was lost" in desk.sentence())
    desk.buttons()["Stop trying"].invoke()
    desk.until(lambda: "Connect" in desk.buttons())


def test_a_server_that_never_answers(open_window, odd_server):
    desk = open_window("--port", odd_server(b""), "--name", "Minou")
    desk.until(lambda: "welcome" in desk.sentence())
    desk.buttons()["Stop trying"].invoke()
    desk.until(lambda: "Stopped." in desk.sentence())


@pytest.mark.parametrize("field", ["name", "people", "count", "history"])
def test_a_welcome_with_something_missing(open_window, odd_server, field):
    said = {key: value for key, value in WELCOME.items() if key != field}
    desk = open_window("--port", odd_server(lines_of(said)), "--name", "Minou")
    desk.until(lambda: "ChattyCat server" in desk.sentence(), limit=3)
    assert not desk.inside()


def test_wrong_kinds_in_every_field(open_window, odd_server):
    odd = [dict(message, **{field: value}) for message in GOOD
           for field in message if field != "type" for value in BAD_VALUES]
    odd += [{key: message[key] for key in message if key != field}
            for message in GOOD for field in message if field != "type"]
    odd += [{"type": word} for word in ("nonsense", "status", "goodbye", "", "__init__",
                                        "\ud83d", "upload_ready")]
    last = dict(CHAT, id=10**40, text="The last one", to="")
    said = lines_of(WELCOME, *odd, WELCOME, last)
    desk = open_window("--port", odd_server(said), "--name", "Minou")
    desk.until(lambda: any(line.text == "The last one"
                           for line in desk.chat.everyone.lines))
    desk.click_on(None)
    assert desk.shown().count("makes no sense") > 50
    assert "The last one" in desk.shown()


def test_nonsense_that_is_not_json_in_the_middle(open_window, odd_server):
    said = (lines_of(WELCOME) + b"\xff\n[]\n{}\nhello\n\n" + b"[" * 60_000 + b"\n"
            + lines_of(dict(CHAT, to="")))
    desk = open_window("--port", odd_server(said), "--name", "Minou")
    desk.until(lambda: "Hello" in desk.shown())
    assert desk.shown().count("makes no sense") == 5
    assert desk.chat.status["state"] == "online"


def test_a_line_without_an_end_in_the_middle(open_window, odd_server):
    port = odd_server(lines_of(WELCOME) + b"x" * 2**20)
    desk = open_window("--port", port, "--name", "Minou")
    desk.until(lambda: desk.sentence() or desk.banner())


def test_a_goodbye_without_words(open_window, odd_server):
    port = odd_server(lines_of(WELCOME, {"type": "goodbye"}), hang_up=True)
    desk = open_window("--port", port, "--name", "Minou")
    desk.until(lambda: desk.chat.status["state"] == "offline")
    assert desk.sentence() and "None" not in desk.sentence()


def test_text_that_would_harm_a_screen(open_window, odd_server):
    texts = ["lone \ud83d surrogate", "before\0after",
             "turned \u202eround\u2066 \u2069", "screen \x1b[2J cleared", "w" * 4000,
             "tabs\tand\nlines", "\u0301" * 200]
    said = lines_of(WELCOME, *(dict(CHAT, id=number, text=text, to="")
                               for number, text in enumerate(texts, 1)))
    desk = open_window("--port", odd_server(said), "--name", "Minou")
    desk.until(lambda: "and\nlines" in desk.shown() and "\u0301" in desk.shown())
    shown = desk.shown()
    assert "lone \ufffd surrogate" in shown and "before\ufffdafter" in shown
    assert "turned round " in shown and "\x1b" not in shown
    assert "w" * 4000 in shown


# --- very much at once

def many(count, pause=0.0, lot=100):
    """Yield the lines of so many messages, in lots; a lot every `pause` seconds."""
    start = time.monotonic()
    for number in range(0, count, lot):
        time.sleep(max(0, start + number / lot * pause - time.monotonic()))
        yield lines_of(*({"type": "chat", "text": f"This is message {at} of {count}"}
                         for at in range(number, number + lot)))


def let_talk(person, lots):
    """Start two threads: one lets somebody say all this, one reads the receipts."""
    person.ended = True                     # for leave(): only close it

    def write():
        with contextlib.suppress(OSError):      # closed at the end of the test
            for lot in lots:
                person.socket.sendall(lot)

    def read():
        with contextlib.suppress(OSError):
            while person.socket.recv(65536):
                pass

    for work in (read, write):
        threading.Thread(target=work, daemon=True).start()


@pytest.fixture
def loud_room(open_window, start_server, join):
    """Minou's window, and 20 others, on a server of their own without a speed limit."""
    server = start_server("--rate", 0)
    desk = open_window("--port", server.port, "--name", "Minou")
    people = [join(f"Cat{number}", server) for number in range(20)]
    desk.until(lambda: desk.chat.count == 21)
    return desk, people


def lateness(desk, person, seconds):
    """How late a 10 ms timer is at p99, in ms, while 1,000 messages a second come."""
    late, end = [], time.monotonic() + seconds

    def tick(due):
        now = time.monotonic()
        late.append(now - due)
        if now > end:
            desk.root.quit()
        else:
            desk.root.after(10, tick, now + 0.01)

    let_talk(person, many(1000 * seconds, pause=0.01, lot=10))
    desk.root.after(10, tick, time.monotonic() + 0.01)
    desk.root.mainloop()
    assert not desk.errors and len(late) > 10 * seconds
    return 1000 * sorted(late)[len(late) * 99 // 100]


# --- colours

def luminance(colour):
    """How bright a colour is, from 0 to 1 (WCAG 2.1)."""
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
             for part in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one, other):
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def text_pairs(widget):
    """(text colour, ground) of a Text and of each of its tags."""
    ink, ground = widget.cget("fg"), widget.cget("bg")
    yield ink, ground
    yield widget.cget("insertbackground"), ground
    yield widget.cget("selectforeground"), widget.cget("selectbackground")
    for tag in widget.tag_names():
        if tag != "sel":
            yield (widget.tag_cget(tag, "foreground") or ink,
                   widget.tag_cget(tag, "background") or ground)


def canvas_pairs(canvas, images):
    """(text colour, colour of what lies under it) of each text on a Canvas."""
    colour_of = {str(image): colours[0] for colours, image in images.items()}
    for item in canvas.find_all():
        if canvas.type(item) == "text":
            x1, y1, x2, y2 = canvas.bbox(item)
            middle = (x1 + x2) / 2, (y1 + y2) / 2
            below = [other for other in canvas.find_overlapping(*middle, *middle)
                     if other < item]
            ground = canvas.cget("bg")
            if below and canvas.type(below[-1]) == "image":
                ground = colour_of[canvas.itemcget(below[-1], "image")]
            elif below:
                ground = canvas.itemcget(below[-1], "fill")
            yield canvas.itemcget(item, "fill"), ground


def style_pairs(widget):
    """(text colour, ground) of a ttk widget, in each of its states."""
    style, kind = client.ttk.Style(widget), widget.cget("style") or widget.winfo_class()
    grounds = "fieldbackground" if kind == "TEntry" else "background"
    for state in ([], ["active"], ["focus"], ["active", "pressed"], ["selected"]):
        yield (style.lookup(kind, "foreground", state),
               style.lookup(kind, grounds, state))
    if kind == "TEntry":
        for state in ([], ["focus"]):
            yield (style.lookup(kind, "selectforeground", state),
                   style.lookup(kind, "selectbackground", state))


def colour_pairs(desk, widget):
    """Every (text colour, ground) that this widget and those inside it show."""
    kind = widget.winfo_class()
    if kind == "Label" and widget.cget("text"):
        yield widget.cget("fg"), widget.cget("bg")
    elif kind == "Text":
        yield from text_pairs(widget)
    elif kind == "Canvas":
        yield from canvas_pairs(widget, desk.window.look.images)
    elif kind in ("TEntry", "TButton", "TMenubutton", "TCheckbutton"):
        yield from style_pairs(widget)
    elif kind == "Menu":
        for ink, ground in (("fg", "bg"), ("activeforeground", "activebackground"),
                            ("selectcolor", "bg")):
            yield str(widget.cget(ink)), str(widget.cget(ground))
    for child in widget.winfo_children():
        yield from colour_pairs(desk, child)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read_on_its_ground(open_window, start_server, join, theme):
    server = start_server()
    people = [join(f"Cat{number}", server) for number in range(13)]
    desk = open_window("--theme", theme, "--port", server.port, "--name", "Cat0")
    desk.until(lambda: "taken" in desk.sentence())
    pairs = set(colour_pairs(desk, desk.root))
    desk.fill_in(name="Minou")
    desk.buttons()["Connect"].invoke()
    desk.until(desk.inside)
    for person in people:
        person.say("Hello", to="Minou")
    desk.until(lambda: "(13)" in desk.root.title())
    pairs.update(colour_pairs(desk, desk.root))
    desk.click_on("Cat5")
    people[5].leave()                       # offline, and selected or not
    people[6].leave()
    desk.type("a draft")
    desk.until(lambda: len(desk.chat.people) == 12)
    desk.root.update()
    pairs.update(colour_pairs(desk, desk.root))
    server.stop()
    desk.until(lambda: "Trying again" in desk.banner())
    pairs.update(colour_pairs(desk, desk.root))
    colours = {colour for pair in pairs for colour in pair}
    assert len(pairs) > 30 and set(client.NAME_COLOURS[theme == "dark"]) <= colours
    weak = {pair: round(contrast(*pair), 2) for pair in pairs if contrast(*pair) < 4.5}
    assert weak == {}


def test_contrast_is_computed_as_the_standard_says():
    assert round(contrast("#FFFFFF", "#000000"), 2) == 21
    assert round(contrast("#777777", "#FFFFFF"), 2) == 4.48


# --- closing

def our_threads():
    return [thread for thread in threading.enumerate()
            if thread.name in ("receive", "send")]


@pytest.mark.parametrize("state", ["online", "waiting", "greeting", "offline"])
def test_closing_leaves_nothing_behind(open_window, server, odd_server, state):
    port = {"online": server.port, "waiting": free_port(),
            "greeting": odd_server(b""), "offline": odd_server(b"no\n")}[state]
    desk = open_window("--port", port, "--name", "Minou")
    desk.until(lambda: desk.chat.status["state"] == state and desk.chat.status["text"])
    desk.window.quit()
    desk.window.quit()                      # a second click on the button
    desk.root.mainloop()                    # until it is closed
    wait_until(lambda: not our_threads(), limit=3, what=f"for {our_threads()}")


# --- from outside: real processes, keys and clicks

@from_outside
def test_a_real_click_opens_a_conversation(minou, join):
    join("Tigrou")
    minou.until(lambda: minou.chat.count == 2 and not minou.window.changed)
    minou.root.lift()
    minou.root.update()
    top = next(y for y, name in minou.window.sidebar.rows if name == "Tigrou")
    xdotool("mousemove", minou.people.winfo_rootx() + 80,
            minou.people.winfo_rooty() + top + 10, "click", 1)
    minou.until(lambda: minou.chat.current.name == "Tigrou")
    minou.types_into(minou.box)
    xdotool("type", "Hello")
    minou.until(lambda: minou.draft() == "Hello")



@pytest.fixture
def open_client(server):
    """A function that opens the client in a process of its own, on this server."""
    with contextlib.ExitStack() as stack:
        yield lambda *options, **environment: stack.enter_context(
            ClientWindow("--port", server.port, *options, **environment))


class ServerWithClients(ServerProcess):
    """A server that opens so many clients, in a process group of its own."""

    def __init__(self, count):
        super().__init__("--clients", count)

    def open_process(self, env):
        return subprocess.Popen(self.command, env=env, stdin=self.stdin,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)

    def close(self, failed=False):
        try:
            if not failed and self.process.poll() is None:
                self.stop()
                wait_until(lambda: not self.running(), what="for its clients")
        finally:
            # Clients that live on have its pipes open: reading those would never end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        super().close(failed)

    def running(self):
        """The processes of the group, itself included. A zombie has ended."""
        listing = subprocess.run(["ps", "-e", "-o", "pid=,pgid=,stat="], text=True,
                                 stdout=subprocess.PIPE, check=True).stdout
        rows = [line.split() for line in listing.splitlines()]
        return [pid for pid, group, state in rows
                if int(group) == self.pid and not state.startswith("Z")]


def overlap(one, other):
    x1, y1, wide1, high1 = one
    x2, y2, wide2, high2 = other
    return (x1 < x2 + wide2 and x2 < x1 + wide1 and y1 < y2 + high2
            and y2 < y1 + high1)


@from_outside
def test_a_server_with_two_windows_that_talk():
    with ServerWithClients(2) as server:
        minou = RemoteWindow.named("ChattyCat — Minou")
        tigrou = RemoteWindow.named("ChattyCat — Tigrou")
        assert not overlap(minou.box, tigrou.box), (minou.box, tigrou.box)
        if hasattr(os, "sched_getaffinity"):    # the windows may use all processors
            windows = {int(pid) for pid in server.running()} - {server.pid}
            assert len(windows) >= 2 and all(
                os.sched_getaffinity(pid) == os.sched_getaffinity(0) for pid in windows)
        with Person(server, "Félix") as felix:
            minou.type("Hello Tigrou, ça va? 小猫 😀\n")
            felix.expect("chat", from_="Minou", text="Hello Tigrou, ça va? 小猫 😀")
            assert "●\tMinou" in tigrou.wait_for_text("Hello Tigrou, ça va? 小猫 😀")
            # read() has clicked into the messages. A click, and one can type again.
            tigrou.click(-200, -50)
            tigrou.type("Very well!\n")
            felix.expect("chat", from_="Tigrou", text="Very well!")
            minou.wait_for_text("Very well!")
            tigrou.type("/msg Minou Only for you\n")
            minou.wait_for_title("(1) ChattyCat — Minou")
            minou.click(-200, -50)
            minou.type("/msg Tigrou\n")
            minou.wait_for_title("ChattyCat — Minou")
            minou.wait_for_text("Only for you")
            assert "Only for you" not in str(until_now(felix))
        server.stop()
        wait_until(lambda: minou.gone() and tigrou.gone(), what="for its clients")
        wait_until(lambda: not server.running(), what="for its clients")


@from_outside
def test_killing_the_group_leaves_nobody():
    """What VS Code's Stop does."""
    with ServerWithClients(2) as server:
        for name in ("Minou", "Tigrou"):
            RemoteWindow.named(f"ChattyCat — {name}")
        assert len(server.running()) == 3
        os.killpg(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running(), limit=2)
    assert server.process.returncode == -signal.SIGKILL
    assert visible_windows() == set()


@from_outside
@pytest.mark.parametrize("spot", ["1/3", "11/12", "0/0", "7/2", "cat", "9" * 99 + "/1"])
def test_a_place_on_the_screen(open_client, spot):
    window = open_client(CHATTYCAT_PLACE=spot)
    x, y, width, height = window.box
    wide, high = map(int, xdotool("getdisplaygeometry").split())
    assert width >= 550 and height >= 390, window.box
    assert 0 <= x and x + width <= wide and 0 <= y and y + height <= high, window.box
    close_well(window)


def test_no_screen_is_a_sentence(server, tmp_path):
    if client.tk is None or sys.platform != "linux":
        pytest.skip("only X11 can be told that there is no screen")
    command = [sys.executable, client.__file__, "--port", str(server.port)]
    done = subprocess.run(
        [*command, "--name", "Minou"],
        env={**os.environ, "DISPLAY": ":no-screen", "CHATTYCAT_HOME": str(tmp_path)},
        input="", text=True, timeout=20, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = done.stdout.split("\n")[0]
    assert "No window can be opened here" in first and "in this terminal" in first
    assert "You are in as Minou" in done.stdout
    assert done.returncode == 0 and done.stderr == ""


@from_outside
def test_login_by_keyboard_with_emoji(open_client, join):
    tigrou = join("Tigrou")
    window = open_client()
    window.type("Mi😀nouu")                 # the entry takes no emoji
    window.key("BackSpace", "Return")
    tigrou.expect("joined", name="Minou")
    window.wait_for_title("ChattyCat — Minou")
    window.type("one 😀😀")
    window.key("BackSpace", "shift+Return")
    window.type("two\n")
    text = tigrou.expect("chat", from_="Minou")["text"]
    assert text.startswith("one 😀") and text.endswith("\ntwo")
    close_well(window)


def close_well(window):
    """Close it by the keyboard, and see how it ends. Return how long that took."""
    seconds = window.close()
    assert window.process.returncode == 0 and window.said() == ""
    assert seconds < 1
    return seconds


def test_quit_as_a_command_ends_without_a_word(open_client, join):
    tigrou = join("Tigrou")
    window = open_client("--name", "Minou")
    tigrou.expect("joined", name="Minou")
    window.wait_for_title("ChattyCat — Minou")
    window.type("/quit\n")
    tigrou.expect("left", name="Minou", reason="bye")
    assert window.process.wait(5) == 0 and window.said() == ""


# --- what a student stumbled over

def click(desk, button):
    """A click with the mouse, as Tk sees it."""
    desk.root.update()
    middle = {"x": button.winfo_width() // 2, "y": button.winfo_height() // 2}
    button.event_generate("<Enter>", **middle)
    button.event_generate("<Button-1>", **middle)
    button.event_generate("<ButtonRelease-1>", **middle)
    desk.root.update()


def test_after_a_click_on_a_button_one_can_type_on(minou):
    buttons = [widget for widget in minou.window.header.frame.winfo_children()
               if widget.winfo_class() == "TButton"]
    help_button = next(each for each in buttons if each.cget("text") == "Help")
    help_button.focus_set()             # as some systems do at a click
    click(minou, help_button)
    minou.until(lambda: minou.window.page is not None)
    minou.window.page.window.destroy()
    minou.until(lambda: minou.root.focus_lastfor() is minou.box)


def test_enter_tries_the_new_name_while_the_old_one_waits(open_window, start_server):
    port = free_port()
    desk = open_window("--port", port, "--name", "Minou")
    desk.until(lambda: desk.chat.status["state"] == "waiting")
    desk.card.name.delete(0, "end")
    desk.card.name.insert(0, "Tigrou")
    desk.press(desk.card.name, "<Return>")
    start_server("--port", port)
    desk.until(desk.inside)
    assert desk.chat.me == "Tigrou"


def test_a_server_started_here_late_does_not_wait_for_long(open_window, start_server):
    """After many attempts the pause is 30 s; nobody should wait for that one."""
    first = start_server()
    desk = open_window("--port", first.port, "--name", "Minou")
    desk.until(desk.inside)
    first.kill()
    desk.until(lambda: desk.chat.status["state"] == "waiting")
    desk.chat.connection.attempt = 6
    desk.chat.start_server()
    desk.until(lambda: desk.chat.status["state"] == "online", limit=8)


def test_nobody_looks_present_while_we_are_cut_off(open_window, start_server, join):
    server = start_server()
    join("Tigrou", server)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(lambda: desk.chat.count == 2)
    look = desk.window.look
    green = str(client.disc(look, look["ok"], look["sidebar"], 9))

    def dots():
        return [item for item in desk.people.find_all()
                if desk.people.type(item) == "image"
                and desk.people.itemcget(item, "image") == green]

    desk.until(lambda: len(dots()) == 2)
    server.stop()
    desk.until(lambda: dots() == [])


def test_the_title_of_the_login_card_names_nobody(open_window, start_server):
    server = start_server(console=True)
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    assert desk.root.title() == "ChattyCat — Minou"
    server.type_line("/kick Minou")
    desk.until(lambda: not desk.inside())
    assert desk.root.title() == "ChattyCat"


def test_a_name_from_the_command_line_is_no_last_login(open_window, server, tmp_path):
    """`--clients 2` would leave the name of a cat in everybody's login card."""
    desk = open_window("--port", server.port, "--name", "Minou")
    desk.until(desk.inside)
    assert not (tmp_path / "last_login.json").exists()
