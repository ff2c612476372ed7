"""Holds the lessons' pages to the code: what a page shows is what is really there.

    python3 tests/pages.py                            compare all pages
    python3 tests/pages.py lessons/03_*/README.md     only these
    python3 tests/pages.py --quick                    without playing the terminals
    python3 tests/pages.py --update                   repair what can be repaired

Five things of a page are held:
  - a ```python block, `# PATH` or `# PATH: NAME` first, stands so in that file;
  - a ```diff block, `# NAME.py` first, changes the student's file as it is by then, and
    all of them together make the lesson's own NAME.py (`# NAME.py, broken` is taken
    back at the next heading);
  - a ```console block is played: see consoles.py beside this file;
  - what stands in back-ticks exists;
  - a link leads to something.
And the seal, pages.json beside this file, has a short hash of each of them. So whoever
changes one character by hand hears of it, also where a comparison lets it pass (a time,
a port). A lesson's page also has a form to keep: see compare_form.
"""
import ast
import builtins
import collections
import difflib
import errno
import functools
import glob
import hashlib
import importlib
import io
import itertools
import json
import keyword
import os
import pathlib
import re
import sys
import textwrap
from typing import NamedTuple

import consoles

PROJECT = pathlib.Path(__file__).resolve().parent.parent
SECTIONS = ["Goal", "See the problem", "Predict", "Build it", "Why it works",
            "Break it", "Exercise", "Check yourself", "In the real script",
            "When it goes wrong"]
BY_HAND = ("this was changed by hand since it was last compared; if it is meant, run "
           "python3 tests/pages.py --update")

# Words in back-ticks that stand in no program of ours, and what they are.
WORDS = {
    "python3 python py pip sudo apt brew git nc": "programs",
    "telnet ss lsof netstat taskkill kill curl chmod": "programs",
    "cd cp ls mkdir cat exit": "programs",
    "Ctrl Alt Shift Enter Esc Tab F5 C D": "keys",
    "VS Code main mine N NN NAME": "names that stand for something",
    "m c venv": "what Python itself is told: python3 -m venv",
    "9999 9998": "the ports of all pages",
    "utf UTF 8": "the encoding",
}
MODULES = ("socket", "json", "sys", "threading", "time", "os", "errno")
TYPES = (str, bytes, bytearray, int, float, list, tuple, dict, set, io.TextIOWrapper)


class Complaint(NamedTuple):
    line: int
    sentence: str


# --- a page, and what is held of it ---

class Thing(NamedTuple):
    """A block, a span in back-ticks or a link: what the seal remembers."""
    line: int           # where it begins, from 1
    column: int
    kind: str           # the language of a block, or "span" or "link"
    text: str

    @property
    def hash(self):
        return hashlib.sha256(f"{self.kind}\n{self.text}".encode()).hexdigest()[:12]


class Block(NamedTuple):
    """Code between two fences, without the fences."""
    line: int           # of the first fence; lines[0] is the line behind it
    indent: int
    info: str           # "console server"
    lines: list

    @property
    def kind(self):
        return (self.info.split() or [""])[0]


SPAN = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r'''!?(?:\[(?P<text>[^\[\]]*))?\]\(<?(?P<inline>[^)\s>]+)>?\)
    | ^\[[^\]\n]+\]:[ ]*(?P<below>\S+)
    | (?:href|src)="(?P<html>[^"]+)"
    | (?P<bare>https?://[^\s)>"]+)''', re.VERBOSE | re.MULTILINE)


