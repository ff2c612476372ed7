"""Pictures of every state of the real program, for looking at them.

    python3 tests/screenshots.py [FOLDER]       light and dark, 96 and 192 dpi
    python3 tests/screenshots.py --dpi 192      as on a screen twice as dense alone
    python3 tests/screenshots.py --readme       the pictures of README.md, made anew

A real server, real client windows, and people who come by socket, on a screen of its
own (Xvfb). The pictures are taken by `import`, a program of ImageMagick.
"""
import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from bad_network import BadNetwork
from parcels import send_file
from people import Person, ServerProcess
from screen import (CLIENT, ClientWindow, RemoteWindow, visible_windows, wait_until,
                    xdotool)

PICTURES = pathlib.Path(__file__).resolve().parent / "pictures"
LONG = ("Thank you Félix 😀 I had forgotten that one message can come in two pieces. "
        "This long line shows how the text wraps under the name, so a reader can "
        "follow who is talking.")


class PrivateScreen:
    """A screen that nobody sees, with a window manager, for as long as the `with`."""

    def __init__(self, width=1280, height=1024, dpi=96):
        self.size, self.dpi = f"{width}x{height}x24", dpi

    def __enter__(self):
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # -displayfd 1: it picks a free number and prints it when it can be used.
        self.server = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-noreset", "-nolisten", "tcp", "-dpi",
             str(self.dpi), "-screen", "0", self.size], **quiet)
        self.before = os.environ.get("DISPLAY")
        os.environ["DISPLAY"] = ":" + self.server.stdout.readline().decode().strip()
        # Without a window manager no window gets the keyboard.
        self.manager = subprocess.Popen(["openbox", "--startup", "echo ready"], **quiet)
        while self.manager.stdout.readline() not in (b"ready\n", b""):
            pass                            # before that it may complain of its menus
        return self

    def __exit__(self, kind, error, trace):
        for process in (self.manager, self.server):
            process.terminate()
            process.wait()
        os.environ.pop("DISPLAY")
        if self.before is not None:
            os.environ["DISPLAY"] = self.before


class Studio:
    """Takes the pictures, in one theme."""

    def __init__(self, folder, theme, scale):
        self.folder, self.theme, self.scale = folder, theme, scale

    def client(self, *options, **environment):
        return ClientWindow("--theme", self.theme, *options, **environment)

    def take(self, window, name, from_screen=False):
        """Take a picture of a window, as soon as nothing moves in it any more.

        `from_screen`: with what lies over it, since a menu is a window of its own,
        and goes beyond the edge.
        """
        path = self.folder / f"{name}_{self.theme}.png"
        settle(window.number)
        words = [window.number]
        if from_screen:
            x, y, width, height = window.box
            words = ["root", "-crop", f"{width + 150}x{height}+{x}+{y - 40}", "+repage"]
        subprocess.run(["import", "-window", *words, path], check=True)
        print(path, flush=True)


def settle(window):
    """Wait until a window has looked the same for a while (but for 3 s at most)."""
    same, last = 0, b""
    end = time.monotonic() + 3
    while same < 4 and time.monotonic() < end:
        time.sleep(0.08)
        now = subprocess.run(["import", "-window", window, "-depth", "8", "rgb:-"],
                             check=True, stdout=subprocess.PIPE).stdout
        same, last = (same + 1 if now == last else 0), now


def free_port():
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def friends(server, *names):
    """Let these people come in; they leave at the end."""
    people = [Person(server, name) for name in names]
    yield people
    for person in people:
        person.leave()


def say(person, text, **to):
    """Say it, and wait until it has arrived, so that all comes in its order."""
    ref = str(time.monotonic_ns())
    person.send({"type": "chat", "text": text, "ref": ref, **to})
    while person.read().get("ref") != ref:
        pass


def everybody_talks(tigrou, felix, cat, long):
    say(tigrou, "Hello everyone! Did you find the lesson on sockets? 🎉")
    say(tigrou, "It starts with connect(), then a loop that reads until the server "
               "says goodbye.")
    say(felix, "Yes, it is all here: https://docs.python.org/3/howto/sockets.html and "
              "it is very clear 👍")
    say(long, LONG)
    say(cat, "你好! Nice picture. こんにちは · Здравствуйте · مرحبا · שלום")
    say(long, "def receive(sock):\n    while data := sock.recv(65536):\n"
             "        yield data")


