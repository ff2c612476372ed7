"""Files in the plain lines: /file, /save, /cancel, and what is said of them.

A real client, on a pty or through pipes, and a real server; who is on the other side
speaks the protocol by hand (parcels.py). What a hostile server does to the client
stands in test_hostile_files.py.
"""
import contextlib
import itertools
import os
import pathlib
import re
import shlex
import shutil
import signal

import pytest

from bad_network import BadNetwork
from parcels import digest, fetch, some_bytes, send_file
from people import COMINGS
from screen import wait_until
from test_connection import TIME, odd
from test_plain_lines import POSIX, STAMP, WAYS, piped, plain
from test_reconnecting import logged
from test_typed_while_cut_off import HASTY, QUICK_CLOCK
from test_window import until_now

FIXTURES = (odd, plain)
ONE_EACH = pytest.mark.parametrize("tls, terminal", [
    ("tcp", False), pytest.param("tls", True, marks=POSIX)], indirect=["tls"],
    ids=["pipe", "tls-pty"])
BEFORE = (*COMINGS, "chat")         # for `skip`: the file is what we wait for
TALK = (*COMINGS, "file")
KIB, MIB = 2**10, 2**20
LIMITS = {"line": 65536, "text": 4000, "file": MIB}
LINES = itertools.count(1)

# As who is no administrator. (root may read and write everything; without the two
# capabilities by which it may, it is asked as anybody else is.)
AS_ANYBODY = "-c", """
import ctypes, os, sys
if sys.platform == "linux":
    for capability in (1, 2):           # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)        # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable] + sys.argv[1:])
"""

# No file of it may become longer than 100,000 bytes: to who writes, a full disk.
FULL_DISK = "-c", """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
os.execv(sys.executable, [sys.executable] + sys.argv[1:])
"""


@pytest.fixture
def home(tmp_path):
    """The home of who uses the client. No half file may be left there."""
    folder = tmp_path / "home"
    folder.mkdir()
    yield folder
    assert not list(folder.rglob("*.part"))


@pytest.fixture
def enter(home, plain):
    """A function that starts a client which lives there, and waits until it is in."""
    def come(server, *options, name="Minou", **how):
        trust = ("--tls", "--fingerprint", server.fingerprint()) if server.tls else ()
        how = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CONFIG_HOME": None,
               **how}
        client = plain(server, "--name", name, *trust, *options, **how)
        client.wait_for(f"You are in as {name}; ")
        return client
    return come


# ---------------------------------------------------------------------- what is printed

def sending(client, name):
    """The number of a file, when the client says that it sends it."""
    return client.wait_for(rf"^{STAMP}\* (\d+): Sending {re.escape(name)} \(")[1]


def offered(client, name, who="Tigrou", size=r"[\d.]+ [KMGT]?i?(B|bytes?)"):
    """The number of a file that somebody has sent."""
    return client.wait_for(rf"^{STAMP}{who}: {re.escape(name)} \({size}\) "
                           r"— /save (?P<number>\d+) saves it$")["number"]


def saved(client, number):
    """The path of a file, when the client says that it is saved."""
    return pathlib.Path(client.wait_for(
        rf"^{STAMP}\* {number}: .* is saved as (.+)$", 20)[1])


def refusal(client, *words):
    """The sentence, when the client says that a file cannot be sent or saved.

    It has these words in it, and is neither about its progress nor its beginning.
    """
    seen = "".join(f"(?=.*{re.escape(word)})" for word in words)
    return client.wait_for(rf"^{STAMP}\* (?!.*(Sending|Saving|\d %)){seen}(.+)$")[2]


def still_talks(client, person, skip=TALK):
    """Whatever became of a file, the chat goes on."""
    text = f"Line {next(LINES)} is for everybody."
    client.type_line(text)
    person.expect("chat", skip=skip, text=text, from_="Minou")
    client.wait_for(f"^{STAMP}Minou: {text}$")
    return text


def says_something(client, command):
    """A command is answered with a sentence, whatever that is."""
    before = len(client.printed)
    client.type_line(command)
    wait_until(lambda: len(client.printed) > before, what=f"behind {command[:80]!r}")
    assert client.printed[-1].startswith("* ")


def make(folder, name, data=b"Meow!"):
    path = folder / name
    path.write_bytes(data)
    return path


def arrives(person, name, data, skip=BEFORE):
    """Somebody gets this file; return its `file` line."""
    line = person.expect("file", skip=skip, limit=20, name=name, size=len(data),
                         sha256=digest(data))
    assert fetch(person, line, skip=BEFORE) == data
    return line


def bytes_in(folder):
    found = 0
    for path in pathlib.Path(folder).rglob("*"):
        with contextlib.suppress(FileNotFoundError):    # it has its name just now
            found += path.stat().st_size if path.is_file() else 0
    return found


@contextlib.contextmanager
def slow(server, delay=0, **how):
    """A network that lets some 64 KiB pass every `delay` ms, in each direction."""
    with BadNetwork((server.host, server.port), delay=delay, seed=7, **how) as network:
        network.server, network.tls = server, server.tls
        network.fingerprint = server.fingerprint
        yield network


@pytest.fixture
def files(tmp_path):
    """Where the server keeps its files."""
    return tmp_path / "files"


@pytest.fixture
def half_sent(start_server, enter, files, home, join):
    """Somebody is just sending 2 MiB through a slow network.

    A function that returns the client, the network, the file, and who will get it.
    """
    with contextlib.ExitStack() as stack:
        def begin(*options, **how):
            server = start_server("--rate", 0, "--files", files, *options)
            tigrou = join("Tigrou", server)
            network = stack.enter_context(slow(server))
            client = enter(network, **how)
            network.delay = 60          # now it would take 3 s
            path = make(home, "big.bin", some_bytes(2 * MIB))
            client.type_line(f"/file {path}")
            wait_until(lambda: bytes_in(files) > 100 * KIB)
            return client, network, path, tigrou
        yield begin