class Page:
    """A page, cut into its blocks, spans, links and headings."""

    def __init__(self, path, text=None, project=PROJECT):
        self.path, self.project = pathlib.Path(path).resolve(), project
        self.folder = self.path.parent
        self.name = self.path.relative_to(project).as_posix()
        self.text = self.path.read_text(encoding="utf-8") if text is None else text
        self.lines = self.text.split("\n")
        self.complaints = []
        self.blocks, self.prose = self.cut()
        self.headings = [
            Thing(number, 0, found[1], found[2].strip())
            for number, line in enumerate(self.prose, 1)
            if (found := re.match(r"(#+) (.+)", line))]
        self.spans, self.links = self.find_spans_and_links()
        blocks = [Thing(block.line, block.indent, "block",
                        "\n".join([block.info, *block.lines])) for block in self.blocks]
        self.things = sorted(blocks + self.spans + self.links + self.headings)

    @property
    def is_lesson(self):
        return bool(re.fullmatch(r"lessons/\d\d_\w+/README\.md", self.name))

    def cut(self):
        """The blocks, and all lines with nothing in them where a block stood."""
        blocks, prose, block, fence = [], [], None, ""
        for number, line in enumerate(self.lines, 1):
            opens = re.match(r"( *)(```+)\s*([^`]*)$", line)
            if block is None and opens:
                fence = opens[2]
                if len(opens[1]) > 3:
                    self.complain(number, "so far to the right, this is no fence")
                block = Block(number, len(opens[1]), opens[3].strip(), [])
            elif block is None:
                prose.append(line)
                continue
            elif line.strip() == fence:
                blocks.append(block)
                block = None
            else:
                block.lines.append(line[min(block.indent, indent_of(line)):])
            prose.append("")
        if block:
            self.complain(block.line, "this block never ends")
        return blocks, prose

    def find_spans_and_links(self):
        text = "\n".join(self.prose)
        spans = [self.thing(found, "span", found[2]) for found in SPAN.finditer(text)]
        # What stands in back-ticks is no link. Blanks keep all places as they are.
        bare = SPAN.sub(lambda found: re.sub(r"[^\n]", "x", found[0]), text)
        for found in re.finditer("`+", bare):
            thing = self.thing(found, "", "")
            self.complain(thing.line, "a back-tick that nothing closes")
        for found in re.finditer(r"\](?=\()", LINK.sub(
                lambda link: re.sub(r"[^\n]", "x", link[0]), bare)):
            self.complain(self.thing(found, "", "").line, "a link that is not whole")
        for found in re.finditer(r"\\[`\[\]!]|~~~|<(pre|code|a|img)\b|(?<!^)<!--(?=.*>)"
                                 if self.is_lesson else r"~~~", text):
            self.complain(self.thing(found, "", "").line,
                          f"“{found[0]}” would hide something from this guard")
        links = [self.thing(found, "link", text[found.start():found.end()])
                 for found in LINK.finditer(bare)]
        return spans, links

    def thing(self, found, kind, text):
        before = found.string[:found.start()]
        column = found.start() - (before.rfind("\n") + 1)
        return Thing(before.count("\n") + 1, column, kind, text)

    def complain(self, line, sentence):
        self.complaints.append(Complaint(line, sentence))

    @functools.cached_property
    def bench(self):
        """The student's files, all through the page: see Workbench."""
        return Workbench(self)

    @property
    def story(self):
        return self.bench.story


def indent_of(line):
    return len(line) - len(line.lstrip(" "))


def read(path):
    """The text of a file; the same file is read once only."""
    status = os.stat(path)
    return read_once(str(path), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=None)
def read_once(path, *version):
    return pathlib.Path(path).read_text(encoding="utf-8")


def write(path, text):
    with open(path, "w", encoding="utf-8", newline="\n") as file:   # on Windows too
        file.write(text)


def find_file(page, path):
    """The file or folder that a page means: one beside it, or one of the project."""
    for folder in (page.folder, page.project / "lessons", page.project):
        if (folder / path).exists():
            return folder / path
    return None


# --- where lines stand in others ---

def places(pieces, lines, start=0):
    """All ways to find the pieces (lists of lines) in this order: where each begins."""
    if not pieces:
        yield []
        return
    first = pieces[0]
    for at in range(start, len(lines) - len(first) + 1):
        if lines[at:at + len(first)] == first:
            for rest in places(pieces[1:], lines, at + len(first)):
                yield [at, *rest]


