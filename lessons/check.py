#!/usr/bin/env python3
"""Checks the exercises of the lessons, as a patient friend with many hands would.

    python3 lessons/check.py 3              check exercise 03
    python3 lessons/check.py 3 --hint       the next hint for it
    python3 lessons/check.py 3 --folder lessons/mine   …in a folder of your own
    python3 lessons/check.py --teacher-copy ../class     a copy without solutions

It starts your program on a free port, plays the other people over real sockets, and
says what it did, what it expected and what it got. Names and texts are different each
time; --seed repeats a run. The exit status is 0 when all is well, 1 when not, and 2
when you asked for something that is not there.

How it is made: each lesson's folder has an `exercise.py` with small functions, the
*scenes*. A scene gets a Stage, lets guests come, speak and listen on it, and the first
expectation that is not met ends it (class Failed). This file is the theatre around it.
The scenes stand in three lists:

    WORKS      what the lesson's own program does; later ones are asked for it too
    EXERCISE   what it does when the exercise is done
    STILL      what the exercise must not change

A later lesson says the same things in another way (first bare text, then lines, then
JSON). So the scenes of WORKS get a function `talk` from the lesson that is checked: it
says some texts, and expects that each is answered.

Windows, macOS and Linux; Python's standard library alone.
"""
import argparse
import contextlib
import errno
import hashlib
import importlib.util
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from pathlib import Path

LESSONS = Path(__file__).resolve().parent
PROJECT = LESSONS.parent
PATIENCE = 3        # seconds that we wait for an answer…
BYTES_A_SECOND = 32_768     # …and more for a long text: some read it byte by byte
STARTING = 10       # …and for a program to start: a virus scanner may look at it first
SHOWN = 100         # characters of a text that a report shows


class Failed(Exception):
    """What was expected did not come. All that the report needs.

    `got` is what came; or, where nothing came, `instead` says what happened.
    """

    def __init__(self, expected, got, cause, instead=""):
        super().__init__(cause)
        self.expected, self.got, self.cause = expected, got, cause
        self.instead = instead


# --- what a scene plays with: a stage, the student's program, and guests ---

class Stage:
    """The student's folder, a seed, and the list of all that was done."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.program = None
        self.home = tempfile.TemporaryDirectory()

    def begin(self, seed):
        """Make ready for the next scene. A server that runs goes on running."""
        self.random = random.Random(seed)
        self.steps = []             # ("Action" or "Expectation", sentence)

    def did(self, sentence):
        self.steps.append(("Action", sentence))

    def expect(self, sentence, met, *failed, **failure):
        """Note an expectation; if it is not `met`, the scene ends here (see Failed)."""
        self.steps.append(("Expectation", sentence))
        if not met:
            raise Failed(*failed, **failure)

    def word(self):
        """A word that nobody can have written into a program beforehand."""
        return "".join(self.random.choices("abcdefghijkmnopqrstuvwxyz", k=8))

    def name(self):
        cats = ("Luna", "Minou", "Tigrou", "Felix", "Mia", "Simba", "Nala", "Cleo")
        return self.random.choice(cats)

    def text(self):
        """A short text with letters of one, two, three and four bytes."""
        words = [self.word(), "é" + self.word(), "猫", "🐈"]
        self.random.shuffle(words)
        return " ".join(words)

    def server(self, name="server.py"):
        """The student's server: one for all scenes, as in life."""
        if self.program is None:
            self.program = Program(self, [self.folder / name], free_port())
        elif not self.steps:
            self.did(f"{name} still runs, from before")
        return self.program

    def guest(self, source=None):
        """Somebody who is connected to the student's server."""
        return Guest(self, self.server(), self.name(), source)

    def close(self):
        if self.program is not None:
            self.program.close()
            self.program = None


# Not port 0, “any”: the system's own choice is one of those that it also gives to
# clients, and one of them could have it before the program asks for it. And one after
# another: two checks side by side (the tests do that) would take each other's. In steps
# of two: a wrong program may listen on the next one.
PORTS = itertools.count(random.randrange(10_000, 25_000), 2)


