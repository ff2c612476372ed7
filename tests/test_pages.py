"""The lessons' pages: what they show is what is there. The guard is tried as well."""
import ast
import concurrent.futures
import json
import random
import re
import textwrap
from pathlib import Path

import pytest

import consoles
import pages

PROJECT = Path(__file__).resolve().parent.parent
LESSONS = PROJECT / "lessons"
PAGES = pages.all_pages()
SCRIPTS = {"server.py": "ChattyCat_Server.py", "client.py": "ChattyCat_Client.py"}

# A lesson's program may have a function that a real script has too. Then it is the
# same to the letter, from this lesson on: before it, a smaller one teaches better.
UNTIL = {("server.py", name): 14 for name in (
    "main", "serve", "lines", "on_chat", "error", "encode", "decode")}
UNTIL.update({("client.py", name): 14 for name in ("main", "lines")})

every_page = pytest.mark.parametrize(
    "path", PAGES, ids=[path.relative_to(LESSONS).as_posix() for path in PAGES])
needs_terminal = pytest.mark.skipif(
    bool(consoles.why_no_console()), reason=consoles.why_no_console() or "-")


def in_words(complaints):
    return "\n".join(f"line {line}: {sentence}" for line, sentence in complaints)


# --- the pages ---

@pytest.fixture(scope="module")
def played():
    """A function that returns a page and what its terminals showed.

    All pages are played at the first call, side by side: mostly they wait.
    """
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = {}

        def get(path):
            for each in [] if jobs else PAGES:
                page = pages.Page(each)
                jobs[each] = page, pool.submit(consoles.play, page)
            page, job = jobs[path]
            return page, job.result()

        yield get


@pytest.fixture
def quick_to_judge(monkeypatch):
    """Where something is meant to be wrong, nobody needs to wait for it to get well."""
    monkeypatch.setattr(consoles, "QUIET", 0.4)


def test_every_lesson_of_the_folder_has_its_page():
    folders = {folder.name for folder in LESSONS.glob("[0-9][0-9]_*")}
    assert len(folders) >= 5
    # Of some the program is here already, and the page is not. The map says of which.
    to_come = re.findall(r"^\| (\d\d) .*\*\(to come\)\*",
                         (LESSONS / "README.md").read_text(encoding="utf-8"), re.M)
    folders = {name for name in folders if name[:2] not in to_come}
    assert folders == {path.parent.name for path in PAGES if pages.Page(path).is_lesson}


@every_page
def test_a_page_is_right(path):
    page = pages.Page(path)
    complaints = pages.compare_still(page)
    complaints += pages.compare_seal(page, pages.read_seals().get(page.name))
    assert not complaints, in_words(complaints)


@needs_terminal
@every_page
def test_the_terminals_of_a_page_show_what_it_says(path, played):
    page, parts = played(path)
    verdict = list(consoles.compare(parts))
    assert not verdict, in_words(verdict)
    assert len(parts) >= sum(block.kind == "console" for block in page.blocks)


# --- lessons and real scripts ---

def functions_of(path):
    """{name: source without indentation} for all functions, methods too."""
    text = pages.read(path)
    lines = text.split("\n")
    functions = [node for node in ast.walk(ast.parse(text))
                 if isinstance(node, ast.FunctionDef)]
    return {node.name: textwrap.dedent(
                "\n".join(lines[node.lineno - 1:node.end_lineno]))
            for node in functions}


def test_a_function_of_a_lesson_is_the_real_one_or_is_said_to_differ():
    shared, strange = set(), []
    for path in LESSONS.glob("[0-9][0-9]_*/*.py"):
        if path.name in SCRIPTS:
            real = functions_of(PROJECT / SCRIPTS[path.name])
            for name, source in functions_of(path).items():
                key = path.name, name
                if name in real and source != real[name]:
                    shared.add(key)
                    if int(path.parent.name[:2]) >= UNTIL.get(key, 0):
                        strange.append(f"{path.parent.name}/{path.name}: {name}")
    assert not strange, "not as in the real script: " + ", ".join(strange)
    assert shared == set(UNTIL), "in the table, but no longer different"


