"""The house: what a reader, a teacher and VS Code rely on in every version."""
import ast
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SERVER = PROJECT / "ChattyCat_Server.py"
CLIENT = PROJECT / "ChattyCat_Client.py"
TERMINAL = PROJECT / "lessons" / "21_another_face" / "ChattyCat_Terminal.py"
TOP_LEVEL = {
    "ChattyCat_Server.py", "ChattyCat_Client.py", "lessons", "tests", "README.md",
    "LICENSE", "requirements-dev.txt", ".ci", ".github", ".gitignore", ".pytest.ini",
    ".vscode"}

both_scripts = pytest.mark.parametrize(
    "script", [SERVER, CLIENT], ids=["server", "client"])


# --- the two scripts: something to read from top to bottom ---

def text_of(script):
    return script.read_text(encoding="utf-8")


def regions_of(script):
    """The regions, as [number, title, the lines between its two markers]."""
    regions, inside = [], None
    for number, line in enumerate(text_of(script).splitlines(), 1):
        where = f"{script.name}, line {number}: {line}"
        if line.strip().startswith("# region"):
            heading = re.fullmatch(r"# region (\d+)\. (.+)  \(lesson \d\d\)", line)
            assert heading, f"wants '# region N. Title  (lesson NN)': {where}"
            assert inside is None, f"the region before has not ended: {where}"
            inside = [int(heading[1]), heading[2], []]
        elif line.strip().startswith("# endregion"):
            assert line == "# endregion" and inside, f"ends no region: {where}"
            regions.append(inside)
            inside = None
        elif inside:
            inside[2].append(line)
    assert inside is None, f"{script.name}: region {inside[0]} never ends"
    return regions


def map_of(script):
    """The regions that the docstring at the top announces, as [number, title]."""
    docstring = ast.get_docstring(ast.parse(text_of(script)), clean=False)
    lines = re.findall(r"^  ( \d|\d\d)  (\S.*?)(?: — .*)?$", docstring, re.MULTILINE)
    return [[int(number), title] for number, title in lines]


@both_scripts
def test_regions_come_in_order_and_the_map_lists_them(script):
    regions = [region[:2] for region in regions_of(script)]
    numbers = [number for number, title in regions]
    assert numbers == sorted(set(numbers)) and len(numbers) > 5
    assert map_of(script) == regions


@both_scripts
def test_no_region_is_longer_than_250_lines(script):
    lengths = {title: len(lines) for number, title, lines in regions_of(script)}
    assert {title: lines for title, lines in lengths.items() if lines > 250} == {}


def test_the_wire_is_the_same_to_the_letter():
    wires = [region for script in (SERVER, CLIENT) for region in regions_of(script)
             if region[0] == 2]
    assert len(wires) == 2 and wires[0] == wires[1]


def test_lines_fit_beside_each_other_on_a_screen():
    files = [file for pattern in ("*.py", "tests/**/*.py", "lessons/**/*.py")
             for file in PROJECT.glob(pattern)]
    wide = [f"{file.name}:{number}" for file in files
            for number, line in enumerate(text_of(file).splitlines(), 1)
            if len(line) > 88]
    assert len(files) > 3
    assert not wide, "wider than 88: " + ", ".join(wide)


def comment_lines_a_code_line(text):
    """Comments on lines of their own, docstrings included, for each line of code."""
    lines, comments, code = text.split("\n"), set(), set()
    no_code = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
               tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        first, column = token.start
        if token.type == tokenize.COMMENT:
            if not lines[first - 1][:column].strip():
                comments.add(first)
        elif token.type not in no_code:
            code.update(range(first, token.end[0] + 1))
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if ast.get_docstring(node) is not None:
                string = node.body[0]
                docstrings.update(range(string.lineno, string.end_lineno + 1))
    comments.update(number for number in docstrings if lines[number - 1].strip())
    return len(comments) / len(code - docstrings)


@pytest.mark.parametrize("script", [SERVER, CLIENT, TERMINAL],
                         ids=["server", "client", "terminal"])
def test_comments_explain_without_burying_the_code(script):
    ratio = comment_lines_a_code_line(text_of(script))
    assert 0.5 <= round(ratio, 2) <= 0.8


# --- the two scripts: Python alone is enough ---

def is_standard_library(module):
    if hasattr(sys, "stdlib_module_names"):
        return module in sys.stdlib_module_names
    # Python 3.9 has no such list. What it cannot find is another system's, as msvcrt.
    found = importlib.util.find_spec(module)
    return found is None or str(PROJECT) not in str(found.origin) and (
        "site-packages" not in str(found.origin))


@both_scripts
def test_the_standard_library_of_python_3_9_is_enough(script):
    tree = ast.parse(text_of(script), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    # Pillow, where it is there, shows more kinds of pictures; all else works without.
    foreign = [name for name in imported
               if not is_standard_library(name.split(".")[0]) and name != "PIL"]
    assert "socket" in imported and foreign == []


@both_scripts
def test_nothing_happens_at_import(script, tmp_path):
    environment = {**os.environ, "CHATTYCAT_HOME": str(tmp_path)}
    environment.pop("DISPLAY", None)
    code = f"import threading, {script.stem}; print(threading.enumerate())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment,
                          capture_output=True, text=True, timeout=30)
    assert re.fullmatch(r"\[<_MainThread\(MainThread, started \d+\)>\]\n", done.stdout)
    assert (done.stderr, done.returncode, os.listdir(tmp_path)) == ("", 0, [])