@pytest.fixture
def half_saved(start_server, enter, files, home, join):
    """Somebody is just saving 2 MiB, and they come through a slow network."""
    with contextlib.ExitStack() as stack:
        def begin(*options, **how):
            server = start_server("--rate", 0, "--files", files, *options)
            tigrou = join("Tigrou", server)
            network = stack.enter_context(slow(server))
            client = enter(network, **how)
            network.delay = 60          # now it would take 3 s
            send_file(tigrou, some_bytes(2 * MIB), "big.bin")
            client.type_line(f"/save {offered(client, 'big.bin')}")
            wait_until(lambda: bytes_in(home / "Downloads") > 100 * KIB)
            return client, network, home / "Downloads" / "big.bin", tigrou
        yield begin


# ----------------------------------------------------------------------- sent and saved

@ONE_EACH
def test_a_file_is_sent(server, join, enter, home, terminal):
    tigrou = join("Tigrou")
    minou = enter(server, terminal=terminal)
    for number, size in enumerate((0, 1, 32 * KIB, 32 * KIB + 1, MIB)):
        data = some_bytes(size)
        path = make(home, f"{number}.bin", data)
        minou.type_line(f"/file {path}")
        sending(minou, path.name)
        line = arrives(tigrou, path.name, data)
        assert line["from"] == "Minou" and "to" not in line
    still_talks(minou, tigrou)


@ONE_EACH
def test_a_file_is_saved(server, join, enter, home, terminal):
    tigrou = join("Tigrou")
    minou = enter(server, terminal=terminal)
    for at, size in enumerate((0, 1, 32 * KIB, 32 * KIB + 1, 1_234_567)):
        data, name = some_bytes(size), f"{at}.bin"
        send_file(tigrou, data, name)
        number = offered(minou, name)
        minou.type_line(f"/save {number}")
        path = saved(minou, number)
        assert path == home / "Downloads" / name and path.read_bytes() == data
    assert "4.bin (1.2 MiB) — /save" in minou.text
    still_talks(minou, tigrou)


def test_nothing_is_fetched_that_nobody_has_asked_for(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server)
    send_file(tigrou, some_bytes(1000), "photo.png")
    offered(minou, "photo.png")
    still_talks(minou, tigrou)
    assert not (home / "Downloads").exists() or not any((home / "Downloads").iterdir())


def test_to_one_alone(server, join, enter, home):
    tigrou, felix = join("Tigrou"), join("Felix")
    minou = enter(server)
    path = make(home, "secret.txt")
    minou.type_line("/msg Tigrou")
    minou.type_line(f"/file {path}")
    assert arrives(tigrou, "secret.txt", b"Meow!")["to"] == "Tigrou"
    send_file(tigrou, b"Woof!", "answer.txt", to="Minou")
    number = offered(minou, "answer.txt", "Tigrou → you")
    minou.type_line(f"/save {number}")
    assert saved(minou, number).read_bytes() == b"Woof!"
    minou.type_line("/everyone")
    minou.type_line(f"/file {make(home, 'public.txt')}")
    assert "to" not in arrives(tigrou, "public.txt", b"Meow!")
    # The first file that Felix hears of is the one that is for everybody.
    arrives(felix, "public.txt", b"Meow!")


@pytest.mark.long
def test_to_oneself(server, enter, home):
    minou = enter(server)
    minou.type_line("/msg Minou")
    minou.type_line(f"/file {make(home, 'note.txt')}")
    number = sending(minou, "note.txt")
    minou.wait_for(rf"^{STAMP}Minou → Minou: note\.txt")
    minou.type_line(f"/save {number}")
    assert saved(minou, number).read_bytes() == b"Meow!"


@pytest.mark.long
def test_a_file_of_ones_own_can_be_saved_too(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server)
    minou.type_line(f"/file {make(home, 'mine.txt')}")
    arrives(tigrou, "mine.txt", b"Meow!")
    still_talks(minou, tigrou)
    number = sending(minou, "mine.txt")
    minou.type_line(f"/save {number}")
    assert saved(minou, number) == home / "Downloads" / "mine.txt"


def test_two_clients(server, enter, home):
    """What one sends the other saves, without anybody who speaks by hand."""
    minou, tigrou = enter(server), enter(server, name="Tigrou")
    data = some_bytes(700_000)
    minou.type_line(f"/file {make(home, 'photo.png', data)}")
    number = offered(tigrou, "photo.png", "Minou")
    tigrou.type_line(f"/save {number}")
    assert saved(tigrou, number).read_bytes() == data


NAMES = [
    "my photo.png", "it's “a” \"b\".txt", "猫 🐈.png", "~", "~tigrou", "-rf", "no dot",
    "a.tar.gz", "%s {0} $HOME.txt", "a" * 251 + ".txt", "😀" * 62 + ".txt", ".profile",
    "…", "a (1).txt", "#1 & 2;.txt"]


@pytest.mark.long
@POSIX
def test_names(server, enter, home, join):
    """They lie in Downloads as they are, but for what some system could not take."""
    watcher = join("Watcher")
    minou, tigrou = enter(server), enter(server, name="Tigrou")
    for at, name in enumerate(NAMES):
        minou.type_line(f"/file {make(home, name, some_bytes(100, at))}")
        line = watcher.expect("file", skip=BEFORE)
        number = offered(tigrou, line["name"], "Minou")
        tigrou.type_line(f"/save {number}")
        path = saved(tigrou, number)
        assert path.parent == home / "Downloads"
        assert path.read_bytes() == some_bytes(100, at)
        if len(os.fsencode(name)) <= 200:
            assert path.name == re.sub('[:<>"|?*]', "_", name).lstrip(".")
        else:
            assert len(os.fsencode(path.name)) <= 200 and path.suffix == ".txt"
            assert name.startswith(path.stem[:40])


@pytest.mark.long
def test_a_path_that_begins_with_a_tilde(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server)
    make(home, "at home.txt")
    minou.type_line("/file ~/at home.txt")
    arrives(tigrou, "at home.txt", b"Meow!")
    send_file(tigrou, b"Woof!", "a.txt", skip=(*BEFORE, "file"))
    number = offered(minou, "a.txt")
    minou.type_line(f"/save {number} ~/b.txt")
    assert saved(minou, number) == home / "b.txt"