def test_the_lesson_of_each_region_stands_in_the_map():
    lessons = set(re.findall(r"^\| *\[?(\d\d)\b", pages.read(LESSONS / "README.md"),
                             re.MULTILINE))
    for script in SCRIPTS.values():
        named = re.findall(r"^# region .*\(lesson (\d\d)\)$",
                           pages.read(PROJECT / script), re.MULTILINE)
        assert len(named) > 5 and set(named) <= lessons


# --- one character is changed ---

def changed_ways(text, seed):
    """The text with one letter or digit replaced, deleted and doubled."""
    dice = random.Random(f"{seed} {text}")      # the same each time, other for each
    spots = [n for n, sign in enumerate(text) if sign.isalnum()]
    if not spots:
        return
    for way in ("replaced", "deleted", "doubled"):
        at = dice.choice(spots)
        old = text[at]
        other = dice.choice([sign for sign in (
            "0123456789" if old.isdigit() else "abcdefghijklmnopqrstuvwxyz")
            if sign != old])
        new = {"replaced": other, "deleted": "", "doubled": old + old}[way]
        yield way, text[:at] + new + text[at + 1:]


def part_of_text(page, thing):
    """From where to where a thing stands in the text of its page, and its lines."""
    starts = [0]
    for line in page.lines:
        starts.append(starts[-1] + len(line) + 1)
    if thing.kind == "block":
        # From its language to the last line before the closing fence.
        count = thing.text.count("\n")
        begin = starts[thing.line - 1]
        return begin, starts[thing.line + count] - 1, count
    begin = starts[thing.line - 1] + thing.column
    begin = page.text.index(thing.text, begin)      # behind the back-ticks
    return begin, begin + len(thing.text), thing.text.count("\n")


# One thing of so many is changed at a time: those are not near each other, and so each
# is heard of by itself. (One alone at a time took 14 s, and this takes 2: measured.)
APART = 25


@every_page
def test_one_changed_character_anywhere_turns_the_page_red(path):
    page = pages.Page(path)
    sealed = pages.seal_of(page)
    # When a thing is no longer one (htps://), the complaint names the thing before it.
    before = [1] + [thing.line for thing in page.things]
    pairs = list(zip(page.things, before))
    assert sum(assert_each_is_noticed(page, pairs[number::APART], way, sealed)
               for number in range(APART)
               for way in ("replaced", "deleted", "doubled")) > 0


def assert_each_is_noticed(page, pairs, way, sealed):
    """Change all these things, and the guard complains of each; return how many."""
    changed, wanted = page.text, []
    for thing, line_before in reversed(pairs):      # so that the places before stay
        begin, end, more = part_of_text(page, thing)
        text = dict(changed_ways(page.text[begin:end], 1)).get(way)
        if text is not None:
            changed = changed[:begin] + text + changed[end:]
            wanted.append((range(line_before, thing.line + more + 1), text))
    other = pages.Page(page.path, changed)
    found = [complaint.line for complaint in other.complaints
             + list(pages.compare_seal(other, sealed))]
    for lines, text in wanted:
        assert any(line in lines for line in found), (
            f"{page.name}:{lines}: {way}, and nobody noticed: {text}")
    for (later, _), (earlier, _) in zip(wanted, wanted[1:]):
        assert earlier[-1] < later[0], "too near: one complaint would do for both"
    return len(wanted)


@every_page
def test_a_changed_python_block_is_red_without_the_seal_too(path):
    page = pages.Page(path)
    for block in page.blocks:
        if block.kind == "python":
            for number, line in enumerate(block.lines):
                for way, text in changed_ways(line, 2):
                    lines = block.lines[:number] + [text] + block.lines[number + 1:]
                    assert pages.compare_python(page, block._replace(lines=lines)), (
                        f"{page.name}:{block.line}: {way}: {text}")


