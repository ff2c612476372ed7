"""Each exercise is proven: it fails as it comes, and passes when it is solved."""
import concurrent.futures
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LESSONS = PROJECT / "lessons"
DIFFERENT = PROJECT / "tests" / "exercises"


def load_check():
    """lessons/check.py as a module; the exercises say `import check` and mean it."""
    specification = importlib.util.spec_from_file_location(
        "check", LESSONS / "check.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["check"] = module
    specification.loader.exec_module(module)
    return module


check = load_check()
ALL = check.all_lessons()
each_lesson = pytest.mark.parametrize("lesson", ALL, ids=lambda lesson: lesson.number)


def play(lesson, folder, seed="1", all_of_them=False):
    return check.play(lesson.scenes(ALL), folder, seed, all_of_them)


def failure(results):
    """The first Failed among the results; None if there is none."""
    return next((failed for *_, failed in results if failed), None)


def run_check(*words, folder=PROJECT):
    return subprocess.run(
        [sys.executable, str(folder / "lessons" / "check.py"), *words], text=True,
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        env={**os.environ, "PYTHONUTF8": "1"})


# --- as it comes, and solved ---

UNTOUCHED = {
    "00": "server_options.txt still says 9999.",
    "01": "The greeting came, and no second line. That is the exercise.",
    "02": "The text came back, and no second line. That is the exercise.",
    "03": "The line was taken. Look at its length before you answer it",
    "04": "The server does not know a ping yet"}


@each_lesson
def test_as_it_comes_it_is_meant_to_fail_and_says_so(lesson):
    done = run_check(lesson.number)
    assert done.returncode == 1, done.stdout
    assert f"This is meant to fail until you have done exercise {lesson.number}" \
        in done.stdout
    assert f"NOT YET exercise {lesson.number}" in done.stdout
    assert f"Most likely: {UNTOUCHED[lesson.number]}" in done.stdout
    # By what was expected, and neither by a crash nor by waiting in vain.
    assert "Traceback" not in done.stdout and "seconds" not in done.stdout


@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.long)])
@each_lesson
def test_the_solution_passes_twenty_times(lesson, times, tmp_path):
    # Eight at a time: a check mostly waits for the network.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda seed: play(
            lesson, solution(lesson, tmp_path / str(seed)), str(seed)), range(times)))
    assert len(runs) == times
    for results in runs:
        assert failure(results) is None, check.explain(*results[-1][3:])
        # The exercise itself, and what all lessons until now have built.
        kinds = {kind for kind, *_ in results}
        assert f"exercise {lesson.number}" in kinds
        assert {f"lesson {earlier.number}" for earlier in ALL[1:]
                if earlier.number <= lesson.number} <= kinds


def solution(lesson, folder):
    """A copy of the solution; where a port stands in it, with one of its own."""
    shutil.copytree(lesson.folder / "solution", folder)
    port = str(check.free_port())
    for file in folder.glob("*_options.txt"):
        write(folder, file.name, file.read_text(encoding="utf-8").replace("9876", port))
    return folder


@each_lesson
def test_one_that_is_built_quite_differently_passes(lesson, tmp_path):
    if lesson.number == "00":       # there is one way only; other words for it are good
        write(tmp_path, "server_options.txt", "--port\n9123\n--host\n127.0.0.1\n")
        write(tmp_path, "client_options.txt", "# mine\n\n--port 9123\n--theme dark\n")
        write(tmp_path, "answer.txt", "answer: C \n")
    else:
        shutil.copy(DIFFERENT / f"{lesson.number}.py", tmp_path / "server.py")
    results = play(lesson, tmp_path)
    assert failure(results) is None, check.explain(*results[-1][3:])


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")


# --- wrong in ways in which people go wrong ---