# --- the scenes

def scene_login(studio):
    with studio.client() as window:
        studio.take(window, "login")
        # The focus must be seen, wherever it is.
        for where in ("password", "tls", "remember", "connect"):
            window.key("Tab")
            studio.take(window, f"login_focus_on_{where}")
        window.key(*["shift+Tab"] * 4)
        window.type("not a name!\n")
        studio.take(window, "login_bad_name")


def scene_no_server(studio):
    with studio.client("--name", "Minou", "--port", free_port()) as window:
        wait_until(lambda: window.title)
        time.sleep(0.5)                 # the refusal comes at once
        studio.take(window, "login_waiting")
        window.resize(1, 1)             # as small as the window lets itself be made
        studio.take(window, "login_waiting_narrow")


def scene_connecting(studio):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with studio.client("--name", "Minou", "--port", port) as window:
            studio.take(window, "login_connecting")
            silent.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            studio.take(window, "login_no_chattycat")


def scene_name_taken(studio):
    with ServerProcess() as server, friends(server, "Minou"):
        with studio.client("--name", "Minou", "--port", server.port) as window:
            studio.take(window, "login_name_taken")


def scene_tls(studio):
    """A server that is met for the first time; then another one in its place."""
    with ServerProcess("--tls") as server, tempfile.TemporaryDirectory() as home:
        options = ("--name", "Minou", "--port", server.port, "--tls")
        with studio.client(*options, CHATTYCAT_HOME=home) as window:
            studio.take(window, "login_unknown_server")
            window.resize(1, 1)
            studio.take(window, "login_unknown_server_narrow")
            window.key("shift+Tab", "space")        # from “Back” to “Trust this server”
            window.wait_for_title("ChattyCat — Minou")
            studio.take(window, "chat_by_tls")
        here = f"127.0.0.1:{server.port}"
        known = pathlib.Path(home, "known_servers.json")
        known.write_text('{"%s": "%s"}' % (here, "0123456789ABCDEF" * 4))
        with studio.client(*options, CHATTYCAT_HOME=home) as window:
            studio.take(window, "login_another_fingerprint")
            window.resize(1, 1)
            studio.take(window, "login_another_fingerprint_narrow")
        with studio.client(*options[:-1]) as window:
            studio.take(window, "login_without_tls")


def scene_password(studio):
    """The server wants a password, and gets a wrong one."""
    os.environ["CHATTYCAT_PASSWORD"] = "whiskers"
    with ServerProcess() as server:
        del os.environ["CHATTYCAT_PASSWORD"]
        with studio.client("--name", "Minou", "--port", server.port) as window:
            studio.take(window, "login_password_wanted")
            window.type("wiskers\n")
            studio.take(window, "login_password_wrong")
            window.type("whiskers\n")
            window.wait_for_title("ChattyCat — Minou")


def scene_empty_room(studio):
    with ServerProcess() as server:
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            studio.take(window, "chat_empty")


def scene_chat(studio):
    with ServerProcess(console=True) as server, friends(
            server, "Tigrou", "Félix.le.Chat", "小猫", "AVeryLongUserName_20",
            "Garfield", "Salem", "Duchesse") as people:
        tigrou, felix, cat, long, garfield, salem, duchesse = people
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            everybody_talks(*people[:4])
            server.type_line("/say The lesson begins in five minutes.")
            window.type("Here it is:\n")
            for _ in range(2):
                say(tigrou, "Psst", to="Minou")
            for number in range(12):
                say(garfield, f"Lasagna {number}", to="Minou")
            for number in range(120):
                say(salem, f"{number} mice", to="Minou")
            say(duchesse, "I have to go. Bye!", to="Minou")
            window.wait_for_title("(135) ChattyCat — Minou")
            duchesse.leave()
            studio.take(window, "chat")
            keyboard_focus(studio, window)
            private(studio, window, tigrou)
            gone(studio, window, server)
            help_and_mistakes(studio, window)