def free_port():
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            # Only bound, and never listening: a program that another thread starts in
            # this moment has our socket until its exec(), and guests would reach that.
            if os.name != "nt":         # there it would mean: also if it is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


class Program:
    """A program of the student's that runs, and all that it has printed."""

    def __init__(self, stage, words, port, arguments=None, typed=subprocess.DEVNULL):
        self.port = port
        self.file = Path(words[0]).name
        self.printed = b""
        self.guests = []            # the addresses of all that were connected to it
        arguments = [str(port)] if arguments is None else arguments
        # Unbuffered, or what it prints would come when it ends; and UTF-8, or an emoji
        # would end it on a Windows that has another default.
        # And no client may remember what we log in with as the student's last login.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1",
                       "CHATTYCAT_HOME": stage.home.name}
        stage.did(" ".join(["start", self.file, *arguments]))
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words), *arguments], env=environment,
            cwd=Path(words[0]).parent, stdin=typed, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        # A thread of its own: a pipe that nobody reads is full after 64 KiB, and the
        # program would stand still in its print(). Of an endless one the end will do.
        for data in iter(lambda: self.process.stdout.read1(65_536), b""):
            self.printed = self.printed[-100_000:] + data

    def ended(self):
        return self.process.poll() is not None

    def last_words(self):
        """The last line that it printed before it ended; mostly its exception."""
        self.process.wait()
        self.reader.join(PATIENCE)
        text = self.printed.decode("utf-8", "replace").strip()
        if self.process.returncode == 0:
            return "none: it has come to its end. Is there a loop around accept()?"
        last = text[text.rfind("\n") + 1:].strip()[:3 * SHOWN]
        # The innermost line of the student's own file, as the traceback names it.
        places = re.findall(rf'File ".*{re.escape(self.file)}", line (\d+)', text)
        place = f" ({self.file}, line {places[-1]})" if places else ""
        return last + place

    def prints(self, pattern, limit=STARTING):
        """Wait until it has printed this; return the match, or None."""
        end = time.monotonic() + limit
        while True:
            ended = self.ended()    # first this: what it printed last must be seen too
            if ended:
                self.reader.join(PATIENCE)
            match = re.search(pattern, self.printed.decode("utf-8", "replace"))
            if match or ended or time.monotonic() > end:
                return match
            time.sleep(0.01)

    def types(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def close(self):
        # A session of its own, so that what it has started itself goes with it.
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):           # Windows has none
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.reader.join(PATIENCE)
        # Who has left even the session still holds the pipe. It must not hold us.
        if not self.reader.is_alive():
            self.process.stdout.close()
        if self.process.stdin:
            with contextlib.suppress(OSError):      # it may still hold a typed line
                self.process.stdin.close()


WAYS = ("whole", "a byte at a time", "in two halves", "with a long pause in it")