@POSIX
def test_a_path_as_a_shell_wants_it(server, join, enter, home):
    """In quotes or with backslashes, as it comes when it is dragged into a terminal."""
    tigrou = join("Tigrou")
    minou = enter(server)
    path = str(make(home, "Tom's cat (1).txt"))
    for typed in (path, shlex.quote(path), f'"{path}"',
                  re.sub(r"([ '()])", r"\\\1", path)):
        minou.type_line(f"/file {typed}")
        arrives(tigrou, "Tom's cat (1).txt", b"Meow!")
    # One that is really called so is meant before all others.
    make(home, '"quoted".txt', b"Woof!")
    minou.type_line(f'/file {home}/"quoted".txt')
    assert fetch(tigrou, tigrou.expect("file", skip=BEFORE)) == b"Woof!"


# -------------------------------------------------------------------- where it is saved

def test_where_it_is_saved(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server)
    send_file(tigrou, b"Woof!", "photo.png")
    number = offered(minou, "photo.png")
    folder = home / "my photos"
    folder.mkdir()
    make(folder, "old.png", b"an old one")
    downloads = home / "Downloads"
    for target, path in [
            ("", downloads / "photo.png"), ("", downloads / "photo (1).png"),
            (folder, folder / "photo.png"), (f"{folder}/", folder / "photo (1).png"),
            (folder / "new.png", folder / "new.png"),
            (folder / "old.png", folder / "old (1).png"),
            ("", downloads / "photo (2).png")]:
        minou.type_line(f"/save {number} {target}")
        wait_until(path.is_file, what=f"for {path}; it printed:\n{minou.text}")
        minou.wait_for(f"is saved as {re.escape(str(path))}$")
        assert path.read_bytes() == b"Woof!"
    assert (folder / "old.png").read_bytes() == b"an old one"


@pytest.mark.long
def test_a_half_file_of_somebody_else_is_left_alone(server, join, enter, home):
    """Its name is the one that ours would have while it comes."""
    tigrou = join("Tigrou")
    minou = enter(server)
    (home / "Downloads").mkdir()
    theirs = make(home / "Downloads", "photo.png.part", b"theirs")
    send_file(tigrou, b"Woof!", "photo.png")
    number = offered(minou, "photo.png")
    minou.type_line(f"/save {number}")
    assert saved(minou, number).read_bytes() == b"Woof!"
    assert theirs.read_bytes() == b"theirs"
    theirs.unlink()             # so that only one of ours would be complained of


@pytest.mark.long
def test_two_programs_save_at_once(start_server, join, enter, home):
    """Into one folder, under one name."""
    server = start_server("--rate", 0)
    with slow(server) as network:
        clients = [enter(network, name=name) for name in ("Minou", "Duchesse")]
        send_file(join("Tigrou", server), some_bytes(MIB), "big.bin")
        number = offered(clients[0], "big.bin")
        offered(clients[1], "big.bin")
        network.delay = 60
        for client in clients:
            client.type_line(f"/save {number}")
        wait_until(lambda: len(list(home.rglob("*.part"))) == 2)
        network.delay = 0
        paths = {saved(client, number) for client in clients}
    assert {path.name for path in paths} == {"big.bin", "big (1).bin"}
    assert {path.read_bytes() for path in paths} == {some_bytes(MIB)}


@pytest.mark.long
def test_meanwhile_there_is_a_file_of_that_name(half_saved):
    minou, network, path, tigrou = half_saved()
    path.write_bytes(b"another one")
    network.delay = 0
    assert saved(minou, offered(minou, "big.bin")) == path.with_name("big (1).bin")
    assert path.with_name("big (1).bin").read_bytes() == some_bytes(2 * MIB)
    assert path.read_bytes() == b"another one"


@POSIX
@pytest.mark.long
def test_the_folder_is_removed_meanwhile(half_saved):
    minou, network, path, tigrou = half_saved()
    shutil.rmtree(path.parent)
    network.delay = 0
    refusal(minou, "big.bin")
    still_talks(minou, tigrou)
    number = offered(minou, "big.bin")
    minou.type_line(f"/save {number}")
    assert saved(minou, number).read_bytes() == some_bytes(2 * MIB)


@pytest.mark.long
@POSIX
def test_a_name_that_is_a_link_to_nowhere(server, join, enter, home):
    """Written through it, the file would be anywhere but there."""
    tigrou = join("Tigrou")
    minou = enter(server)
    (home / "Downloads").mkdir()
    for name in ("photo.png", "photo.png.part"):
        (home / "Downloads" / name).symlink_to(home / "elsewhere")
    send_file(tigrou, b"Woof!", "photo.png")
    number = offered(minou, "photo.png")
    minou.type_line(f"/save {number}")
    path = saved(minou, number)
    assert path.read_bytes() == b"Woof!" and not path.is_symlink()
    assert not (home / "elsewhere").exists()
    (home / "Downloads" / "photo.png.part").unlink()


@pytest.mark.long
@POSIX
def test_the_downloads_folder(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server)
    (home / ".config").mkdir()
    for at, (line, folder) in enumerate([
            ('XDG_DOWNLOAD_DIR="$HOME/my stuff"', "my stuff"),
            ('# M\nXDG_MUSIC_DIR="$HOME/M"\n XDG_DOWNLOAD_DIR="$HOME/A/B"\n', "A/B"),
            (f'XDG_DOWNLOAD_DIR="{home}/absolute"', "absolute"),
            ('XDG_MUSIC_DIR="$HOME/Music"', "Downloads"),
            ("XDG_DOWNLOAD_DIR=", "Downloads"), ("\udcff\0nonsense", "Downloads")]):
        make(home / ".config", "user-dirs.dirs", os.fsencode(line))
        send_file(tigrou, b"Woof!", f"{at}.png")
        number = offered(minou, f"{at}.png")
        minou.type_line(f"/save {number}")
        assert saved(minou, number) == home / folder / f"{at}.png"


# ------------------------------------------------------------------ what cannot be sent