def keyboard_focus(studio, window):
    """Where the keyboard is must be seen: on the people, and on a button."""
    window.key("shift+Tab", "shift+Tab")
    studio.take(window, "chat_focus_on_button")
    window.key("shift+Tab", "shift+Tab")
    studio.take(window, "chat_focus_on_people")
    window.click(-300, -70)             # back to the composer


def private(studio, window, tigrou):
    window.type("/msg Tigrou Hello Tigrou 🐱\n")
    say(tigrou, "Nobody else can read this.", to="Minou")
    studio.take(window, "private")


def gone(studio, window, server):
    """Lines that fail, and lines that have no receipt yet."""
    window.type("/msg Duchesse Are you there?\n")
    settle(window.number)               # its answer has to come first
    server.freeze()
    window.type("/msg Duchesse This one is still on its way.\n")
    studio.take(window, "private_failed_and_grey")
    server.process.send_signal(signal.SIGCONT)


def help_and_mistakes(studio, window):
    window.type("/everyone\n/help\n/nonsense\n")
    studio.take(window, "help")
    window.key("ctrl+a", "BackSpace")   # empty the box
    for line in range(4):
        window.type(f"line {line} of a long message")
        window.key("shift+Return")
    studio.take(window, "chat_long_draft")
    window.resize(*(round(side * studio.scale) for side in (560, 400)))
    studio.take(window, "chat_narrow")


def scene_news(studio):
    """What came while one looked elsewhere, and while one read further up."""
    with ServerProcess() as server, friends(
            server, "Tigrou", "Félix.le.Chat", "Garfield") as people:
        tigrou, felix, garfield = people
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            for number in range(24):
                say(tigrou, f"It is {number} o'clock, and all is well.")
            with studio.client("--name", "Salem", "--port", server.port) as other:
                other.wait_for_title("ChattyCat — Salem")
                other.focus()
                xdotool("windowmove", other.number, round(1200 * studio.scale), 0)
                say(felix, "The docs: https://docs.python.org/3/howto/sockets.html.")
                say(garfield, "@Minou can you send me the picture of the cat? I ❤️ 🍝")
                say(garfield, "Psst, Minou!", to="Minou")
                window.wait_for_title("(3) ChattyCat — Minou")
                studio.take(window, "news_unread")
            window.focus()
            window.wait_for_title("(1) ChattyCat — Minou")
            studio.take(window, "news_new_messages")
            window.key("Prior")
            for word in ("One", "Two", "Three"):
                say(tigrou, word)
            studio.take(window, "news_further_up")
            window.key("alt+Down")          # Garfield, where nobody has been yet
            studio.take(window, "news_private")
            window.key("alt+1")
            window.type("Ti")
            window.key("Tab")
            studio.take(window, "news_completed")


def scene_wire(studio):
    """The lines themselves: F12."""
    with ServerProcess() as server, friends(server, "Tigrou") as (tigrou,):
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            window.type("Hello\n")
            say(tigrou, "Hello Minou! " + LONG)
            window.key("F12")
            studio.take(window, "wire")
            window.resize(*(round(side * studio.scale) for side in (560, 400)))
            studio.take(window, "wire_narrow")


def scene_toast(studio):
    """What one sees of it while another window is looked at."""
    with ServerProcess() as server, friends(server, "Tigrou") as (tigrou,):
        options = ("--port", server.port, "--name")
        with studio.client(*options, "Minou", PATH="/nowhere") as window, \
                studio.client(*options, "Salem") as other:
            other.wait_for_title("ChattyCat — Salem")
            other.focus()
            say(tigrou, "Minou, are you there? " + LONG, to="Minou")
            toast, = wait_until(lambda: visible_windows("Toast"))
            studio.take(RemoteWindow(toast), "toast")
            window.focus()


def scene_terminal(studio):
    """Under curses; it has no themes, so in the dark one only."""
    with ServerProcess() as server, friends(server, "Tigrou", "Félix") as people:
        if studio.theme == "light":
            return
        for size in ("92x24", "50x12", "20x4"):
            with terminal("--port", server.port, "--name", "Minou",
                          size=size) as window:
                everybody_talks(*people, *people)
                say(people[0], "Psst", to="Minou")
                studio.take(window, f"terminal_{size}")