def pieces_of(lines):
    """The lines, cut at each that is only `...`."""
    groups = itertools.groupby(lines, lambda line: line.strip() == "...")
    return [list(group) for is_gap, group in groups if not is_gap]


def stripped(lines, indent):
    """Without so much indentation; None for a line that has less."""
    return [None if line[:indent].strip() else line[indent:].rstrip() for line in lines]


# --- python blocks: they stand so in their file ---

@functools.lru_cache(maxsize=None)
def definition(text, name):
    """The lines of a function, class or constant of this source; None if not there."""
    body = ast.parse(text).body
    for part in name.split("."):
        node = next((node for node in body if part in names_defined(node)), None)
        if node is None:
            return None
        body = getattr(node, "body", [])
    first = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
    return text.split("\n")[first - 1:node.end_lineno]


def names_defined(node):
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [getattr(node, "name", None)]


def source_of(page, block):
    """The lines that a python block is from, or a sentence why there are none."""
    found = re.fullmatch(r"# ([\w./-]+\.py)(?:: ([\w.]+))?", (block.lines or [""])[0])
    if not found:
        return ("a python block begins with where it is from: “# PATH” or "
                "“# PATH: NAME”")
    path = find_file(page, found[1])
    if not path:
        return f"there is no file {found[1]}"
    if not found[2]:
        return read(path).split("\n")
    lines = definition(read(path), found[2])
    return lines or f"there is no {found[2]} in {found[1]}"


def compare_python(page, block):
    source = source_of(page, block)
    if isinstance(source, str):
        return Complaint(block.line + 1, source)
    lines = textwrap.dedent("\n".join(line for line in block.lines[1:]
                                      if line.strip() != "...")).split("\n")
    rest = iter(lines)      # an `...` has the indentation that looks best
    lines = [line if line.strip() == "..." else next(rest).rstrip()
             for line in block.lines[1:]]
    pieces = pieces_of(lines)
    for indent in sorted({indent_of(line) for line in source if line.strip()}):
        if any(True for place in places(pieces, stripped(source, indent))):
            return None
    there = {line.strip() for line in source} | {"..."}
    strange = (number for number, line in enumerate(block.lines[1:], block.line + 2)
               if line.strip() not in there)
    return Complaint(next(strange, block.line),
                     f"this does not stand so in {block.lines[0][2:]}")


def mended_python(page, block):
    """The block as its source has it now, or None where that cannot be told."""
    source = source_of(page, block)
    old = block.lines[1:]
    if isinstance(source, str) or any(line.strip() == "..." for line in old):
        return None
    same = difflib.SequenceMatcher(
        None, [line.strip() for line in source], [line.strip() for line in old],
        autojunk=False).get_matching_blocks()[:-1]
    if sum(match.size for match in same) * 2 < len(old):
        return None
    # Lines in front of the first that is the same and behind the last one count too.
    begin = max(same[0].a - same[0].b, 0)
    end = same[-1].a + same[-1].size + len(old) - same[-1].b - same[-1].size
    new = textwrap.dedent("\n".join(source[begin:end])).split("\n")
    indent = " " * min(indent_of(line) for line in old if line.strip())
    return [block.lines[0], *((indent + line).rstrip() for line in new)]


def compare_typed(block):
    """A line that is nearly a typed one would be taken for output, and be “mended”."""
    for number, line in enumerate(block.lines, block.line + 1):
        if line[:1] in ("$", ">", "^") and not consoles.TYPED.fullmatch(line):
            yield Complaint(number, "is this typed? Then it is “$ …”, “> …” or a key")


# --- diff blocks: steps from file to file ---