# Each is the solution with some changes, and what the report must say of it.
WRONG = {
    "00": [
        ("the client was forgotten", "client_options.txt",
         [("--port ", "--port 9000\n#")],
         "both files must name the same"),
        ("no dashes", "server_options.txt", [("--port", "port")],
         "The server ended, and said why"),
        ("any free port", "server_options.txt", [("--port ", "--port 0\n#")],
         "both files must name the same"),
        ("a firewall", "answer.txt", [("answer: c", "answer: b")],
         "“Refused” is an answer, and it comes at once."),
        ("no letter", "answer.txt", [("answer: c", "answer:")], "There is no letter"),
        ("two letters", "answer.txt", [("answer: c", "answer: c or d")],
         "The answer is one of the letters"),
    ],
    "01": [
        ("the server's end", "server.py",
         [("ip, port = address", "ip, port = connection.getsockname()")],
         "That is the server's own end."),
        ("as a pair", "server.py", [("{ip}:{port}", "{address}")],
         "Python prints it as a pair"),
        ("no port", "server.py", [("{ip}:{port}", "{ip}")], "The port is missing"),
        ("the first one for ever", "server.py",
         [("    ip, port = address\n", "    FIRST.append(address)\n"
           "    ip, port = FIRST[0]\n"), ("HOST = ", "FIRST = []\nHOST = ")],
         "That was the address of an earlier client"),
        ("written into it", "server.py", [("{ip}:{port}", "127.0.0.1:54321")],
         "That is nobody's address here."),
        ("a text", "server.py", [(".encode())", ")")],
         "TypeError: a bytes-like object is required"),
        ("no newline", "server.py", [("{port}\\n", "{port}")],
         "The line has no “\\n” at its end"),
        ("no hanging up", "server.py",
         [("            with connection:", "            KEPT.append(connection)\n"
           "            if True:"), ("HOST = ", "KEPT = []\nHOST = ")],
         "After these two lines the server hangs up"),
        ("other words", "server.py", [("You are {ip}", "You are at {ip}")],
         "the words around it must be those of the exercise"),
        ("one guest only", "server.py", [("        while True:", "        if True:")],
         "Your program has ended, and must go on for the others."),
        ("another port", "server.py", [("int(sys.argv[1])", "int(sys.argv[1]) + 1")],
         "does not listen on the port that it is given"),
    ],
    "02": [
        ("bytes twice", "server.py", [("{len(text)}", "{len(data)}")],
         "Both are bytes."),
        ("characters twice", "server.py", [("{len(data)}", "{len(text)}")],
         "Both are characters."),
        ("swapped", "server.py", [("{len(text)} characters, {len(data)}",
                                   "{len(data)} characters, {len(text)}")],
         "The two are swapped."),
        ("the last piece only", "server.py",
         [("{len(data)} bytes", "{len(data[-(len(data) % 5 or 5):])} bytes")],
         "Only one piece was counted."),
        ("each piece decoded", "server.py",
         [("pieces.append(piece)", "pieces.append(piece.decode().encode())")],
         "UnicodeDecodeError"),
        ("half letters left out", "server.py",
         [("pieces.append(piece)",
           "pieces.append(piece.decode('utf-8', 'ignore').encode())")],
         "put all pieces together first"),
        ("good grammar", "server.py",
         [("{len(text)} characters", "{len(text)} character{'s'[:len(text) != 1]}")],
         "always “characters”"),
        ("stripped", "server.py", [("{len(data)} bytes", "{len(data.strip())} bytes"),
                                   ("{len(text)} c", "{len(text.strip())} c")],
         "count what came, and not what is left after strip()"),
        ("as JavaScript counts", "server.py",
         [("{len(text)} c", "{len(text.encode('utf-16-le')) // 2} c")],
         "An emoji is one character here."),
        ("a silent end of bad bytes", "server.py",
         [('return "That was not UTF-8.\\n"', 'return ""')],
         "The server has hung up without an answer."),
        ("counting what is no text", "server.py",
         [('was not UTF-8.\\n"', 'was not UTF-8.\\n0 characters, 0 bytes\\n"')],
         "What is no text gets this one line, and nothing else."),
        ("the pieces of the one before", "server.py",
         [("    pieces = []\n", "    pieces = PIECES\n"),
          ('return b"".join(pieces)', 'return b"".join([PIECES.pop(0) for _ in '
           'list(PIECES)])'), ("HOST = ", "PIECES = []\nHOST = ")],
         "put all pieces together first"),
        ("the answer counted", "server.py",
         [("{len(text)} c", "{len('You said: ' + text)} c")],
         "Count the text that came"),
    ],
    "03": [
        ("whole lines only", "server.py",
         [("        if len(rest) >= LINE_LIMIT:\n            raise LineTooLong\n", "")],
         "The server waits for the newline of a line that is too long already."),
        ("the rest only", "server.py",
         [("            if len(line) >= LINE_LIMIT:\n"
           "                raise LineTooLong\n", ""),
          ("recv(4096)", "recv(100_000)")],
         "The line was taken."),
        ("one byte too strict", "server.py", [("LINE_LIMIT = 65_536", "LINE_LIMIT = "
                                               "65_535")],
         "exactly 65,536 bytes with its newline: that is allowed"),
        ("one byte too mild", "server.py", [("LINE_LIMIT = 65_536", "LINE_LIMIT = "
                                             "65_537")], "The line was taken."),
        ("characters", "server.py",
         [("if len(line) >= LINE_LIMIT:",
           "if len(line.decode('utf-8', 'ignore')) >= LINE_LIMIT:"),
          ("if len(rest) >= LINE_LIMIT:",
           "if len(rest.decode('utf-8', 'ignore')) >= LINE_LIMIT:")],
         "The limit is in bytes"),
        ("not caught", "server.py", [("except LineTooLong:", "except KeyError:")],
         "LineTooLong"),
        ("no hanging up", "server.py",
         [("raise LineTooLong\n            yield line",
           "line = b'!'\n            yield line"),
          ('return f"You said: {text}\\n"', 'return "! That line is too long.\\n" '
           'if text == "!" else f"You said: {text}\\n"')],
         "After a line that is too long the server hangs up"),
        ("all of the piece is lost", "server.py",
         [("        rest = pieces.pop()\n", "        if max(map(len, pieces)) >= "
           "LINE_LIMIT:\n            raise LineTooLong\n        rest = pieces.pop()\n"),
          ("recv(4096)", "recv(200_000)")],
         "A good line came first"),
        ("all that ever came is counted", "server.py",
         [("        pieces = (rest", "        total += len(data)\n"
           "        if total > LINE_LIMIT:\n            raise LineTooLong\n"
           "        pieces = (rest"),
          ('    rest = b""', '    total = 0\n    rest = b""')],
         "What has been answered does not count any more."),
        ("a limit for each recv()", "server.py",
         [("            if len(line) >= LINE_LIMIT:\n"
           "                raise LineTooLong\n", ""),
          ("if len(rest) >= LINE_LIMIT:", "if len(data) >= LINE_LIMIT:")],
         "The line was taken."),
        ("a reset ends it", "server.py", [("except OSError as problem",
                                           "except KeyError as problem")],
         "Your program has ended"),
        ("before the cut", "server.py",
         [("        pieces = (rest", "        if len(rest + data) > LINE_LIMIT:\n"
           "            raise LineTooLong\n        pieces = (rest")],
         "exactly 65,536 bytes with its newline: that is allowed"),
        ("one byte too patient", "server.py",
         [("if len(rest) >= LINE_LIMIT:", "if len(rest) > LINE_LIMIT:")],
         "The server waits for the newline of a line that is too long already."),
        ("one byte too impatient", "server.py",
         [("if len(rest) >= LINE_LIMIT:", "if len(rest) >= LINE_LIMIT - 1:")],
         "exactly 65,536 bytes with its newline: that is allowed"),
        ("everything within a moment is a message", "server.py",
         [('        data = connection.recv(4096)\n', '        time.sleep(0.2)\n'
           '        data = connection.recv(200_000) or b""\n'),
          ('        rest = pieces.pop()\n', '        rest = pieces.pop() and b""\n'),
          ("import sys\n", "import sys\nimport time\n")],
         "A piece is no line before its newline has come"),
        ("twice", "server.py",
         [("connection.sendall(answer(line).encode())",
           "connection.sendall(answer(line).encode() * 2)")], "One line, one answer"),
        ("silence", "server.py",
         [('connection.sendall(b"! That line is too long.\\n")', "return")],
         "The limit is not looked at here"),
    ],
    "04": [
        ("always 7", "server.py", [('"n": message["n"]}', '"n": 7}')],
         "That is another n"),
        ("n as a text", "server.py",
         [('"n": message["n"]}', '"n": str(message["n"])}')],
         "must go back as one, without quotes"),
        ("n forgotten", "server.py", [('"pong", "n": message["n"]}', '"pong"}')],
         "The n is missing"),
        ("a ping for a ping", "server.py", [('"type": "pong"', '"type": "ping"')],
         "A ping is answered by a pong."),
        ("True is a number", "server.py",
         [('if type(message.get("n")) is not int', 'if not isinstance('
           'message.get("n"), int)')], "true is no whole number"),
        ("n not looked at", "server.py",
         [('if type(message.get("n")) is not int', 'if False')],
         "That n is no whole number"),
        ("n may be anything", "server.py",
         [('if type(message.get("n")) is not int', 'if "n" not in message')],
         "That n is no whole number"),
        ("zero is no number", "server.py",
         [('if type(message.get("n")) is not int', 'if not message.get("n")')],
         "or takes it for a mistake"),
        ("the old code", "server.py", [('error("unknown_type"', 'error("bad_message"')],
         "the code for that is unknown_type"),
        ("upper case too", "server.py", [('message["type"] == "chat"',
                                          'message["type"].lower() == "chat"')],
         "a type is compared to the letter"),
        ("a part is enough", "server.py", [('message["type"] == "ping"',
                                            'message["type"].startswith("ping")')],
         "a type is compared to the letter"),
        ("no newline", "server.py", [('ensure_ascii=False) + "\\n"',
                                      'ensure_ascii=False)')],
         "The line has no “\\n” at its end"),
        ("Python and not JSON", "server.py",
         [("json.dumps(message, ensure_ascii=False)", "str(message)")],
         "That line is no JSON object"),
        ("a list ends it", "server.py",
         [('if type(message.get("n")) is not int',
           'if message.get("n") not in {1: 1} and type(message.get("n")) is not int')],
         "TypeError: unhashable type"),
        ("digits are a number", "server.py",
         [('if type(message.get("n")) is not int',
           'if not str(message.get("n")).lstrip("-").isdigit()')],
         "That n is no whole number"),
        ("an unknown one needs a text", "server.py",
         [('    if message["type"] == "ping"', '    if "text" not in message and '
           '"n" not in message:\n        return error("bad_message", "?")\n'
           '    if message["type"] == "ping"')],
         "the code for that is unknown_type"),
        ("two answers", "server.py",
         [("        connection.sendall(encode(answer(line)))",
           "        connection.sendall(encode(answer(line)) * (1 + (b'pi' in line)))")],
         "That is another n"),
        ("all unknown ones end it", "server.py",
         [('return error("unknown_type"', 'raise ValueError("unknown_type"')],
         "Your program has ended"),
        ("a field too many", "server.py", [('"n": message["n"]}',
                                            '"n": message["n"], "from": "cat"}')],
         "The fields are not those of the exercise"),
    ],
}
ALL_WRONG = {f"{lesson.number} {wrong[0]}": (lesson, *wrong)
             for lesson in ALL for wrong in WRONG[lesson.number]}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What is said to each of them, by its title. Ten at a time: mostly they wait."""
    with pytest.MonkeyPatch.context() as patch:
        # Nobody is slow here, and each that is silent would cost 3 s, or 10.
        patch.setattr(check, "PATIENCE", 2)
        patch.setattr(check, "STARTING", 5)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            return dict(zip(ALL_WRONG, pool.map(
                lambda title: verdict(title, tmp_path_factory.mktemp("wrong")),
                ALL_WRONG)))


def verdict(title, folder):
    lesson, _, name, edits, _ = ALL_WRONG[title]
    mine = solution(lesson, folder / "mine")
    text = (mine / name).read_text(encoding="utf-8")
    for old, new in edits:
        if old not in text:
            return f"the solution has changed: no {old!r} in it"
        text = text.replace(old, new)
    write(mine, name, text)
    failed = failure(play(lesson, mine))
    return failed.cause if failed else "it was not noticed"


@pytest.mark.parametrize("title", ALL_WRONG)
def test_a_wrong_one_is_told_what_is_wrong(title, verdicts):
    assert ALL_WRONG[title][-1] in verdicts[title]


def test_there_are_at_least_three_wrong_ones_for_each():
    assert min(len(WRONG[lesson.number]) for lesson in ALL) >= 3


# --- from lesson to lesson ---

@pytest.mark.parametrize("lesson, following", list(zip(ALL[1:], ALL[2:])),
                         ids=lambda lesson: lesson.number)
def test_the_problem_of_the_next_lesson_is_real(lesson, following):
    """What a lesson ends with works, and cannot do what the next one is about."""
    own = [scene for scene in lesson.scenes(ALL) if scene[0].startswith("lesson")]
    assert failure(check.play(own, lesson.folder, "1", True)) is None
    coming = [scene for scene in following.scenes(ALL)
              if scene[0] == f"lesson {following.number}"]
    assert failure(check.play(coming, lesson.folder, "1", False))


@pytest.mark.parametrize("before, lesson", list(zip(ALL[1:], ALL[2:])),
                         ids=lambda lesson: lesson.number)
def test_a_lesson_starts_with_the_programs_of_the_one_before(before, lesson):
    for name in ("server.py", "client.py"):
        assert (lesson.folder / "start" / name).read_text("utf-8") == \
            (before.folder / name).read_text("utf-8")


@each_lesson
def test_untouched_json_knows_the_files_as_they_come(lesson):
    shipped = json.loads((LESSONS / "untouched.json").read_text(encoding="utf-8"))
    assert shipped[lesson.folder.name] == {
        name: check.fingerprint(lesson.folder / name) for name in lesson.module.FILES
    }, "python3 tests/pages.py --update writes it anew"


# --- what the checker can do besides ---

def test_the_report_has_numbered_steps_and_a_caret_at_the_difference(tmp_path):
    shutil.copytree(ALL[1].folder / "solution", tmp_path / "mine")
    text = (tmp_path / "mine" / "server.py").read_text(encoding="utf-8")
    write(tmp_path / "mine", "server.py", text.replace("You are", "You were"))
    done = run_check("1", "--folder", str(tmp_path / "mine"), "--seed", "5")
    lines = done.stdout.splitlines()
    expected = next(line for line in lines if line.startswith("      expected: "))
    got, caret = lines[lines.index(expected) + 1:lines.index(expected) + 3]
    assert got.startswith("      got:      You were 127.0.0.1:")
    assert caret.index("^") == len("      got:      You ") and len(caret.split()) == 1
    assert expected[:caret.index("^")][16:] == got[:caret.index("^")][16:]
    assert "   1. Action       " in done.stdout and ". Expectation  " in done.stdout
    assert "The same once more: --seed 5" in done.stdout
    assert "meant to fail" not in done.stdout       # somebody has worked on it


def test_a_seed_repeats_a_run_and_another_does_not():
    scenes = [scene for scene in ALL[3].scenes(ALL) if scene[0] == "exercise 03"]

    def sent(seed):
        *_, steps, _ = check.play(scenes, ALL[3].folder, seed, False)[-1]
        return [sentence for _, sentence in steps if "sends" in sentence]
    assert sent("7") == sent("7") != sent("8") != []
    # Without the option it is another one each time: the report says which.
    done = [run_check("1", "--json").stdout for _ in range(3)]
    assert len({json.loads(text)["output"] for text in done}) > 1


@pytest.mark.parametrize("lesson", [ALL[0], ALL[1], ALL[4]],
                         ids=lambda lesson: lesson.number)
def test_json_is_what_gradescope_reads(lesson):
    done = run_check(lesson.number, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 1
    scores = [(test["score"], test["max_score"]) for test in result["tests"]]
    assert len(scores) == len(lesson.scenes(ALL))       # all of them, in spite of one
    # What came with the lesson is worth nothing: nobody has done anything yet.
    assert sum(score for score, _ in scores) == 0 < sum(most for _, most in scores)
    failed = [test for test in result["tests"] if test["status"] == "failed"]
    assert failed and all("expected:" in test["output"] for test in failed)
    solved = run_check(lesson.number, "--json", "--folder",
                       str(lesson.folder / "solution"))
    statuses = {test["status"] for test in json.loads(solved.stdout)["tests"]}
    assert (solved.returncode, statuses) == (0, {"passed"})


def copy_of_project(folder):
    """A copy of what a student has. Nothing is ever written into the real one."""
    shutil.copytree(LESSONS, folder / "lessons", ignore=shutil.ignore_patterns(
        "mine", ".hints.json", "__pycache__"))
    for name in ("ChattyCat_Server.py", "ChattyCat_Client.py"):
        shutil.copy(PROJECT / name, folder)
    return folder


def test_hints_come_one_after_another(tmp_path):
    copy_of_project(tmp_path)
    shown = [run_check("3", "--hint", folder=tmp_path).stdout for _ in range(4)]
    assert [text.split(" for")[0] for text in shown] == [
        "Hint 1 of 3", "Hint 2 of 3", "Hint 3 of 3", "Hint 3 of 3"]
    assert "There are two places where a line can be too long" in shown[0]
    assert "<" not in shown[0]
    assert run_check("2", "--hint", folder=tmp_path).stdout.startswith("Hint 1 of 3")


@pytest.mark.parametrize("word", [
    "3", "03", "lessons/03_a_stream_of_bytes", "lessons/03_a_stream_of_bytes/server.py",
    r"lessons\03_a_stream_of_bytes", "/some/where/lessons/03_a_stream_of_bytes/"])
def test_a_lesson_is_named_by_number_or_by_a_path(word):
    assert check.find_lesson(ALL, word).number == "03"


@pytest.mark.parametrize("words, sentence", [
    ((), "which exercise?"), (("99",), "there is no exercise “99”"),
    (("meow",), "there is no exercise “meow”"),
    (("3", "--folder", "nowhere"), "there is no server.py in")])
def test_what_is_not_there_is_one_sentence_and_status_2(words, sentence):
    done = run_check(*words)
    assert (done.returncode, done.stdout.count("\n")) == (2, 1)
    assert sentence in done.stdout


def test_a_program_that_does_not_even_start_is_no_riddle(tmp_path):
    write(tmp_path, "server.py", "def main(:\n")
    failed = failure(play(ALL[1], tmp_path))
    assert "has not started" in failed.cause and "SyntaxError" in failed.cause
    assert "(server.py, line 1)" in failed.cause


def test_nothing_is_left_over(tmp_path):
    """Also a program that ignores everything is gone when the check is over."""
    write(tmp_path, "server.py", "import os, signal\nsignal.signal(signal.SIGTERM, "
          "signal.SIG_IGN)\nopen('pid', 'w').write(str(os.getpid()))\n"
          "while True: signal.pause()\n")
    stage = check.Stage(tmp_path)
    stage.begin("1")
    program = stage.server()
    stage.close()
    assert program.ended() and program.process.returncode != 0


def test_a_teachers_copy_has_no_solutions(tmp_path):
    target = tmp_path / "class"
    done = run_check("--teacher-copy", str(target))
    assert done.returncode == 0, done.stdout
    assert (target / "lessons" / "03_a_stream_of_bytes" / "server.py").exists()
    assert (target / "ChattyCat_Server.py").exists()
    # What only a solution has, from each lesson's own.
    for secret in ("cat.\\nYou are", "{len(text)} characters",
                   "raise LineTooLong", "def on_ping", "answer: c"):
        found = [str(file) for file in target.rglob("*") if file.is_file() and
                 file.suffix in (".py", ".txt", ".json", ".patch") and
                 secret in file.read_text(encoding="utf-8")]
        assert found == [], secret
    again = run_check("--teacher-copy", str(target))
    assert again.returncode == 2 and "is there already" in again.stdout
    within = run_check("--teacher-copy", str(LESSONS / "copy"))
    assert within.returncode == 2 and not (LESSONS / "copy").exists()
    # …and a student can work with it.
    done = run_check("3", folder=target)
    assert done.returncode == 1 and "This is meant to fail" in done.stdout