@POSIX
def test_what_cannot_be_sent(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server, python=AS_ANYBODY)
    os.mkfifo(home / "a fifo")
    make(home, "locked.txt").chmod(0)
    (home / "a folder").mkdir()
    (home / "a loop").symlink_to(home / "a loop")
    with open(home / "huge.bin", "wb") as huge:
        huge.truncate(2**40)            # a hole: it takes no place, but to read it…
    for name in ("nothing.txt", "a fifo", "locked.txt", "a folder", "a loop",
                 "huge.bin"):
        minou.type_line(f"/file {home / name}")
        refusal(minou, name)
    for path in ("/dev/zero", "/dev/null", "/etc/passwd/photo.png"):
        minou.type_line(f"/file {path}")
        refusal(minou, path.rpartition("/")[2])
    for words in ("", "\0", "x" * 5000):
        says_something(minou, f"/file {words}")
    minou.write(b"/file caf\xe9.txt\n")        # Latin-1: to us that is no text
    refusal(minou, "caf")
    still_talks(minou, tigrou, skip=COMINGS)       # so nothing was announced
    assert "Traceback" not in minou.text and "mistake" not in minou.text


def test_the_bound(start_server, join, enter, home):
    server = start_server("--max-file", 1)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    data = some_bytes(MIB)
    minou.type_line(f"/file {make(home, 'over.bin', data + b'x')}")
    refusal(minou, "over.bin")
    minou.type_line(f"/file {make(home, 'exact.bin', data)}")
    arrives(tigrou, "exact.bin", data)
    assert "Sending over.bin" not in minou.text


def test_a_server_without_files(start_server, join, enter, home):
    server = start_server("--max-file", 0)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    for name, data in (("empty.txt", b""), ("photo.png", b"Meow!")):
        minou.type_line(f"/file {make(home, name, data)}")
        refusal(minou, name)
    still_talks(minou, tigrou, skip=COMINGS)


def test_what_is_too_big_is_never_begun(odd, plain, home):
    """Not one line of it leaves, so the next one is what is typed."""
    minou = plain(odd, "--name", "Minou", HOME=str(home))
    side = odd.let_in(limits={"line": 65536, "text": 4000, "file": 1000})
    minou.wait_for("You are in")
    minou.type_line(f"/file {make(home, 'over.bin', some_bytes(1001))}")
    refusal(minou, "over.bin")
    minou.type_line("The next line")
    assert side.read()["text"] == "The next line"
    minou.type_line(f"/file {make(home, 'exact.bin', some_bytes(1000))}")
    offer = side.read()
    assert (offer["type"], offer["name"]) == ("upload", "exact.bin")


def test_nobody_to_send_it_to(start_server, join, enter, home):
    server = start_server()
    tigrou, felix = join("Tigrou", server), join("Felix", server)
    minou = enter(server)
    minou.type_line("/msg Felix")
    minou.wait_for("goes to Felix alone")
    felix.leave()
    minou.wait_for("Felix left")
    minou.type_line("/msg Felix")       # (we may have been led back to the room)
    minou.type_line(f"/file {make(home, 'secret.txt')}")
    refusal(minou, "secret.txt")
    minou.type_line("/everyone")
    still_talks(minou, tigrou, skip=COMINGS)


@pytest.mark.long
def test_not_connected(start_server, enter, home):
    server = start_server()
    minou = enter(server)
    minou.type_line("/disconnect")
    minou.wait_for("logged out")
    for command in (f"/file {make(home, 'photo.png')}", "/save 1", "/cancel 1"):
        says_something(minou, command)


# ----------------------------------------------------------------- what cannot be saved

@POSIX
def test_what_cannot_be_saved(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server, python=AS_ANYBODY)
    send_file(tigrou, b"Woof!", "photo.png")
    number = offered(minou, "photo.png")
    locked = home / "locked"
    locked.mkdir(mode=0o500)
    make(home, "a file")
    for target in (locked, locked / "x.png", home / "a file" / "x.png", "/proc/x.png",
                   "\0", "x" * 5000):
        says_something(minou, f"/save {number} {target}")
    for words in ("", "99", "0", "-1", "x", "1.5", "²", "9" * 5000, f"{number}x", "\0"):
        says_something(minou, f"/save {words}")
    assert "saved as" not in minou.text
    assert "Traceback" not in minou.text and "mistake" not in minou.text
    still_talks(minou, tigrou)
    minou.type_line(f"/save {number}")
    assert saved(minou, number).read_bytes() == b"Woof!"


@POSIX
def test_a_full_disk(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server, python=FULL_DISK)
    send_file(tigrou, some_bytes(MIB), "big.bin")
    send_file(tigrou, b"Woof!", "small.bin")
    big, small = offered(minou, "big.bin"), offered(minou, "small.bin")
    minou.type_line(f"/save {big}")
    refusal(minou, "big.bin")
    assert list((home / "Downloads").iterdir()) == []
    minou.type_line(f"/save {small}")
    assert saved(minou, small).read_bytes() == b"Woof!"


@pytest.mark.long
def test_it_is_not_kept_any_more(start_server, join, enter, home):
    """The operator has removed it."""
    server = start_server(console=True)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    send_file(tigrou, b"Woof!", "photo.png")
    number = offered(minou, "photo.png")
    server.type_line("/files")
    kept = server.wait_for_line(r"(\d+): 5 bytes from Tigrou: photo\.png")[1]
    server.type_line(f"/remove {kept}")
    server.type_line("/say Removed.")
    minou.wait_for("Removed[.]")
    minou.type_line(f"/save {number}")
    refusal(minou, "photo.png")
    still_talks(minou, tigrou, skip=(*TALK, "notice"))
    assert not any(path.is_file() for path in home.rglob("*"))


# ------------------------------------------------- a file that changes while it is sent

def vanish(path):
    path.unlink()


def shrink(path):
    os.truncate(path, 1000)


def grow(path):
    with open(path, "ab") as file:
        file.write(some_bytes(3 * MIB, 2))


def other_bytes(path):
    with open(path, "r+b") as file:
        file.write(b"\0" * 2 * MIB)