class Workbench:
    """The student's folder lessons/mine, through all steps of a page.

    `story` has each diff and console block of the page in order, with the files as
    they are then: {name: text}. It begins with what the lesson's folder `start` has.
    """
    def __init__(self, page):
        self.page, self.story, self.complaints = page, [], []
        self.files, self.broken = programs_before(page), {}
        self.touched = collections.defaultdict(lambda: 1)   # name -> its last step
        events = [event for event in page.blocks + page.headings
                  if event.kind in ("##", "###", "diff", "console")]
        for event in sorted(events, key=lambda event: event.line):
            if isinstance(event, Thing):        # a heading
                self.broken = {}
                continue
            if event.kind == "diff":
                self.apply(event)
            files = {**self.files, **self.broken}
            self.story.append((event, {name: "\n".join(lines)
                                       for name, lines in files.items()}))
        # Also those that no step has touched: they are shown at work all the same.
        for name in self.files:
            if page.is_lesson and (page.folder / name).exists() or name in self.touched:
                self.compare_end(name)

    def apply(self, block):
        found = re.fullmatch(r"# (\w+\.py)(, broken)?", (block.lines or [""])[0])
        if not found:
            self.complain(block.line + 1, "a diff block begins with the file that it "
                                          "changes: “# NAME.py” or “# NAME.py, broken”")
            return
        name, is_sabotage = found[1], bool(found[2])
        self.broken = {}
        try:
            changed = change(self.files.get(name), block.lines[1:])
            if is_sabotage:
                self.broken = {name: changed}
                return
            self.files[name] = changed
            self.touched[name] = block.line
            ast.parse("\n".join(changed))
        except SyntaxError as problem:      # before ValueError: it is one of them
            self.complain(block.line, f"{name} is no Python any more: {problem}")
        except ValueError as problem:
            self.complain(block.line, f"{name}: {problem}")

    def compare_end(self, name):
        """At the end of the page the student has the lesson's own program."""
        path = self.page.folder / name
        if not path.exists():
            self.complain(self.touched[name], f"the lesson has no {name} to compare to")
            return
        try:
            mine, theirs = (code_of(text).split("\n")
                            for text in ("\n".join(self.files[name]), read(path)))
        except SyntaxError:
            return              # the step has complained already
        for ours, wanted in itertools.zip_longest(mine, theirs, fillvalue=""):
            if ours != wanted:
                self.complain(self.touched[name], f"after all steps {name} is not the "
                              f"lesson's: “{ours.strip()}” is “{wanted.strip()}” there")
                return

    def complain(self, line, sentence):
        self.complaints.append(Complaint(line, sentence))


def programs_before(page):
    """What the student begins with: what the lesson's folder `start` holds."""
    return {path.name: read(path).split("\n")
            for path in sorted((page.folder / "start").glob("*.py"))}


def change(lines, diff):
    """The lines after the diff; a ValueError says why it does not fit."""
    if all(line.startswith("+") for line in diff):
        return [line[1:] for line in diff] + [""]
    if lines is None:
        raise ValueError("there is no such file yet: a new one has “+” lines only")
    hunks = hunks_of(diff)
    olds = [old for old, new in hunks]
    if not all(olds):
        raise ValueError("lines behind “...” need one that is there already")
    found = list(itertools.islice(places(olds, [line.rstrip() for line in lines]), 2))
    if len(found) != 1:
        raise ValueError("these lines stand there more than once" if found else
                         "the file has no such lines: " + first_missing(olds, lines))
    lines = list(lines)
    for at, (old, new) in reversed(list(zip(found[0], hunks))):
        lines[at:at + len(old)] = new
    return lines


def hunks_of(diff):
    """The diff, cut at its ` ...`: each piece as (lines before, lines after)."""
    hunks = [([], [])]
    for line in diff:
        mark, text = line[:1] or " ", line[1:].rstrip()
        if mark not in " +-":
            raise ValueError(f"a line of a diff begins with “ ”, “+” or “-”: {line}")
        if mark == " " and text.strip() == "...":
            hunks.append(([], []))
            continue
        if mark in " -":
            hunks[-1][0].append(text)
        if mark in " +":
            hunks[-1][1].append(text)
    return [hunk for hunk in hunks if hunk != ([], [])]