@needs_terminal
@every_page
def test_a_changed_line_of_output_is_red_against_what_was_printed(path, played):
    page, parts = played(path)
    for part in parts:
        for number, line in enumerate(part.shown):
            # Times and ports change from run to run: the seal alone keeps those.
            rest = consoles.CHANGING.sub("", line)
            ways = list(changed_ways(rest, 3)) if rest == line else []
            for way, text in ways:
                part.shown[number] = text
                verdict = dict(consoles.compare(parts))
                part.shown[number] = line
                assert part.number + number in verdict, f"{page.name}: {way}: {text}"


def last_lines(page):
    """For each terminal of the page: the number of the last line that it shows."""
    found = [[part.number + n for part in consoles.parts_of(block)
              for n, line in enumerate(part.shown) if line.strip() != "..."]
             for block in page.blocks if block.kind == "console"]
    numbers = [numbers[-1] for numbers in found if numbers]
    assert len(numbers) > 2
    return numbers


def play_with_change(page, *numbers):
    """Play the page with one more character in these lines; return {line: verdict}."""
    lines = list(page.lines)
    for number in numbers:
        lines[number - 1] += "!"
    other = pages.Page(page.path, "\n".join(lines), page.project)
    return dict(consoles.compare(consoles.play(other)))


@needs_terminal
def test_a_real_page_with_changed_outputs_is_red_when_it_is_played(quick_to_judge):
    path = next(path for path in PAGES if path.parent.name.startswith("01_"))
    page = pages.Page(path)
    numbers = last_lines(page)
    verdict = play_with_change(page, *numbers)
    assert set(numbers) <= set(verdict), verdict


# --- a lesson made up for the guard ---

PROGRAM = '''\
"""A cat that answers."""
import sys


def answer(text):
    """Return what the cat says to this."""
    # A cat thinks before it speaks.
    if not text:
        return "..."
    return f"miaow, {text}!"


def main():
    print("knocked at", sys.argv[1])
    while True:
        text = input("> ")
        if not text:
            break
        print(answer(text))


if __name__ == "__main__":
    main()
'''

PAGE = '''\
# Lesson 01: A cat

## Goal

A cat answers. It is [this program](cat.py), see [how](#why-it-works).

**New words:** cat, miaow

## See the problem

```console
$ python3 -c "print(answer)"
Traceback (most recent call last):
...
NameError: name 'answer' is not defined
$ date +%H:%M:%S
17:00:00
```

## Predict

What will `answer("")` be?

## Build it

### Step 1. The cat

```diff
# cat.py
+import sys
+
+
+def main():
+    print("knocked at", sys.argv[1])
+    while True:
+        text = input("> ")
+        if not text:
+            break
+        print(text)
+
+
+if __name__ == "__main__":
+    main()
```

```console cat
$ python3 lessons/mine/cat.py
knocked at 9999
```

### Step 2. The answer

```console cat
> hello
hello
>
```

```diff
# cat.py
 import sys
 
 
+def answer(text):
+    if not text:
+        return "..."
+    return f"miaow, {text}!"
+
+
 def main():
 ...
-        print(text)
+        print(answer(text))
```

```console cat
$ python3 lessons/mine/cat.py 9998
knocked at 9998
> Minou
miaow, Minou!
> ^C
Traceback (most recent call last):
...
KeyboardInterrupt
```

## Why it works

```python
# cat.py: answer
    # A cat thinks before it speaks.
    if not text:
        return "..."
```

## Break it

```diff
# cat.py, broken
-    return f"miaow, {text}!"
+    return f"woof, {text}!"
```

```console cat
$ printf "one\\ntwo\\n"
one
two
$ python3 lessons/mine/cat.py
knocked at 9999
> Luna
woof, Luna!
```

## Exercise

See `lessons/01_cat/cat.py` and `PROTOCOL.md`.

<details><summary>Hint 1</summary>a</details>
<details><summary>Hint 2</summary>b</details>
<details><summary>Hint 3</summary>c</details>

## Check yourself

<details><summary>One?</summary>a</details>
<details><summary>Two?</summary>b</details>
<details><summary>Three?</summary>c</details>

## In the real script

`python3 lessons/mine/cat.py 9998` and `sys.argv`.

## When it goes wrong

`EOFError`: see <https://example.org/cats>.
'''