def scene_pages(studio):
    """The help and the about page."""
    with ServerProcess() as server:
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            window.key("F1")
            studio.take(RemoteWindow.named("ChattyCat — help"), "page_help")
            xdotool("key", "End")
            studio.take(RemoteWindow.named("ChattyCat — help"), "page_help_end")
            xdotool("key", "Escape")
            window.choose(9)
            studio.take(RemoteWindow.named("About ChattyCat"), "page_about")


def scene_banner(studio):
    with ServerProcess() as server, friends(server, "Tigrou", "Félix", "小猫",
                                            "Garfield") as people:
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            everybody_talks(*people)
            settle(window.number)
            server.stop()
            studio.take(window, "banner_server_shut_down")
            window.type("This is kept until the server is back.\n")
            window.resize(*(round(side * studio.scale) for side in (560, 400)))
            studio.take(window, "banner_narrow")


def scene_connection_lost(studio):
    with ServerProcess() as server:
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            server.freeze()
            window.type("Does this arrive?\n")
            settle(window.number)
            server.kill()
            studio.take(window, "banner_connection_lost")


def scene_coming_back(studio):
    """Cut off, with lines that are kept; and back on a server that remembers."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        options = "--history", pathlib.Path(folder) / "history"
        first = stack.enter_context(ServerProcess(*options))
        tigrou = stack.enter_context(Person(first, "Tigrou"))
        window = stack.enter_context(
            studio.client("--name", "Minou", "--port", first.port))
        window.wait_for_title("ChattyCat — Minou")
        say(tigrou, "Hello Minou!")
        window.type("Hello Tigrou!\n")
        say(tigrou, "Psst", to="Minou")
        settle(window.number)
        secret = tigrou.welcome["session"]
        first.kill()
        window.type("This one is kept.\n")
        window.type("And so is this.\n/msg Tigrou And this, for you alone.\n")
        studio.take(window, "cut_off_private_kept")
        window.type("/everyone\n")
        studio.take(window, "cut_off_kept")
        second = stack.enter_context(ServerProcess(*options, "--port", first.port))
        tigrou = stack.enter_context(Person(second))
        tigrou.hello("Tigrou", session=secret)
        window.type("connect\n")
        studio.take(window, "back_again")


def scene_no_memory(studio):
    """Lines of which nobody knows whether they arrived."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(ServerProcess())
        window = stack.enter_context(
            studio.client("--name", "Minou", "--port", first.port))
        window.wait_for_title("ChattyCat — Minou")
        window.type("This one has arrived.\n")
        settle(window.number)
        first.freeze()
        window.type("Does this arrive?\n")
        window.type("And this?\n")
        settle(window.number)
        first.kill()
        window.type("This was typed while there was no server.\n")
        second = stack.enter_context(ServerProcess("--port", first.port))
        tigrou = stack.enter_context(Person(second, "Tigrou"))
        window.type("connect\n")
        say(tigrou, "Is anybody back?")
        studio.take(window, "unknown_lines")
        window.type("/again\n")
        studio.take(window, "unknown_lines_sent_again")


def scene_menu(studio):
    with ServerProcess() as server:
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            window.key("shift+Tab", "shift+Tab", "space")
            studio.take(window, "menu_open", from_screen=True)
            window.key("Escape")
            window.choose(1)
            studio.take(window, "menu_log_on")      # and the focus on its button
            window.key("space", "Down")
            studio.take(window, "menu_open_ticked", from_screen=True)


def scene_kicked(studio):
    with ServerProcess(console=True) as server:
        with studio.client("--name", "Minou", "--port", server.port) as window:
            window.wait_for_title("ChattyCat — Minou")
            server.type_line("/kick Minou")
            studio.take(window, "login_kicked")