def first_missing(olds, lines):
    there = {line.rstrip() for line in lines}
    missing = [line for old in olds for line in old if line not in there]
    return f"“{missing[0].strip()}”" if missing else "not one below the other"


@functools.lru_cache(maxsize=None)
def code_of(text):
    """The code alone: no comments, no docstrings, and always laid out the same way."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (
                ast.get_docstring(node, clean=False) is not None):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


# --- spans in back-ticks: what they name exists ---

@functools.lru_cache(maxsize=None)
def names_in(text):
    """All names, words in strings and numbers of a source; comments do not count."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        for field, value in ast.iter_fields(node):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, (str, bytes, int, float)):
                    names.update(words_of(str(item)))
    # A method command_who is /who, on_chat is the message chat.
    names.update(name.partition("_")[2] for name in list(names)
                 if name.startswith(("on_", "command_", "console_")))
    return frozenset(names)


def words_of(text):
    return re.findall(r"\w+", text)


@functools.lru_cache(maxsize=None)
def names_of_python():
    names = {*dir(builtins), *keyword.kwlist, *errno.errorcode.values()}
    for kind in TYPES:
        names.update(dir(kind))
    for line in WORDS:
        names.update(line.split())
    return frozenset(names)


@functools.lru_cache(maxsize=None)
def names_of_module(name):
    try:
        module = importlib.import_module(name)
    except ImportError:
        return frozenset()
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return frozenset({name, *dir(module), *itertools.chain(*map(dir, classes))})


def programs_of(page):
    """The sources that a page may name: its lesson's, the two scripts, the checker."""
    lessons = page.project / "lessons"
    paths = [*page.project.glob("*.py"), *lessons.glob("*.py")]
    if page.folder != lessons:
        paths += page.folder.glob("**/*.py")
    return [read(path) for path in sorted(paths)]


def names_for(page):
    """All that may stand in a page's back-ticks."""
    names = set(names_of_python())
    programs = programs_of(page)
    imported = {*MODULES}
    for text in programs + [text for _, files in page.story[-1:]
                            for text in files.values()]:
        try:
            names |= names_in(text)
        except SyntaxError:
            continue                # in a step: said already
    for text in programs:
        imported.update(re.findall(r"^import (\w+)", text, re.MULTILINE))
    for module in imported - {"tkinter", "ChattyCat_Server", "ChattyCat_Client"}:
        names |= names_of_module(module)
    for block in page.blocks:
        names.update(words_of("\n".join(block.lines)))
    protocol = page.project / "lessons" / "PROTOCOL.md"
    if protocol.exists() and page.path != protocol:
        names |= words_of_blocks(read(protocol), page.project)
    return names


@functools.lru_cache(maxsize=None)
def words_of_blocks(text, project):
    page = Page(project / "lessons" / "PROTOCOL.md", text, project)
    return frozenset(word for block in page.blocks for line in block.lines
                     for word in words_of(line))


def options_for(page):
    """All words of the project's programs that look like an option."""
    paths = [*page.project.glob("*.py"), *page.project.glob("lessons/**/*.py"),
             pathlib.Path(__file__)]
    return frozenset().union(*(options_in(read(path)) for path in paths))


@functools.lru_cache(maxsize=None)
def options_in(text):
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))


def strange_in(span, page, names, options):
    """What in a span is neither there nor known; "" if all is well."""
    # Not words: what an escape like \n or \xc3 ends with, and the b of b"".
    text = re.sub(r"""\\(x..|u....|[nrtb0'"\\])|\b[bfr]+(?=["'])""", " ", span)
    for word in text.split():
        word = word.lstrip("@")         # @FILE: options from a file
        if re.fullmatch(r"--?[a-z][\w-]*", word):
            if word not in options and word not in ("-m", "-c"):
                return word
        elif is_path(word):
            if not exists(page, word):
                return word
        else:
            for name in words_of(word):
                if name not in names and not (
                        name.endswith("_") and any(n.startswith(name) for n in names)):
                    return name
    return ""