class Guest:
    """One client that we play. Use it in a `with`: then it hangs up at the end."""

    def __init__(self, stage, program, name, source=None):
        self.stage, self.program, self.name = stage, program, name
        stage.did(f"{name} connects")
        self.rest = b""             # what has come, and was not listened to yet
        self.over = None            # "end" or "reset", when the connection is over
        self.patience = PATIENCE
        self.sock = self.connect(source)
        self.earlier = set(program.guests)
        program.guests.append(self.sock.getsockname())
        # Without this the kernel would glue the bytes that we send one by one.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, source):
        end = time.monotonic() + STARTING
        while True:
            ended = self.program.ended()
            try:
                return socket.create_connection(
                    ("127.0.0.1", self.program.port), PATIENCE, source)
            except OSError as problem:
                last = problem
            if ended or time.monotonic() > end:
                break
            time.sleep(0.02)        # a program needs a moment to start
        self.stage.expect(
            f"{self.program.file} takes the connection", False,
            f"a connection to 127.0.0.1:{self.program.port}", "",
            f"Your program has not started. Its last words: {self.program.last_words()}"
            if ended and not self.program.guests else
            self.why_it_ended() if ended else "Your program runs, but does not listen "
            "on the port that it is given: PORT must come from sys.argv, as in the "
            "lesson, and be used where the server is made.", instead=str(last))

    def why_it_ended(self):
        return ("Your program has ended, and must go on for the others. "
                f"Its last words: {self.program.last_words()}")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.sock.close()

    def send(self, data, way="whole"):
        """Send bytes, and note it. A `way` of WAYS cuts them."""
        self.stage.did(f"{self.name} sends {shown(data)}, {way}")
        self.patience = PATIENCE + len(data) / BYTES_A_SECOND
        size, pause = {"whole": (len(data), 0), "a byte at a time": (1, 0.001),
                       "in two halves": ((len(data) + 1) // 2, 0.02),
                       "with a long pause in it": ((len(data) + 1) // 2, 0.7)}[way]
        with contextlib.suppress(OSError):      # we shall see when we listen
            for start in range(0, len(data), max(1, size)):
                self.sock.sendall(data[start:start + size])
                if start + size < len(data):
                    time.sleep(pause)

    def has_said_all(self):
        self.stage.did(f"{self.name} says that no more will come (SHUT_WR)")
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def resets(self):
        """End the connection at once, as a computer does that loses its power."""
        self.stage.did(f"{self.name}'s connection is reset")
        # SO_LINGER (on, 0 seconds): close() sends RST and not a goodbye.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                             struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        self.sock.close()

    def listen(self, enough):
        """Read until `enough(bytes so far)` says so, or nothing more comes."""
        end = time.monotonic() + self.patience
        while not enough(self.rest) and self.over is None:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.sock.recv(65_536)
            except socket.timeout as pause:
                if pause.errno != errno.ETIMEDOUT:
                    return          # silence
                data = b""
            except OSError:
                self.over = "reset"
                return
            self.rest += data
            if not data:
                self.over = "end"

    def hears(self, expected, *causes):
        """Expect this very line (without its newline). Causes: see find_cause()."""
        line = self.line()
        sentence = f"{self.name} gets the line {shown(expected)}"
        if line == expected:
            return self.stage.expect(sentence, True)
        self.stage.expect(sentence, False, expected, line, self.find_cause(
            line, causes), instead=self.silence())

    def line(self):
        """The next line as text, without its newline; None if none comes."""
        self.listen(lambda so_far: b"\n" in so_far)
        if b"\n" not in self.rest:
            return None
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode("utf-8", "replace").rstrip("\r")

    def hears_end(self, cause):
        """Expect that the connection ends, and that nothing comes before it."""
        self.listen(lambda so_far: so_far)
        self.stage.expect(
            f"{self.name}'s connection is ended by the server",
            not self.rest and self.over, "", self.rest.decode("utf-8", "replace"),
            cause, instead=self.silence())

    def hears_no_more(self):
        """Expect that nothing comes that has not been asked for."""
        self.sock.settimeout(0.05)
        with contextlib.suppress(OSError):
            self.rest += self.sock.recv(65_536)
        self.stage.expect(
            f"{self.name} gets no more than that", not self.rest, "",
            self.rest.decode("utf-8", "replace"), "One line, one answer: this came "
            "although nothing had been asked.")

    def silence(self):
        """What happened where no line came."""
        if self.rest:
            return f"{shown(self.rest)}, and no newline behind it"
        return {None: f"nothing for {self.patience:.0f} seconds",
                "end": "the connection ended",
                "reset": "the connection was reset"}[self.over]

    def find_cause(self, got, causes):
        """The most likely cause: the first of (test, sentence) whose test fits.

        A test is what was got (None: nothing), a function of it, or True: any line.
        A program that has ended is the first cause of all.
        """
        if got is None and self.over:
            # It may take a moment until a program that ends has ended.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.program.process.wait(0.5)
        if self.program.ended():
            return self.why_it_ended()
        if got is None and self.rest.endswith(b"\\n"):
            return "A backslash and an n are no newline: look at the quotes around it."
        if got is None and self.rest:
            return "The line has no “\\n” at its end: the other side still waits."
        for test, sentence in causes:
            if test == got or got is not None and (
                    test is True or callable(test) and test(got)):
                return sentence
        if got == "":
            return "An empty line came: a newline too many."
        if got is not None:
            return "Look at the first difference, above the ^."
        return ("The server has hung up without an answer." if self.over else
                "The server still waits for something, or has forgotten to answer.")


def shown(text):
    """A text or bytes for a report: in quotes, and not too long."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    whole = one_line(text)
    if len(whole) <= SHOWN:
        return f"“{whole}”"
    size = len(text.encode("utf-8", "replace"))
    return f"“{whole[:SHOWN // 2]}…” ({size:,} bytes)"


def one_line(text):
    """With \\n and the like as they are written in a program: a caret needs columns."""
    return "".join(character if character.isprintable() else repr(character)[1:-1]
                   for character in str(text))


def columns(text):
    """How wide a text is on a terminal: a 猫 or 🐈 takes two columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1
               for character in text)


# --- the lessons: their folders, scenes and hints ---

class Lesson:
    """A folder lessons/NN_slug with a page and an exercise."""

    def __init__(self, folder):
        self.folder = folder
        self.number = folder.name[:2]
        specification = importlib.util.spec_from_file_location(
            f"exercise_{self.number}", folder / "exercise.py")
        self.module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(self.module)

    def scenes(self, lessons):
        """All scenes as (kind, title, function of a stage), the oldest first."""
        found = []
        for earlier in lessons:
            # What an earlier lesson built must still work, said in today's way.
            if "01" <= earlier.number <= self.number:
                found += [(f"lesson {earlier.number}", scene, self.talking(scene))
                          for scene in earlier.module.WORKS]
        found += [(f"exercise {self.number}", scene, scene)
                  for scene in self.module.EXERCISE]
        # What the exercise must not change: no points, since it comes for nothing.
        found += [(f"still {self.number}", scene, scene) for scene in self.module.STILL]
        return [(kind, scene.__doc__.split("\n")[0], play)
                for kind, scene, play in found]

    def talking(self, scene):
        return lambda stage: scene(stage, self.module.talk)

    def hints(self):
        """The hints of the page: each in a part that is folded away."""
        page = (self.folder / "README.md").read_text(encoding="utf-8")
        return [hint.strip() for hint in re.findall(
            r"<summary>Hint \d</summary>\s*(.*?)\s*</details>", page, re.DOTALL)]

    def untouched(self):
        """Whether the student's files are still those that came with the lesson."""
        shipped = json.loads((LESSONS / "untouched.json").read_text(encoding="utf-8"))
        return all(fingerprint(self.folder / name) == wanted
                   for name, wanted in shipped.get(self.folder.name, {}).items())


def fingerprint(path):
    """A short hash of a text; Windows' line ends make no difference."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    return "none"


def all_lessons():
    return [Lesson(file.parent) for file in sorted(LESSONS.glob("*/exercise.py"))
            if re.fullmatch(r"\d\d_\w+", file.parent.name)]


def find_lesson(lessons, word):
    """The lesson meant by "3", "03", or by any path into its folder (VS Code)."""
    # The last one of a path: it may lie in a folder such as 01_school.
    number = word if word.isdecimal() else "".join(
        re.findall(r"(?:^|[\\/])(\d\d)_", word)[-1:])
    for lesson in lessons:
        if number and int(lesson.number) == int(number):
            return lesson
    if re.search(r"(^|[\\/])mine\b", word):     # VS Code, with a file of it open
        stop("which exercise is it? For number 3: python3 lessons/check.py 3 --folder "
             "lessons/mine")
    have = ", ".join(lesson.number for lesson in lessons)
    stop(f"there is no exercise “{word}”; there are {have}")


def stop(sentence):
    print(f"check.py: {sentence}.", file=sys.stderr)
    sys.exit(2)


# --- playing, and saying what was seen ---

def play(scenes, folder, seed, all_of_them):
    """Play the scenes; return [(kind, title, seconds, steps, Failed or None)]."""
    results = []
    stage = Stage(folder)
    with stage.home, contextlib.closing(stage):
        for number, (kind, title, scene) in enumerate(scenes):
            stage.begin(f"{seed}.{number}")
            begin, failed = time.monotonic(), None
            try:
                scene(stage)
            except Failed as problem:
                failed = problem
                stage.close()       # what broke here must not puzzle the next scene
            results.append((kind, title, time.monotonic() - begin, stage.steps, failed))
            if failed and not all_of_them:
                break
    return results


def explain(steps, failed):
    """The lines of a report: what was done, expected and got, and the likely cause."""
    width = max(len(kind) for kind, _ in steps)
    lines = [f"{number:4}. {kind:{width}}  {sentence}"
             for number, (kind, sentence) in enumerate(steps, 1)]
    lines += ["      That did not happen.", ""]
    expected = one_line(failed.expected)
    got = one_line("" if failed.got is None else failed.got)
    at = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1],
                                            zip(expected, got)))
    # Only what is near the difference, of texts that are long.
    cut = max(0, at - SHOWN // 2)
    if expected:
        lines += [f"      expected: {expected[cut:cut + SHOWN]}"]
    if failed.got is not None:
        lines += [f"      got:      {got[cut:cut + SHOWN]}",
                  " " * (16 + columns(got[cut:at])) + "^"]
    else:
        lines += [f"      got:      ({failed.instead})"]
    if failed.cause:
        lines += ["", "Most likely: " + failed.cause]
    return lines


def report(lesson, results, seed, options):
    """Print the outcome for people; return the exit status."""
    for kind, title, seconds, _, failed in results:
        print(f"  {'NOT YET' if failed else 'ok':8}{kind}: {title}")
    kind, title, _, steps, failed = results[-1]
    if not failed:
        print(f"Well done: exercise {lesson.number} is solved.")
        return 0
    print(f"\n{kind}: {title}", *explain(steps, failed), sep="\n")
    if kind.startswith("still"):
        print("This worked before you began with the exercise.")
    page = (lesson.folder / "README.md").relative_to(PROJECT).as_posix()
    heading = "“Exercise”" if not kind.startswith("lesson") else (
        "“Build it” (something that worked when the lesson began)")
    print(f"\nRead again: {page}, {heading}")
    if not options.folder and lesson.untouched():
        print(f"This is meant to fail until you have done exercise {lesson.number}: "
              f"nothing in {page.rpartition('/')[0]} has been changed yet.")
    else:
        print(f"The next hint: python3 lessons/check.py {int(lesson.number)} --hint   "
              f"The same once more: --seed {seed}")
    return 1


def report_json(lesson, results, seed):
    """Print what graders read (Gradescope's results.json); return the exit status."""
    tests = []
    for kind, title, _, steps, failed in results:
        # What came with the lesson gives no points: they are for the exercise.
        points = 1 if kind.startswith("exercise") else 0
        tests.append({"name": f"{kind}: {title}", "max_score": points,
                      "score": 0 if failed else points,
                      "status": "failed" if failed else "passed",
                      "output": "\n".join(explain(steps, failed)) if failed else ""})
    solved = all(test["status"] == "passed" for test in tests)
    print(json.dumps({
        "output": f"Exercise {lesson.number}, seed {seed}",
        "execution_time": round(sum(seconds for _, _, seconds, _, _ in results), 2),
        "tests": tests}, indent=2))     # ASCII: no encoding of Windows can spoil it
    return 0 if solved else 1


def next_hint(lesson):
    """Print the next hint. How many were seen stands in a file beside this one."""
    seen_file = LESSONS / ".hints.json"
    seen, hints, number = {}, lesson.hints(), 1
    # Whatever is wrong with that file: then it is the first hint again.
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        seen = dict(json.loads(seen_file.read_text(encoding="utf-8")))
        number = min(max(seen.get(lesson.number, 0), 0) + 1, len(hints))
    print(f"Hint {number} of {len(hints)} for exercise {lesson.number}:\n")
    print(re.sub(r"(?m)^```.*\n?", "", hints[number - 1]))
    seen[lesson.number] = number
    with contextlib.suppress(OSError):      # a folder that we may only read
        seen_file.write_text(json.dumps(seen), encoding="utf-8")


# What a copy for a class must not have: the solutions, what proves them, what only the
# teacher needs, and what does not belong to the project.
NOT_FOR_STUDENTS = shutil.ignore_patterns(
    "solution", "exercises", "test_exercises.py", "*pages*", "consoles.py",
    "test_learners_errors.py", "TEACHER.md",
    "__pycache__", ".git", ".venv", ".pytest_cache", "mine", ".hints.json")


def teacher_copy(folder):
    """Write a copy of the project without solutions."""
    target = Path(folder).resolve()
    if target.exists():
        stop(f"{target} is there already; name a new folder")
    if PROJECT == target or PROJECT in target.parents:
        stop(f"{target} lies within the project; name a folder outside of it")
    try:
        shutil.copytree(PROJECT, target, ignore=NOT_FOR_STUDENTS)
    except OSError as problem:
        stop(f"the copy could not be written ({problem})")
    print(f"{target} is a copy without solutions and without TEACHER.md.")


def read_options(words=None):
    options = argparse.ArgumentParser(
        prog="check.py", description="Check the exercise of a lesson.")
    options.add_argument("lesson", nargs="?", help="its number, or a path into its "
                         "folder")
    options.add_argument("--hint", action="store_true", help="show the next hint")
    options.add_argument("--json", action="store_true", help="a report for graders")
    options.add_argument("--folder", help="where your programs are, if not in the "
                         "lesson's folder")
    options.add_argument("--seed", help="repeat a run")
    options.add_argument("--teacher-copy", metavar="FOLDER", help="write a copy of the "
                         "project without solutions")
    return options.parse_args(words)


def main():
    # An old Windows terminal knows 256 characters only; "?" is better than an end.
    sys.stdout.reconfigure(errors="replace")
    # The exercises say `import check`, and mean this very module.
    sys.modules["check"] = sys.modules["__main__"]
    options = read_options()
    # Ended from outside, as by a closed terminal: the student's program goes as well.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):       # Windows has no SIGHUP
            signal.signal(getattr(signal, name), lambda *ignored: sys.exit(143))
    try:
        return obey(options)
    except KeyboardInterrupt:
        return 130                  # as a shell says it


def obey(options):
    if options.teacher_copy:
        return teacher_copy(options.teacher_copy)
    if not options.lesson:
        stop("which exercise? For example: python3 lessons/check.py 3")
    lessons = all_lessons()
    lesson = find_lesson(lessons, options.lesson)
    if options.hint:
        return next_hint(lesson)
    folder = Path(options.folder or lesson.folder).resolve()
    if options.folder and not folder.is_dir():      # as the pages write it
        folder = PROJECT / options.folder
    missing = [name for name in lesson.module.FILES if not (folder / name).is_file()]
    if missing and options.json:
        print(json.dumps({"score": 0, "output": f"There is no {missing[0]}.",
                          "tests": []}))
    if missing:
        stop(f"there is no {missing[0]} in {folder}")
    seed = options.seed or str(random.randrange(10_000))
    results = play(lesson.scenes(lessons), folder, seed, options.json)
    if options.json:
        return report_json(lesson, results, seed)
    return report(lesson, results, seed, options)


if __name__ == "__main__":
    sys.exit(main())