def scene_files(studio):
    """Cards: a picture, files of others and of ours, on the way, refused, cancelled."""
    with contextlib.ExitStack() as stack:
        home = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ServerProcess("--max-file", "1"))
        tigrou, felix = stack.enter_context(friends(server, "Tigrou", "Félix"))
        slow = stack.enter_context(BadNetwork(
            (server.host, server.port), split=True, seed=1))
        window = stack.enter_context(studio.client(
            "--name", "Minou", "--port", slow.port, HOME=str(home)))
        window.wait_for_title("ChattyCat — Minou")
        say(tigrou, "Here is our cat, and what she has written:")
        picture = (PICTURES / "talk.png").read_bytes()
        for person, name, data in (
                (tigrou, "two windows.png", picture),
                (tigrou, "her first essay.txt", b"miaow\n" * 2000),
                (felix, "a" * 200 + ".zip", os.urandom(300_000)),
                (felix, "broken.png", picture[:5000])):
            send_file(person, data, name, skip=("joined", "chat", "file"))
        studio.take(window, "files")
        window.type("/save 2\n")
        small, large = home / "notes.txt", home / "holiday film.mp4"
        small.write_bytes(b"sockets\n" * 100)
        large.write_bytes(os.urandom(2**20))
        window.type(f"/file {small}\n")
        settle(window.number)
        small.write_bytes(b"y" * (2**20 + 1))
        window.type(f"/file {small}\n")
        studio.take(window, "files_saved_and_sent")
        window.key("ctrl+a", "BackSpace")   # what was refused stands in the box yet
        window.type(f"/file {large}\n")
        time.sleep(2.5)                 # a quarter has arrived by then
        studio.take(window, "files_on_the_way")
        window.type("/cancel 6\n")
        studio.take(window, "files_cancelled")
        window.resize(*(round(side * studio.scale) for side in (560, 400)))
        studio.take(window, "files_narrow")


SCENES = (scene_login, scene_no_server, scene_connecting, scene_name_taken, scene_tls,
          scene_password,
          scene_empty_room, scene_chat, scene_banner, scene_connection_lost,
          scene_coming_back, scene_no_memory, scene_files, scene_menu, scene_kicked,
          scene_news, scene_pages, scene_wire, scene_toast,
          scene_terminal)


# --- the pictures of README.md

def readme_pictures():
    """Two windows that talk; what is new, in the dark; the wire; the terminal."""
    PICTURES.mkdir(exist_ok=True)
    with PrivateScreen():
        for take in (two_windows, dark_window, wire_window, terminal_window):
            with ServerProcess() as server:
                take(server)


def two_windows(server):
    with contextlib.ExitStack() as stack:
        felix, cat = stack.enter_context(friends(server, "Félix", "小猫"))
        windows = []
        for name in ("Minou", "Tigrou"):
            windows.append(stack.enter_context(ClientWindow(
                "--theme", "light", "--port", server.port, "--name", name)))
            windows[-1].wait_for_title(f"ChattyCat — {name}")
            windows[-1].resize(600, 460)
        talk(*windows, felix, cat)
        save("talk", *windows)


def talk(minou, tigrou, felix, cat):
    minou.type("Who has read the lesson on sockets?\n")
    tigrou.type("I have. TCP is a stream: what is sent as one line may come "
                "in two pieces.\n")
    say(felix, "Or three lines in one piece!")
    say(cat, "Shall we try it with nc?", to="Minou")
    minou.type("Then how does the other side know where a line ends? 🐱\n")
    tigrou.type("By its newline ")


def dark_window(server):
    with friends(server, "Félix", "小猫", "Tigrou", "Garfield") as people:
        felix, cat, tigrou, garfield = people
        with ClientWindow("--theme", "dark", "--port", server.port, "--name",
                          "Duchesse") as window:
            window.wait_for_title("ChattyCat — Duchesse")
            window.resize(860, 560)
            say(felix, "It is all here: https://docs.python.org/3/howto/sockets.html 👍")
            send_file(tigrou, (PICTURES / "talk.png").read_bytes(), "two windows.png",
                      skip=("joined", "left", "chat"))
            settle(window.number)
            with ClientWindow("--port", server.port, "--name", "Salem") as other:
                other.wait_for_title("ChattyCat — Salem")
                other.focus()
                xdotool("windowmove", other.number, 1270, 0)
                say(garfield, "@Duchesse how did you make that picture? I ❤️ it")
                for word in ("Psst", "Are you there?"):
                    say(cat, word, to="Duchesse")
                window.wait_for_title("(3) ChattyCat — Duchesse")
                window.focus()
                window.wait_for_title("(2) ChattyCat — Duchesse")
                save("dark", window)