@pytest.fixture
def lesson(tmp_path):
    """A little project of its own, with one lesson; returns the page's path."""
    project = tmp_path.resolve()
    folder = project / "lessons" / "01_cat"
    folder.mkdir(parents=True)
    (project / "tests").mkdir()
    (folder / "cat.py").write_text(PROGRAM, encoding="utf-8")
    (project / "lessons" / "PROTOCOL.md").write_text("# Protocol\n", encoding="utf-8")
    page = folder / "README.md"
    page.write_text(PAGE, encoding="utf-8")
    return page


def project_of(path):
    return path.parent.parent.parent


def run(path, *words):
    """What pages.py says to this page: (its status, what it prints) is up to capsys."""
    return pages.main([*words, str(path)], project_of(path))


def still(path, text):
    page = pages.Page(path, text, project_of(path))
    return in_words(pages.compare_still(page))


@needs_terminal
def test_a_right_page_is_green_and_sealed_and_stays_so(lesson, capsys):
    assert run(lesson) == 1             # no seal yet
    assert "has no seal yet" in capsys.readouterr().out
    assert run(lesson, "--update") == 0
    sealed = pages.read_seals(project_of(lesson))
    assert run(lesson) == 0
    assert run(lesson, "--update") == 0
    assert capsys.readouterr().out == ""
    assert lesson.read_text(encoding="utf-8") == PAGE
    assert pages.read_seals(project_of(lesson)) == sealed
    assert list(sealed) == ["lessons/01_cat/README.md"]


ERRORS = [
    # what is replaced by what, and what the guard says to that
    ("# cat.py: answer\n", "", "begins with where it is from"),
    ("# cat.py: answer", "# dog.py: answer", "there is no file dog.py"),
    ("# cat.py: answer", "# cat.py: bark", "there is no bark in cat.py"),
    ("    # A cat thinks", "    # A dog thinks", "does not stand so in cat.py: answer"),
    ("    if not text:\n        return \"...\"\n```", "    return 1\n```",
     "does not stand so"),
    ("# cat.py\n import", "# cat\n import", "begins with the file that it changes"),
    (" import sys\n \n \n+def", " import os\n \n \n+def", "no such lines: “import os”"),
    ("-        print(text)", "-    print(text)", "no such lines: “print(text)”"),
    ("+    if not text:\n", "+    if text:\n", "is not the lesson's: “if text:”"),
    ("+        print(text)\n", "+        print(text\n", "cat.py is no Python any more"),
    ("-    return f\"miaow", "-    return f\"woof", "no such lines"),
    ("# cat.py, broken", "# dog.py, broken", "there is no such file yet"),
    ("-    return f\"miaow, {text}!\"\n+    return f\"woof, {text}!\"",
     "     text\n+#", "no such lines"),
    ("-    return f\"miaow, {text}!\"\n+    return f\"woof, {text}!\"", " \n+#\n ",
     "more than once"),
    ("`answer(\"\")`", "`ask(\"\")`", "there is no “ask”"),
    ("`PROTOCOL.md`", "`PROTOKOLL.md`", "there is no “PROTOKOLL.md”"),
    ("`sys.argv`", "`sys.argw`", "there is no “argw”"),
    ("cat.py 9998` and", "cat.py --loud` and", "there is no “--loud”"),
    ("cat.py 9998` and", "cat.py 9997` and", "there is no “9997”"),
    ("`sys.argv`", "`sys.argv", "a back-tick that nothing closes"),
    ("(cat.py)", "(dog.py)", "the link leads nowhere: dog.py"),
    ("(#why-it-works)", "(#why-not)", "no heading there is called #why-not"),
    ("## Predict", "## Guess", "not those of a lesson, from “Guess” on"),
    ("What will", "Well, " * 1200 + "what will", "1,200 are enough"),
    ("cat, miaow", "a, b, c, d, e", "more than 4 new words"),
    ("**New words:** ", "New: ", "“Goal” has no line"),
    ("Hint 2", "Tip 2", "wants the hints 1, 2 and 3"),
    ("<details><summary>Two?</summary>b</details>", "", "wants three <details>"),
    ("### Step 2. The", "### The", "begins with “Step 2. ”"),
    ("### Step 2. The answer\n", "", "1 steps: 2 to 6 are right"),
    ("+    main()\n", "+    main()\n" + "+    pass\n" * 8,
     "new lines: about 12 a step"),
    ("### Step 2. The answer\n", "### Step 2. The answer\n" + "well " * 151,
     "words from here to the next terminal"),
    ("```console cat\n> hello\nhello\n>\n```\n", "", None),
]