def replaced(path):
    other = path.with_suffix(".new")
    other.write_bytes(some_bytes(2 * MIB, 3))
    os.replace(other, path)


@POSIX
@pytest.mark.parametrize("happens", [
    vanish, shrink, other_bytes, pytest.param(grow, marks=pytest.mark.long),
    pytest.param(replaced, marks=pytest.mark.long)])
def test_a_file_that_changes_while_it_is_sent(half_sent, home, happens):
    """It arrives as it was when it was offered, or a sentence says why it does not."""
    minou, network, path, tigrou = half_sent()
    happens(path)
    network.delay = 0
    minou.type_line(f"/file {make(home, 'next.txt')}")
    lines = [tigrou.expect("file", skip=BEFORE, limit=20)]
    if lines[0]["name"] == "big.bin":
        assert happens not in (shrink, other_bytes)
        lines.append(tigrou.expect("file", skip=BEFORE))
        assert fetch(tigrou, lines[0]) == some_bytes(2 * MIB)
    else:
        refusal(minou, "big.bin")
    assert lines[-1]["name"] == "next.txt"
    still_talks(minou, tigrou, skip=COMINGS)


# -------------------------------------------------------------------- one after another

def test_several_go_one_after_the_other(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server)
    for number in range(20):
        minou.type_line(f"/file {make(home, f'{number}.bin', some_bytes(50_000))}")
    lines = [tigrou.expect("file", skip=BEFORE) for _ in range(20)]
    assert [line["name"] for line in lines] == [f"{at}.bin" for at in range(20)]
    assert {fetch(tigrou, line) for line in lines} == {some_bytes(50_000)}
    minou.close_input()
    assert minou.status() == 0


@pytest.mark.long
def test_only_one_is_on_its_way(odd, plain, home):
    minou = plain(odd, "--name", "Minou", HOME=str(home))
    side = odd.let_in(limits=LIMITS)
    minou.wait_for("You are in")
    for name in ("one.txt", "two.txt"):
        minou.type_line(f"/file {make(home, name)}")
    minou.type_line("And a line")
    came = {message["type"]: message for message in (side.read(), side.read())}
    assert came["chat"]["text"] == "And a line"     # (reading a file takes a moment)
    first = came["upload"]
    side.send({"type": "upload_ready", "ref": first["ref"], "file": "f1", "offset": 0})
    chunk = side.read()
    assert (chunk["type"], chunk["file"], chunk["offset"]) == ("chunk", "f1", 0)
    minou.type_line("Still the first")
    assert side.read()["text"] == "Still the first"
    side.send({"type": "file", "id": 1, "file": "f1", "name": first["name"],
               "size": 5, "sha256": first["sha256"], "from": "Minou", "color": 3,
               "time": TIME, "ref": first["ref"]})
    second = side.read()
    assert (second["type"], second["name"]) == ("upload", "two.txt")


@pytest.mark.long
def test_several_are_saved(server, join, enter, home):
    tigrou = join("Tigrou")
    minou = enter(server)
    for number in range(20):
        send_file(tigrou, some_bytes(50_000, number), f"{number}.bin")
    offered(minou, "19.bin")
    numbers = re.findall(r"/save (\d+) saves", minou.text)
    minou.write("".join(f"/save {number}\n" for number in numbers))
    for at, number in enumerate(numbers):
        assert saved(minou, number).read_bytes() == some_bytes(50_000, at)
    assert len(set(numbers)) == 20


def test_the_chat_goes_on_while_a_file_is_sent(half_sent):
    """A line never waits behind the whole file, or the file would be there first."""
    minou, network, path, tigrou = half_sent()
    for number in range(2):             # a quarter of the file may be before each
        minou.type_line(f"line {number}")
        tigrou.expect("chat", skip=COMINGS, text=f"line {number}")
    network.delay = 0
    arrives(tigrou, "big.bin", path.read_bytes(), skip=COMINGS)


@pytest.mark.long
def test_the_chat_goes_on_while_a_file_is_saved(half_saved):
    minou, network, path, tigrou = half_saved()
    for number in range(3):
        tigrou.say(f"line {number}")
        minou.wait_for(f"Tigrou: line {number}")
    assert "is saved" not in minou.text
    network.delay = 0
    minou.wait_for("is saved as", 20)
    assert path.read_bytes() == some_bytes(2 * MIB)


def test_progress(start_server, join, enter, home):
    """Every 2 seconds at most, in both directions at once."""
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    with slow(server, delay=100) as network:
        minou = enter(network)
        send_file(tigrou, some_bytes(2 * MIB), "theirs.bin")
        theirs = offered(minou, "theirs.bin")
        minou.type_line(f"/save {theirs}")
        minou.type_line(f"/file {make(home, 'mine.bin', some_bytes(2 * MIB))}")
        mine = sending(minou, "mine.bin")
        minou.wait_for(rf"{mine}: mine\.bin: \d+ %", 20)
        minou.wait_for(rf"{theirs}: theirs\.bin: \d+ %", 20)
        network.delay = 0
        assert saved(minou, theirs).read_bytes() == some_bytes(2 * MIB)
        arrives(tigrou, "mine.bin", some_bytes(2 * MIB))
    for number, name in ((theirs, "theirs"), (mine, "mine")):
        lines = re.findall(
            rf"^.*(\d\d):(\d\d)  \* {number}: {name}\.bin: (\d+) %, [\d.KMiB ]+ "
            r"of 2\.0 MiB, [\d.]+ [KM]iB/s, \d+ s left$", minou.text, re.MULTILINE)
        assert len(lines) == len(re.findall(rf"{name}\.bin: \d+ %", minou.text))
        percents = [int(line[2]) for line in lines]
        assert percents == sorted(percents) and 0 < percents[-1] < 100
        seconds = [60 * int(line[0]) + int(line[1]) for line in lines]
        assert all((after - before) % 3600 >= 1
                   for before, after in zip(seconds, seconds[1:]))


# ------------------------------------------------------------------------------ /cancel