def is_path(word):
    return bool(re.fullmatch(r"[\w.-]+(/[\w.*-]+)*/?", word)) and (
        "/" in word or word.endswith((".py", ".md", ".json", ".patch", ".txt")))


def exists(page, path):
    path = path.rstrip("/")
    if find_file(page, path) or any(page.project.glob(path)) or (
            any(page.project.glob(f"lessons/*/{path}"))):
        return True
    mine = re.fullmatch(r"(?:(?:lessons/)?mine(?:/|$))?(.*)", path)[1]
    return mine in ("", *page.bench.files) or any(
        mine == block.lines[0][2:] for block in page.blocks
        if block.kind == "diff" and block.lines)


def compare_spans(page):
    names, options = names_for(page), options_for(page)
    for span in page.spans:
        strange = strange_in(span.text, page, names, options)
        if strange:
            yield Complaint(span.line, f"`{span.text}`: there is no “{strange}”")


# --- links: they lead somewhere ---

def slugs(page):
    """The anchors that GitHub makes of a page's headings."""
    found = {}
    for heading in page.headings:
        text = re.sub(r"[^\w\- ]", "", heading.text.lower()).replace(" ", "-")
        count = found[text] = found.get(text, -1) + 1
        yield f"{text}-{count}" if count else text


def compare_links(page):
    for link in page.links:
        found = LINK.match(link.text)
        target = found["inline"] or found["below"] or found["html"] or found["bare"]
        if re.match(r"[a-z]+:", target):
            continue            # somebody else's: a test has no network
        path, _, anchor = target.partition("#")
        file = page.folder / path if path else page.path
        if not file.exists():
            yield Complaint(link.line, f"the link leads nowhere: {target}")
        elif anchor and file.suffix == ".md":
            there = page if file.resolve() == page.path else Page(
                file, project=page.project)
            if anchor not in slugs(there):
                yield Complaint(link.line, f"no heading there is called #{anchor}")


# --- the form of a lesson's page ---

def count_words(lines):
    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", "\n".join(lines))
    return sum(1 for word in text.split() if any(map(str.isalnum, word)))


def section(page, title, marks="##"):
    """The line numbers (from 1) of a section, its heading included."""
    starts = [heading for heading in page.headings if len(heading.kind) <= len(marks)]
    for heading, after in itertools.zip_longest(starts, starts[1:]):
        if (heading.kind, heading.text) == (marks, title):
            return range(heading.line, after.line if after else len(page.lines) + 1)
    return range(0)


def prose_in(page, numbers):
    return [page.prose[number - 1] for number in numbers]


def compare_form(page):
    titles = [heading.text for heading in page.headings if heading.kind == "##"]
    if titles != SECTIONS:
        wrong = next((title for title, wanted in itertools.zip_longest(titles, SECTIONS)
                      if title != wanted), None)
        yield Complaint(1, f"the sections are not those of a lesson, from “{wrong}” on")
    words = count_words(page.prose)
    if words > 1200:
        yield Complaint(1, f"{words} words of prose: 1,200 are enough")
    goal = "\n".join(prose_in(page, section(page, "Goal")))
    new = re.search(r"\*\*New words:\*\* (.+)", goal)
    if not new:
        yield Complaint(1, "“Goal” has no line “**New words:** a, b, c”")
    elif len(new[1].split(",")) > 4:
        yield Complaint(1, "more than 4 new words")
    yield from compare_folded(page)
    yield from compare_steps(page)


