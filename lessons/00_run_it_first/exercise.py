"""What check.py looks at in lesson 00. Read check.py first: it is the theatre."""
import contextlib
import json
import re
import socket
import subprocess
import time

import check
from check import PROJECT, Program

FILES = ["server_options.txt", "client_options.txt", "answer.txt"]
WORKS = []                      # there is no program of this lesson

WRONG = {
    "": "There is no letter behind “answer:” yet.",
    "a": "A server that does not like a name must be there to say so: that comes as a "
         "message, over a connection that stands. Refused means that none came about.",
    "b": "A computer that is off answers nothing at all, and neither does a firewall "
         "that swallows everything: the client waits, and gives up in the end. "
         "“Refused” is an answer, and it comes at once.",
    "d": "Perhaps it has, but perhaps it was never started. Whoever knocks cannot "
         "know: all that is said is how it is now."}


def another_port(stage):
    """the server listens on another port than 9999"""
    start_server(stage)


def start_server(stage):
    """Start the real server with the student's options; note where it listens."""
    stage.close()                       # the one of the scene before, if it runs
    options = ["@" + str(stage.folder / "server_options.txt"), "--no-console"]
    server = stage.program = Program(
        stage, [PROJECT / "ChattyCat_Server.py"], None, options)
    says = server.prints(r"ChattyCat server is listening on (\S+):(\d+)\r?\n")
    last = "" if says else server.last_words() if server.ended() else "no word"
    is_9999 = bool(re.search(r"\b9999\b", says[0] if says else last))
    stage.expect(
        "it listens on a port that is not 9999", says and says[2] != "9999",
        "ChattyCat server is listening on 127.0.0.1:(another port)",
        says[0].strip() if says else last,
        "server_options.txt still says 9999." if is_9999 else
        "Something has that port, perhaps your own server in another terminal (Ctrl+C "
        "ends it). Or take another number." if "in use" in last else
        "The server ended, and said why. An option is two dashes, its name, a space, "
        "and its value, as in the file that you got; a port is a number from 1024 to "
        "65535.")
    stage.expect("a port from 1024 on: those below belong to the system",
                 int(says[2]) >= 1024, "1024", says[2])
    stage.host = "127.0.0.1" if says[1] == "0.0.0.0" else says[1]
    stage.port = int(says[2])


def client_finds_it(stage):
    """a client with your options finds it, and they talk"""
    start_server(stage)
    name, text = stage.name() + stage.word()[:4], stage.text()
    with listener(stage) as sock:
        options = ["@" + str(stage.folder / "client_options.txt"), "--plain", "--name",
                   name]
        client = Program(stage, [PROJECT / "ChattyCat_Client.py"], None, options,
                         typed=subprocess.PIPE)
        with contextlib.closing(client):
            hear_of(stage, client, sock, "joined", name)
            stage.did(f"type a text into the client: {text}")
            client.types(text)
            hear_of(stage, client, sock, "chat", text)


@contextlib.contextmanager
def listener(stage):
    """Somebody else in the room: yields their socket."""
    stage.did("somebody else comes in, and listens")
    with socket.create_connection((stage.host, stage.port), check.STARTING) as sock:
        sock.sendall(b'{"type":"hello","name":"Listener","version":1}\n')
        yield sock


def hear_of(stage, client, sock, kind, words):
    """Expect that the listener gets a message of this type with these words in it."""
    end, heard = time.monotonic() + check.STARTING, b""
    wanted = json.dumps(words, ensure_ascii=False).encode()
    seen = False
    # A client that finds nobody waits; we need not, since the server is there.
    while not (seen or client.ended() or b"No server answers" in client.printed
               or time.monotonic() > end):
        sock.settimeout(0.1)
        with contextlib.suppress(socket.timeout):
            heard += sock.recv(65_536)
        seen = any(f'"type":"{kind}"'.encode() in line and wanted in line
                   for line in heard.split(b"\n"))
    if client.ended():
        cause = "The client ended, and said why: " + client.last_words()
    else:
        cause = ("The client knocks at another port than the one where the server "
                 "listens: both files must name the same.")
    last = client.printed.decode("utf-8", "replace").strip().splitlines()[-1:]
    stage.expect(f"the other one gets “{kind}” with {words}", seen,
                 f"a client that is in the room on port {stage.port}", None, cause,
                 instead="".join(last) or "nothing")


def the_explanation(stage):
    """you know what “connection refused” means"""
    port = check.free_port()
    stage.did(f"connect to port {port}, where nobody listens")
    try:
        socket.create_connection(("127.0.0.1", port), check.STARTING).close()
        refused = "it was taken"
    except OSError as problem:
        refused = str(problem)
    stage.did(f"the computer says: {refused}")
    letter = letter_in((stage.folder / "answer.txt").read_bytes())
    stage.expect("the letter in answer.txt says why", letter == "c",
                 "the letter of the right answer", None,
                 WRONG.get(letter, "The answer is one of the letters a, b, c, d."),
                 instead=f"the letter {letter}" if letter else "no letter")


def letter_in(data):
    """The letter behind “answer:”, also as “(C)” or with its sentence behind it."""
    # PowerShell's > and Notepad may write UTF-16; both say so in the first two bytes.
    utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16" if utf_16 else "utf-8", "replace")
    words = "".join(re.findall(r"(?m)^\W*answer\s*:(.*)$", text)).lower()
    letters = re.findall(r"^\W*a\b|\b[b-d]\b", words)
    different = {letter[-1:] for letter in letters}
    return different.pop() if len(different) == 1 else words.strip()


EXERCISE = [another_port, client_finds_it, the_explanation]
STILL = []