def test_cancel_what_is_being_sent(half_sent, files):
    minou, network, path, tigrou = half_sent()
    number = sending(minou, "big.bin")
    minou.type_line(f"/cancel {number}")
    refusal(minou, "big.bin")
    network.delay = 0
    wait_until(lambda: bytes_in(files) == 0)        # nor is the half of it kept
    still_talks(minou, tigrou, skip=COMINGS)
    # What was on its way when it was cancelled is no news to anybody.
    assert len(re.findall(r"^.*  \* .*(?!\d %)(big\.bin|file).*$",
                          minou.text, re.MULTILINE)) <= 4, minou.text
    minou.type_line(f"/file {path}")                # and once more, from the start
    arrives(tigrou, "big.bin", path.read_bytes())


def test_cancel_what_is_being_saved(half_saved, home):
    minou, network, path, tigrou = half_saved()
    number = offered(minou, "big.bin")
    minou.type_line(f"/cancel {number}")
    refusal(minou, "big.bin")
    network.delay = 0
    still_talks(minou, tigrou)
    wait_until(lambda: list(path.parent.iterdir()) == [])
    minou.type_line(f"/save {number}")
    assert saved(minou, number).read_bytes() == some_bytes(2 * MIB)


@pytest.mark.long
def test_saving_again_right_after_a_cancel(half_saved):
    """Pieces of the first time are still on their way, and must harm nothing."""
    minou, network, path, tigrou = half_saved()
    number = offered(minou, "big.bin")
    minou.type_line(f"/cancel {number}")
    refusal(minou, "big.bin")
    minou.type_line(f"/save {number}")
    still_talks(minou, tigrou)
    network.delay = 0
    assert saved(minou, number).read_bytes() == some_bytes(2 * MIB)


def test_again_sends_nothing_that_was_cancelled(half_sent):
    """It may have been the wrong file."""
    minou, network, path, tigrou = half_sent()
    minou.type_line(f"/cancel {sending(minou, 'big.bin')}")
    refusal(minou, "big.bin")
    network.delay = 0
    says_something(minou, "/again")
    still_talks(minou, tigrou, skip=COMINGS)
    still_talks(minou, tigrou, skip=COMINGS)
    minou.close_input()
    assert minou.status() in (0, 1)     # it waits for what is on its way
    tigrou.expect("left", name="Minou")


@pytest.mark.long
def test_cancel_what_waits_for_its_turn(half_sent, home):
    minou, network, path, tigrou = half_sent()
    for name in ("one.txt", "two.txt", "three.txt"):
        minou.type_line(f"/file {make(home, name)}")
    number = sending(minou, "two.txt")
    minou.type_line(f"/cancel {number}")
    refusal(minou, "two.txt")
    network.delay = 0
    for name in ("big.bin", "one.txt", "three.txt"):
        tigrou.expect("file", skip=BEFORE, limit=20, name=name)
    still_talks(minou, tigrou, skip=COMINGS)


@pytest.mark.long
def test_cancel_a_saving_that_waits_for_its_turn(half_saved, home):
    minou, network, path, tigrou = half_saved()
    for name in ("one.txt", "two.txt", "three.txt"):
        send_file(tigrou, b"Woof!", name, skip=(*BEFORE, "file"))
    numbers = [offered(minou, name) for name in ("one.txt", "two.txt", "three.txt")]
    for number in numbers:
        minou.type_line(f"/save {number}")
    minou.type_line(f"/cancel {numbers[1]}")
    refusal(minou, "two.txt")
    network.delay = 0
    for number in (numbers[0], numbers[2]):
        assert saved(minou, number).read_bytes() == b"Woof!"
    still_talks(minou, tigrou)
    assert {file.name for file in path.parent.iterdir()} == {
        "big.bin", "one.txt", "three.txt"}


@pytest.mark.long
def test_cancel_what_cannot_be_cancelled(server, join, enter, home):
    """What nobody asked for, what is over, and what there never was."""
    tigrou = join("Tigrou")
    minou = enter(server)
    minou.type_line(f"/file {make(home, 'mine.txt')}")
    arrives(tigrou, "mine.txt", b"Meow!")
    send_file(tigrou, b"Woof!", "photo.png")
    number = offered(minou, "photo.png")
    for words in (number, sending(minou, "mine.txt"), "", "99", "0", "x", "9" * 5000):
        says_something(minou, f"/cancel {words}")
    minou.type_line(f"/save {number}")
    path = saved(minou, number)
    says_something(minou, f"/cancel {number}")
    assert path.read_bytes() == b"Woof!"            # what is saved stays
    assert "Traceback" not in minou.text and "mistake" not in minou.text
    still_talks(minou, tigrou)


# -------------------------------------------------------------------------------- pipes

def at_home(server, home):
    """The options of a client that lives in this home."""
    trust = ("--tls", "--fingerprint", server.fingerprint()) if server.tls else ()
    return ("--name", "Bot", *trust), {"HOME": str(home), "USERPROFILE": str(home)}


@pytest.mark.parametrize("tls, behind", [
    ("tls", ""), ("tcp", "And a line\n"), ("tcp", "/quit\n")], indirect=["tls"])
def test_a_pipe_that_sends_a_file(server, join, plain, home, behind):
    """It ends when the file has arrived, and not before."""
    minou = join("Minou")
    data = some_bytes(MIB)
    options, env = at_home(server, home)
    typed = f"/file {make(home, 'photo.png', data)}\n{behind}"
    status, bot = piped(plain, server, typed, *options, **env)
    assert status == 0
    minou.expect("joined", name="Bot")
    skip = ("chat",) if "line" in behind else ()
    line = minou.expect("file", skip=skip, name="photo.png", from_="Bot")
    came = [minou.expect("left", skip=skip, name="Bot")]
    assert came[0]["reason"] == "bye" and fetch(minou, line) == data
    assert "not arrived" not in bot.text