@pytest.mark.parametrize("old, new, sentence", ERRORS)
def test_each_kind_of_error_is_told_in_its_sentence(lesson, old, new, sentence):
    assert PAGE.count(old) == 1 and old != new
    assert still(lesson, PAGE) == ""
    told = still(lesson, PAGE.replace(old, new))
    assert told == "" if sentence is None else sentence in told


PLAYED = [
    ("miaow, Minou!\n", "miaow, Milou!\n",
     "the terminal shows “miaow, Minou!”, not “miaow, Milou!”"),
    ("hello\n>\n", "hello\nhello\n>\n", "shows nothing more, not “hello”"),
    ("knocked at 9998\n", "", "behind this the terminal shows “knocked at 9998”"),
    ("one\ntwo\n", "two\n", "the terminal shows “one”, not “two”"),
    ("knocked at 9998\n", "knocked at 9999\n", "shows “knocked at 9998”"),
    ("17:00:00", "17:00", "not “17:00”"),
    ("NameError: name", "TypeError: name", "never shows “TypeError: name"),
    ("> hello\nhello\n>\n", "> hello\nhello\n",
     "waited in vain for the prompt “$ ” to type this"),
    ("$ python3 lessons/mine/cat.py 9998", "$ python3 lessons/mine/dog.py 9998",
     "not “knocked at 9998”"),
    ("17:00:00\n", "17:00:00\n^C\n", "nothing runs here any more"),
    ("> Luna\nwoof, Luna!\n", "", None),
    ("woof, Luna!\n", "", "behind this the terminal shows “woof, Luna!”"),
]


@needs_terminal
def test_each_kind_of_wrong_output_is_told_in_its_sentence(lesson, quick_to_judge):
    def play(error):
        old, new, sentence = error
        assert PAGE.count(old) == 1
        page = pages.Page(lesson, PAGE.replace(old, new), project_of(lesson))
        return in_words(consoles.compare(consoles.play(page)))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for told, (old, new, sentence) in zip(pool.map(play, PLAYED), PLAYED):
            assert told == "" if sentence is None else sentence in told, (old, told)


@needs_terminal
def test_a_changed_output_is_red_when_it_is_played(lesson, quick_to_judge):
    page = pages.Page(lesson, project=project_of(lesson))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for line, verdict in zip(last_lines(page), pool.map(
                lambda number: play_with_change(page, number), last_lines(page))):
            assert line in verdict, verdict