def compare_folded(page):
    hints = section(page, "Exercise")
    found = re.findall(r"<details>\s*<summary>Hint (\d)</summary>",
                       "\n".join(prose_in(page, hints)))
    if found != ["1", "2", "3"]:
        yield Complaint(max(hints.start, 1), "“Exercise” wants the hints 1, 2 and 3")
    checks = section(page, "Check yourself")
    if "\n".join(prose_in(page, checks)).count("<details>") != 3:
        yield Complaint(max(checks.start, 1), "“Check yourself” wants three <details>")


def compare_steps(page):
    build = section(page, "Build it")
    steps = [heading for heading in page.headings
             if heading.kind == "###" and heading.line in build]
    if not 2 <= len(steps) <= 6:
        yield Complaint(max(build.start, 1), f"{len(steps)} steps: 2 to 6 are right")
    total = 0
    for number, step in enumerate(steps, 1):
        if not step.text.startswith(f"Step {number}. "):
            yield Complaint(step.line, f"this heading begins with “Step {number}. ”")
        lines = section(page, step.text, "###")
        blocks = [block for block in page.blocks if block.line in lines]
        added = sum(line.startswith("+") and line.strip() != "+" for block in blocks
                    if block.kind == "diff" for line in block.lines)
        total += added
        if added > 14:
            yield Complaint(step.line, f"{added} new lines: about 12 a step")
        says_so = "does not run yet" in " ".join(prose_in(page, lines))
        if not says_so and "console" not in [block.kind for block in blocks]:
            yield Complaint(step.line, "nothing runs in this step; if that is meant, "
                                       "it says “does not run yet”")
    if total > 44:
        yield Complaint(max(build.start, 1), f"{total} new lines: about 40 a lesson")
    yield from compare_pauses(page, build)


def compare_pauses(page, build):
    """Nobody reads on for long without running something."""
    runs = [block.line for block in page.blocks
            if block.kind == "console" and block.line in build]
    for first, second in zip(runs, runs[1:]):
        words = count_words(prose_in(page, range(first, second)))
        if words > 150:
            yield Complaint(first, f"{words} words from here to the next terminal: "
                                   "150 are enough")


# --- the seal ---

def seal_file(project):
    return project / "tests" / "pages.json"


def read_seals(project=PROJECT):
    path = seal_file(project)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def seal_of(page):
    return [thing.hash for thing in page.things]


def compare_seal(page, sealed):
    """Complain of each thing that is not what it was when the page was last right."""
    if sealed is None:
        yield Complaint(1, "this page has no seal yet: python3 tests/pages.py --update")
        return
    steps = difflib.SequenceMatcher(None, sealed, seal_of(page), autojunk=False)
    for what, _, _, begin, end in steps.get_opcodes():
        changed = page.things[begin:end]
        if what == "delete":
            line = page.things[begin - 1].line if begin else 1
            yield Complaint(line, f"something is gone behind this: {BY_HAND}")
        elif what != "equal":
            yield from (Complaint(thing.line, BY_HAND) for thing in changed)


# --- all together ---

def compare_still(page):
    """All complaints that need nobody to play a terminal, and no seal."""
    complaints = list(page.complaints)
    for block in page.blocks:
        if block.kind == "python":
            complaints.append(compare_python(page, block))
        if block.kind == "console":
            complaints += compare_typed(block)
    complaints += page.bench.complaints
    complaints += compare_spans(page)
    complaints += compare_links(page)
    if page.is_lesson:
        complaints += compare_form(page)
    return sorted(filter(None, complaints))


def all_pages(project=PROJECT):
    return sorted(path for path in (project / "lessons").glob("**/*.md")
                  if "mine" not in path.relative_to(project).parts)