@pytest.mark.parametrize("trouble", ["missing", "too big", "no files"])
def test_a_pipe_whose_file_is_refused(start_server, join, plain, home, trouble):
    server = start_server("--max-file", 0 if trouble == "no files" else 1)
    minou = join("Minou", server)
    path = home / "photo.png"
    if trouble != "missing":
        path.write_bytes(some_bytes(MIB + 1 if trouble == "too big" else 5))
    options, env = at_home(server, home)
    status, bot = piped(plain, server, f"/file {path}\nhi\n", *options, **env)
    assert status == 1
    minou.expect("joined", name="Bot")
    minou.expect("chat", text="hi")
    minou.expect("left", name="Bot", reason="bye")


@pytest.mark.long
def test_a_pipe_whose_file_the_server_refuses(odd, plain, home):
    bot = plain(odd, "--name", "Bot", HOME=str(home))
    side = odd.let_in(limits=LIMITS)
    bot.type_line(f"/file {make(home, 'photo.png')}")
    bot.close_input()
    side.send({"type": "error", "code": "files_full", "ref": side.read()["ref"],
               "text": "There is no room for more files."})
    refusal(bot, "no room for more files")
    while side.read()["type"] != "bye":
        pass
    side.close()
    assert bot.status() == 1


@pytest.mark.long
def test_a_pipe_where_the_server_has_no_room_left(start_server, join, plain, home):
    server = start_server("--all-files", 1)
    minou = join("Minou", server)
    send_file(minou, some_bytes(MIB), "first.bin")
    options, env = at_home(server, home)
    status, bot = piped(plain, server, f"/file {make(home, 'photo.png')}\n", *options,
                        **env)
    assert status == 1
    refusal(bot, "photo.png")


@pytest.mark.long
def test_who_is_muted_sends_no_files(start_server, join, enter, home):
    server = start_server(console=True)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    server.type_line("/mute Minou")
    server.wait_for_line("can only read")
    minou.type_line(f"/file {make(home, 'photo.png')}")
    refusal(minou, "muted")
    minou.type_line("/quit")
    minou.status()
    tigrou.expect("left", skip=("joined", "notice"), name="Minou")


@pytest.mark.long
def test_a_pipe_waits_as_long_as_a_file_moves(start_server, join, plain, home):
    """To its clock, which is quick, it takes a minute; 30 s without news would be
    the end. And as long as it moves, nobody asks where the receipt is."""
    server = start_server("--rate", 0)
    minou = join("Minou", server)
    options, env = at_home(server, home)
    with slow(server) as network:
        bot = plain(network, *options, python=QUICK_CLOCK, **env)
        bot.wait_for("You are in")
        network.delay = 50
        bot.type_line(f"/file {make(home, 'big.bin', some_bytes(MIB))}")
        bot.close_input()
        arrives(minou, "big.bin", some_bytes(MIB))
        assert bot.status() == 0
    assert "No receipt" not in bot.text


def test_a_pipe_that_saves_a_file(server, join, plain, home):
    minou = join("Minou")
    options, env = at_home(server, home)
    bot = plain(server, *options, **env)
    bot.wait_for("You are in")
    send_file(minou, some_bytes(MIB), "photo.png")
    bot.type_line(f"/save {offered(bot, 'photo.png', 'Minou')}")
    bot.close_input()
    assert bot.status() == 0
    assert (home / "Downloads" / "photo.png").read_bytes() == some_bytes(MIB)


@pytest.mark.long
def test_a_pipe_that_cannot_save_a_file(server, join, plain, home):
    minou = join("Minou")
    options, env = at_home(server, home)
    bot = plain(server, *options, **env)
    bot.wait_for("You are in")
    send_file(minou, b"Woof!", "photo.png")
    number = offered(bot, "photo.png", "Minou")
    make(home, "Downloads")                         # a file, where the folder should be
    bot.type_line(f"/save {number}")
    bot.close_input()
    assert bot.status() == 1


# -------------------------------------------------------------------------- coming back

@pytest.mark.parametrize("tls", [
    "tcp", pytest.param("tls", marks=pytest.mark.long)], indirect=True)
def test_ten_mebibytes_over_a_connection_that_breaks(start_server, join, enter, home):
    """No connection carries more than 90 lines, so who starts over never gets there:
    10 MiB are 320 chunks, there and back."""
    server = start_server("--rate", 0)
    tigrou, data = join("Tigrou", server), some_bytes(10 * MIB)
    # Of what is encrypted, each 256th byte looks like the end of a line.
    with slow(server, reset_every=10_000 if server.tls else 60) as network:
        minou = enter(network, python=HASTY)
        minou.type_line(f"/file {make(home, 'big.bin', data)}")
        arrives(tigrou, "big.bin", data)
        assert network.resets >= 3
        before = network.resets
        send_file(tigrou, data, "back.bin", skip=(*BEFORE, "file"))
        number = offered(minou, "back.bin")
        minou.type_line(f"/save {number}")
        assert saved(minou, number).read_bytes() == data
        assert network.resets >= before + 3
    came = [message["type"] for message in until_now(tigrou)]
    assert "file" not in came           # each of them came once, whatever broke


def killed_and_back(start_server, network, *options):
    """Kill the server behind a network, and start it again where it was."""
    network.server.kill()
    network.delay = 0
    return start_server("--rate", 0, "--port", network.server.port, *options)


@pytest.mark.long
@pytest.mark.parametrize("resumed", [True, False])
def test_the_receipt_of_a_file_was_lost(odd, plain, home, resumed):
    """A server that knows us gives it again. To another one it is not sent behind our
    back: the file may have arrived, and would stand there twice."""
    minou = plain(odd, "--name", "Minou", python=HASTY, HOME=str(home))
    side = odd.let_in(limits=LIMITS, session="secret")
    minou.wait_for("You are in")
    minou.type_line(f"/file {make(home, 'photo.png')}")
    offer = side.read()
    side.send({"type": "upload_ready", "ref": offer["ref"], "file": "f1", "offset": 0})
    assert side.read()["type"] == "chunk"
    side.close()
    minou.wait_for("was lost")
    side = odd.let_in(limits=LIMITS, resumed=resumed, session="secret",
                      history="one" if resumed else "another")
    if not resumed:
        refusal(minou, "photo.png", "not known")
        minou.type_line("The next line")
        assert side.read()["text"] == "The next line"
        minou.type_line("/again")
    assert side.read() == offer         # with the ref that it had
    side.send({"type": "file", "id": 2, "file": "f1", "name": "photo.png", "size": 5,
               "sha256": offer["sha256"], "from": "Minou", "color": 3, "time": TIME,
               "ref": offer["ref"]})
    minou.wait_for(f"^{STAMP}Minou: photo.png \\(5 bytes\\)$")
    minou.type_line("The end")
    assert side.read()["text"] == "The end"