@needs_terminal
def test_update_mends_code_and_output_and_nothing_else(lesson, capsys, quick_to_judge):
    broken = PAGE
    for old, new in [("    # A cat thinks", "    # A dog thinks"),
                     ("miaow, Minou!\n", "wow, Minou!\n"),
                     ("hello\n>\n", ">\n"),
                     ("17:00:00", "18:30:00"),
                     ("defined\n$ date", "defined at all\n$ date")]:
        assert broken.count(old) == 1
        broken = broken.replace(old, new)
    lesson.write_text(broken, encoding="utf-8")
    assert run(lesson, "--update") == 0
    assert "README.md:55: mended, was: " in capsys.readouterr().out
    mended = lesson.read_text(encoding="utf-8")
    # Any time will do. The one of the page stays, so that it need not change each day.
    assert mended == PAGE.replace("17:00:00", "18:30:00")
    sealed = pages.read_seals(project_of(lesson))
    assert run(lesson, "--update") == 0
    assert lesson.read_text(encoding="utf-8") == mended
    assert pages.read_seals(project_of(lesson)) == sealed


@needs_terminal
def test_update_reports_what_it_cannot_mend_and_does_not_seal_it(lesson, capsys):
    lesson.write_text(PAGE.replace("`sys.argv`", "`sys.argw`"), encoding="utf-8")
    assert run(lesson, "--update") == 1
    assert "there is no “argw”" in capsys.readouterr().out
    assert pages.read_seals(project_of(lesson)) == {}


def test_a_seal_notices_what_a_comparison_lets_pass(lesson, capsys):
    page = pages.Page(lesson, project=project_of(lesson))
    pages.write_seals({page.name: pages.seal_of(page)}, page.project)
    assert run(lesson, "--quick") == 0
    lesson.write_text(PAGE.replace("17:00:00", "17:00:01"), encoding="utf-8")
    assert run(lesson, "--quick") == 1
    assert "changed by hand" in capsys.readouterr().out


def test_the_seals_are_those_of_the_pages():
    names = [path.relative_to(PROJECT).as_posix() for path in PAGES]
    assert list(json.loads(pages.seal_file(PROJECT).read_text("utf-8"))) == names


# --- what only a whole page shows ---

@every_page
def test_what_is_folded_away_is_closed_again(path):
    text = path.read_text(encoding="utf-8")
    for tag in ("details", "summary"):
        assert text.count(f"<{tag}>") == text.count(f"</{tag}>")
    assert set(re.findall(r"</?(\w+)>", text)) <= {"details", "summary"}


def test_pages_name_what_f5_can_start():
    launch = (PROJECT / ".vscode" / "launch.json").read_text(encoding="utf-8")
    text = " ".join(" ".join(path.read_text(encoding="utf-8").split())
                    for path in PAGES)
    named = re.findall(r"(?:F5(?: on)?|choose) “([^”]+)”", text)
    assert len(named) >= 3
    assert [name for name in named if f'"name": "{name}"' not in launch] == []


@needs_terminal
@pytest.mark.parametrize("old, new", [
    ("> hello\n", ">hello\n"),                      # nearly typed
    ("> hello\n", "hello\n"),                       # no longer typed at all
], ids=["nearly", "not at all"])
def test_update_takes_nothing_away_that_is_typed(lesson, old, new, quick_to_judge):
    text = PAGE.replace(old, new, 1)
    assert text != PAGE
    lesson.write_text(text, encoding="utf-8")
    assert run(lesson, "--update") == 1
    assert lesson.read_text(encoding="utf-8") == text


@needs_terminal
def test_update_does_not_teach_what_a_broken_program_prints(lesson, quick_to_judge):
    (lesson.parent / "cat.py").write_text(
        PROGRAM.replace("def main():", "def main():\n    1 / 0"), encoding="utf-8")
    text = PAGE.replace("+def main():", "+def main():\n+    1 / 0")
    lesson.write_text(text, encoding="utf-8")
    assert run(lesson, "--update") == 1
    assert lesson.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("old, new, sentence", [
    ("(cat.py)", "(cat.py", "a link that is not whole"),
    ("[", "\\[", "would hide something"),
    ("```console cat\n", "    ```console cat\n", "this is no fence"),
    ("## Predict", "<!-- -->\n## Predict", "would hide something")])
def test_nothing_hides_from_the_guard(lesson, old, new, sentence):
    assert old in PAGE
    assert sentence in still(lesson, PAGE.replace(old, new, 1))