def update(page, parts):
    """Write into the page what is really so; return the new page, or None.

    Only what then stands the test: the page is played again before it is written.
    """
    new = {}
    for block in page.blocks:
        if block.kind == "python" and compare_python(page, block):
            lines = mended_python(page, block)
            if lines:
                new[block.line, block.line + len(block.lines)] = lines, block.indent
    # After a trouble (a program that did not start, say) nothing is what it should be.
    trouble = any(part.trouble for part in parts)
    for part, ports in [] if trouble else consoles.broken_parts(parts):
        lines = consoles.mended(part, ports)
        if lines is not None:
            last = part.number - 1 + len(part.shown)
            lines[:1] = [part.before + line for line in lines[:1]]
            new[part.number - 1, last] = lines, part.block.indent
    lines = list(page.lines)
    for (begin, end), (instead, indent) in sorted(new.items(), reverse=True):
        instead = [(" " * indent + line).rstrip() for line in instead]
        # A program that breaks must not become what the page teaches.
        breaks = "Traceback" in "".join(instead) and (
            "Traceback" not in "".join(lines[begin:end]))
        # Nor is anything taken away: it may be a typed line, with a letter missing.
        if breaks or len(instead) < end - begin:
            return None
        lines[begin:end] = instead
    if not new or page.path.read_text(encoding="utf-8") != page.text:  # written since
        return None
    mended = Page(page.path, "\n".join(lines), page.project)
    if any(consoles.compare(consoles.play(mended))):
        return None
    for begin, end in sorted(new):
        print(f"{page.name}:{begin + 1}: mended, was: " + " / ".join(
            page.lines[begin:end]))
    write(page.path, mended.text)
    return mended


def look_at(path, project, quick):
    page = Page(path, project=project)
    parts = [] if quick or consoles.why_no_console() else consoles.play(page)
    played = [Complaint(*verdict) for verdict in consoles.compare(parts)]
    return page, parts, sorted(compare_still(page) + played)


def main(words=None, project=PROJECT):
    words = sys.argv[1:] if words is None else words
    is_update, quick = "--update" in words, "--quick" in words
    if is_update and (quick or consoles.why_no_console()):
        sys.exit("--update plays the terminals: " + (
            consoles.why_no_console() or "not together with --quick"))
    if not quick and consoles.why_no_console():
        print("Not compared: what the terminals show.", consoles.why_no_console())
    strange = [word for word in words if word.startswith("--")
               and word not in ("--update", "--quick")]
    named = [path for word in words if not word.startswith("--")
             for path in glob.glob(word) or [word]]
    strange += [path for path in named if not os.path.isfile(path)]
    if strange:
        sys.exit(f"{strange[0]} is neither a page nor an option (--update, --quick)")
    seals, new_seals, status = read_seals(project), {}, 0
    for path in named or all_pages(project):
        page, parts, complaints = look_at(path, project, quick)
        mended = update(page, parts) if complaints and is_update else None
        if mended:
            page, complaints = mended, compare_still(mended)
        if is_update and not complaints:
            new_seals[page.name] = seal_of(page)
        if not is_update:
            complaints += compare_seal(page, seals.get(page.name))
        for line, sentence in sorted(complaints):
            status = 1
            print(f"{page.name}:{line}: {sentence}", flush=True)
    if is_update:
        # Read once more: somebody may have sealed other pages meanwhile.
        write_seals({**read_seals(project), **new_seals}, project)
    if is_update and project == PROJECT and not status:
        write_untouched()
    return status


def write_seals(seals, project):
    """The seals of the pages that there are, in their order."""
    names = [path.relative_to(project).as_posix() for path in all_pages(project)]
    kept = {name: seals[name] for name in names if name in seals}
    write(seal_file(project), json.dumps(kept, indent=1) + "\n")


def write_untouched():
    """Note how the exercises' files come, so that check.py sees who has begun."""
    sys.path.insert(0, str(PROJECT / "lessons"))
    import check            # here, since comparing the pages needs nothing of it
    files = {lesson.folder.name: {name: check.fingerprint(lesson.folder / name)
                                  for name in lesson.module.FILES}
             for lesson in check.all_lessons()}
    write(PROJECT / "lessons" / "untouched.json", json.dumps(files, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