@pytest.mark.parametrize("kept", [
    True, pytest.param(False, marks=pytest.mark.long)], ids=["history", "no memory"])
def test_the_server_is_killed_while_a_file_is_sent(start_server, half_sent, join, files,
                                                   tmp_path, kept):
    """With its memory it arrives; without, it does, or it is said that it may not."""
    options = ("--history", tmp_path / "history") if kept else ()
    minou, network, path, _ = half_sent(*options, python=HASTY)
    server = killed_and_back(start_server, network, *options, "--files", files)
    minou.wait_for("Connected again", 15)
    person = join("Felix", server)
    if not kept:                        # (a sentence that it failed, or its line)
        end = minou.wait_for(r"^.*  (Minou|\*(?!.*(Sending|\d %))).*big\.bin.*$", 20)
        if end[1] != "Minou":
            minou.type_line(f"/file {path}")
    arrives(person, "big.bin", path.read_bytes())


@pytest.mark.parametrize("kept", [
    True, pytest.param(False, marks=pytest.mark.long)], ids=["history", "no memory"])
def test_the_server_is_killed_while_a_file_is_saved(start_server, half_saved, join,
                                                    files, tmp_path, kept):
    options = ("--history", tmp_path / "history") if kept else ()
    minou, network, path, _ = half_saved(*options, python=HASTY)
    server = killed_and_back(start_server, network, *options, "--files", files)
    minou.wait_for("Connected again", 15)
    if kept:
        assert saved(minou, offered(minou, "big.bin")) == path
        assert path.read_bytes() == some_bytes(2 * MIB)
    else:                               # it is not there any more, and that is said
        refusal(minou, "big.bin")
        wait_until(lambda: list(path.parent.iterdir()) == [])
    still_talks(minou, join("Felix", server))


@WAYS
def test_what_is_typed_while_cut_off(start_server, enter, join, home, tmp_path,
                                     terminal):
    """It goes when the connection is back, in its order, to whom it was typed for."""
    options = "--rate", 0, "--history", tmp_path / "history", "--files", tmp_path / "f"
    server = start_server(*options)
    tigrou = join("Tigrou", server)
    minou = enter(server, terminal=terminal, python=HASTY)
    send_file(tigrou, b"Woof!", "photo.png")
    number = offered(minou, "photo.png")
    server.kill()
    minou.wait_for("was lost")
    for line in (f"/file {make(home, 'one.txt')}", f"/save {number}", "a line",
                 f"/file {make(home, 'two.txt')}", "/msg Tigrou",
                 f"/file {make(home, 'private.txt')}"):
        minou.type_line(line)
    server = start_server(*options, "--port", server.port)
    felix = join("Felix", server)
    felix.expect("file", name="photo.png")
    assert saved(minou, number).read_bytes() == b"Woof!"
    for name in ("one.txt", "two.txt"):
        felix.expect("file", skip=BEFORE, name=name)
    minou.wait_for("Minou: a line")
    minou.wait_for("Minou → Tigrou: private.txt")
    assert "private.txt" not in [came.get("name") for came in until_now(felix)]


@pytest.mark.long
def test_logging_out_in_the_middle(half_saved):
    minou, network, path, tigrou = half_saved()
    minou.type_line("/disconnect")
    minou.wait_for("logged out")
    network.delay = 0
    minou.type_line("/connect")
    minou.wait_for("You are in as Minou.*(\n.*)+You are in as Minou")
    if "big.bin is saved" not in minou.text:
        minou.type_line(f"/save {offered(minou, 'big.bin')}")
    assert saved(minou, offered(minou, "big.bin")).read_bytes() == some_bytes(2 * MIB)


# ------------------------------------------------------------------------------ the end

@POSIX
@pytest.mark.parametrize("how", ["/quit", pytest.param("^C", marks=pytest.mark.long)])
def test_leaving_in_the_middle(half_saved, how):
    """It does not wait for the file, and no half is left (the fixture looks)."""
    minou, network, path, tigrou = half_saved(terminal=True)
    if how == "/quit":
        minou.type_line("/quit")
    else:
        minou.process.send_signal(signal.SIGINT)
    assert minou.status() == 0
    assert list(path.parent.iterdir()) == []


@pytest.mark.long
@POSIX
def test_leaving_while_a_file_is_sent(half_sent):
    minou, network, path, tigrou = half_sent(terminal=True)
    minou.type_line("/quit")
    assert minou.status() == 0
    tigrou.expect("left", skip=("joined",), name="Minou")
    assert "not arrived" in minou.text


def test_the_chat_log(server, join, enter, home, tmp_path):
    tigrou = join("Tigrou")
    minou = enter(server, "--log-chat", tmp_path / "log")
    minou.type_line(f"/file {make(home, 'mine.txt')}")
    arrives(tigrou, "mine.txt", b"Meow!")
    send_file(tigrou, some_bytes(1_234_567), "photo.png")
    offered(minou, "photo.png")
    text = still_talks(minou, tigrou)
    wait_until(lambda: text in logged(tmp_path / "log"))
    mine, theirs, talk = logged(tmp_path / "log").splitlines()
    assert re.match(r"Minou: .*mine\.txt.*5 ", mine)
    assert re.match(r"Tigrou: .*photo\.png.*1\.2 MiB", theirs)
    assert talk == f"Minou: {text}"


def test_the_commands_stand_in_help(server, enter):
    minou = enter(server)
    minou.type_line("/help")
    minou.wait_for("/trust")
    for word in ("/file PATH", "/save N", "/cancel N"):
        assert re.search(rf"{word}.*: \S", minou.text)