def wire_window(server):
    with friends(server, "Tigrou") as (tigrou,):
        with ClientWindow("--theme", "light", "--port", server.port, "--name",
                          "Luna") as window:
            window.wait_for_title("ChattyCat — Luna")
            window.resize(860, 560)
            window.key("F12")
            window.type("Where does a line end?\n")
            say(tigrou, "At its newline: look at the wire, Luna!")
            save("wire", window)


def terminal_window(server):
    """The same chat under curses, in a terminal of X11's."""
    with friends(server, "Félix", "Tigrou") as (felix, tigrou):
        with terminal("--port", server.port, "--name", "Salem") as window:
            say(felix, "No window here: I have come by ssh.")
            say(tigrou, "Salem, have you seen https://en.wikipedia.org/wiki/Curses_"
                        "(programming_library)?")
            say(tigrou, "A library from 1980, and it still draws all of this.")
            xdotool("type", "--window", window.number, "It only sends what has changed")
            save("terminal", window)


@contextlib.contextmanager
def terminal(*options, size="92x22"):
    """A terminal with the client in it, as a window that one can look at."""
    before = visible_windows("XTerm")
    with tempfile.TemporaryDirectory(prefix="chattycat-") as home:
        process = subprocess.Popen(
            ["xterm", "-u8", "-tn", "xterm-256color", "-fa", "DejaVu Sans Mono", "-fs",
             "11", "-bg", "#191D23", "-fg", "#E7EAEE", "-geometry", size, "-T",
             "ChattyCat by ssh", "-e", sys.executable, CLIENT,
             "--terminal", *map(str, options)],
            env={**os.environ, "CHATTYCAT_HOME": home, "LC_ALL": "C.UTF-8"},
            stderr=subprocess.DEVNULL)
        try:
            number, = wait_until(lambda: visible_windows("XTerm") - before)
            settle(number)
            yield RemoteWindow(number)
        finally:
            process.terminate()
            process.wait()


def save(name, *windows):
    """One picture of them side by side, with the frames of the window manager."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="chattycat-"))
    parts, path = [], PICTURES / f"{name}.png"
    for window in windows:
        window.focus()
        settle(window.number)
        parts.append(folder / f"{window.number}.png")
        subprocess.run(["import", "-frame", "-window", window.number, parts[-1]],
                       check=True)
    # 64 colours are enough for a picture of a window, and a third of the bytes.
    subprocess.run(["convert", *parts, "-background", "white", "-gravity", "east",
                    "-splice", "12x0", "+append", "-gravity", "east", "-chop", "12x0",
                    "+dither", "-colors", "64", "-strip", path], check=True)
    shutil.rmtree(folder)
    print(f"{path} ({path.stat().st_size:,} bytes)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--dpi", type=int, help="only as on a screen of this density")
    parser.add_argument("--only", default="", metavar="WORD",
                        help="only the scenes whose name has this word in it")
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    for program in ("import", "convert", "Xvfb", "openbox", "xdotool", "xterm"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing; on Debian and Ubuntu: sudo apt install "
                     "imagemagick xvfb openbox xdotool xterm")
    if options.readme:
        readme_pictures()
        return
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="chattycat-"))
    folder.mkdir(parents=True, exist_ok=True)
    for dpi in (options.dpi,) if options.dpi else (96, 192):
        place, scale = folder / f"{dpi}_dpi", dpi / 96
        place.mkdir(exist_ok=True)
        with PrivateScreen(round(1280 * scale), round(1024 * scale), dpi):
            for theme in ("light", "dark"):
                for scene in SCENES:
                    if options.only in scene.__name__:
                        scene(Studio(place, theme, scale))
    print(f"The pictures are in {folder}.")


if __name__ == "__main__":
    main()