@both_scripts
def test_the_script_can_be_run_by_its_name(script):
    assert text_of(script).splitlines()[0] == "#!/usr/bin/env python3"
    assert os.access(script, os.X_OK)


def test_the_top_level_holds_no_more_than_the_layout_says():
    if not shutil.which("git") or not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout: what else lies here is not ours to judge")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {path.split("/")[0] for path in listed}
    assert "ChattyCat_Server.py" in found and found - TOP_LEVEL == set()


# --- .vscode: its entries have to fit the scripts ---

def vscode(name):
    """A file of .vscode: JSON, but with // comments."""
    text = text_of(PROJECT / ".vscode" / name)
    # A string is tried first and kept, so a // inside of one ("http://…") stays.
    string_or_comment = r'("(?:\\.|[^"\\])*")|//.*'
    return json.loads(re.sub(string_or_comment, lambda found: found[1] or "", text))


def in_folder(path):
    return Path(path.replace("${workspaceFolder}", str(PROJECT)))


def with_a_lesson_open(args):
    """The args while somebody has a file of lesson 03 in the editor."""
    return [word.replace("${relativeFileDirname}", "lessons/03_a_stream_of_bytes")
            for word in args]


def answers(args, inputs):
    """The args as the script gets them, once for each answer to VS Code's question."""
    args = with_a_lesson_open(args)
    for input_ in inputs:
        asked = "${input:%s}" % input_["id"]
        if asked in args:
            assert input_["default"] in input_["options"]
            return [[option if word == asked else word for word in args]
                    for option in input_["options"]]
    return [args]


def assert_understands(script, args):
    """Does the script take these args? --version would not tell: it does not look on.

    With one word more that is certainly wrong, it complains of all that it does not
    know. So it may complain of that one alone.
    """
    done = subprocess.run([sys.executable, script, *args, "--no-such-option"],
                          capture_output=True, text=True, timeout=30)
    assert "unrecognized arguments: --no-such-option" in done.stderr
    assert done.returncode == 2


def test_f5_starts_programs_with_options_that_they_know():
    launch = vscode("launch.json")
    started = set()
    for entry in launch["configurations"]:
        assert entry["type"] == "debugpy" and "python" not in entry, entry["name"]
        if entry["program"] != "${file}":
            for args in answers(entry.get("args", []), launch["inputs"]):
                assert "${" not in "".join(args)
                assert_understands(in_folder(entry["program"]), args)
            started.add(in_folder(entry["program"]))
    assert started == {SERVER, CLIENT, PROJECT / "lessons" / "check.py"}


def test_f5_starts_a_server_and_clients_together():
    launch = vscode("launch.json")
    entries = {entry["name"]: entry for entry in launch["configurations"]}
    for compound in launch["compounds"]:
        members = compound["configurations"]
        assert set(members) <= set(entries) and compound["stopAll"]
        for name in members:
            # Without it VS Code asks whether the one that runs already is not enough.
            alone = members.count(name) == 1
            assert alone or entries[name]["suppressMultipleSessionWarning"]
    assert members == ["Server", "Client", "Client"]


def test_tasks_start_programs_with_options_that_they_know():
    tasks = {task["label"]: task for task in vscode("tasks.json")["tasks"]}
    for task in tasks.values():
        assert task["command"] == "${command:python.interpreterPath}"
        assert in_folder(task["options"]["cwd"]) == PROJECT
        assert task.get("dependsOn") in [None, *tasks]
        if task["args"] != ["-m", "tests"]:
            assert_understands(PROJECT / task["args"][0],
                               with_a_lesson_open(task["args"][1:]))
    assert tasks["ChattyCat: run the tests"]["args"] == ["-m", "tests"]


def server_task_matcher():
    return next(task["problemMatcher"] for task in vscode("tasks.json")["tasks"]
                if task.get("isBackground"))


def is_busy(lines):
    """Whether VS Code takes the server's task for busy after these lines."""
    background = server_task_matcher()["background"]
    busy = background["activeOnStart"]
    for line in lines:
        if not busy and re.search(background["beginsPattern"], line):
            busy = True
        elif re.search(background["endsPattern"], line):
            busy = False
    return busy


def test_vs_code_sees_when_the_server_can_be_talked_to(start_server, join):
    server = start_server()
    join("Minou", server)
    server.wait_for_line("Minou")
    assert is_busy([])
    assert not is_busy(server.lines[:1])
    assert not is_busy(server.lines)  # nor does it look busy again later


def test_vs_code_sees_why_the_server_could_not_start(server):
    second = subprocess.run([sys.executable, SERVER, "--port", str(server.port)],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=30)
    pattern = server_task_matcher()["pattern"]
    problem = re.search(pattern["regexp"], second.stderr, re.MULTILINE)
    assert problem, second.stderr
    assert PROJECT / problem[pattern["file"]] == SERVER
    assert f"port {server.port} " in problem[pattern["message"]]
