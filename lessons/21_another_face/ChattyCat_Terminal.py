#!/usr/bin/env python3
"""ChattyCat drawn on the terminal: people, conversations, colours, and no window.

Run it (a server must be running: python3 ChattyCat_Server.py):
    python3 ChattyCat_Client.py --terminal
    python3 lessons/21_another_face/ChattyCat_Terminal.py --name Minou    the same

It is a third face of the same chat. The connection, people, conversations, commands,
files: all that is ChattyCat_Client.py, which knows nothing of this file. Such a split
has a name, model and view:

    model   Chat: what is true. It knows no screen
    view    Terminal: what is seen. It keeps nothing that the chat knows

This view draws all anew from the model whenever something has changed, and never asks
what. So it is short, and can never show what is not true any more. And it is fast
enough: `curses` compares, and sends the terminal only those cells that are different.

   1  Cells — text of others, cut into what a terminal can show
   2  The box — where one types
   3  Lines — a conversation as rows, and scrolling in it
   4  The picture — what is drawn where
   5  Keys — what each of them does
   6  The terminal — the face: its loop, its beginning and its end
"""
import collections
import contextlib
import curses
import functools
import io
import itertools
import locale
import os
import re
import signal
import sys
import time
import unicodedata

# Run by itself, it finds the client two folders further up. Started by the client it
# gets the one that runs already: there must not be two classes Chat.
sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..")))
import ChattyCat_Client as client       # noqa: E402 (behind the line that finds it)

# region 1. Cells  (lesson 21)
# A terminal is a grid of cells. What is drawn is a list of pairs (character, look); a
# look is a number that tells curses how: bold, underlined, in which colour. Each of its
# bits is such a wish, and “|” puts two looks together: A_BOLD | A_REVERSE is both.


def cells(text: str, look=0) -> list:
    """Return a text as cells. All that is drawn comes through here.

    So nothing that others write can drive the terminal: clean() takes that out. Here
    go also characters that only change or join others ("Cf", U+FE00 to FE0F): no two
    terminals agree how wide the outcome is, and what follows would stand elsewhere.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(character for character in client.clean(text).expandtabs(4)
                       if unicodedata.category(character) != "Cf"
                       and not "\ufe00" <= character <= "\ufe0f")
    return [(character, look) for character in text]


@functools.lru_cache(None)              # asked for each cell of each picture
def wide(character: str) -> int:
    """Return how many cells a character takes: 猫 two, an accent that stands above the
    letter before it none."""
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def width(row) -> int:
    """Return the same of a row of cells, or of a text."""
    return sum(wide(cell[0]) for cell in row)


def wrap(head: list, body: list, columns: int, indent: int) -> list:
    """Break `head` and `body` into rows, between words of the body if possible.

    All but the first are indented: so nobody can send a text with a row in it that
    looks like somebody else's line.
    """
    # `cut` is the place in `row` behind the last space: there it can be broken. 0: it
    # has none yet, and a word of 4,000 letters is broken where the row is full.
    rows, row, cut, used = [], list(head), 0, width(head)
    for cell in body:
        if cell[0] == "\n" or used + wide(cell[0]) > columns:
            # The word that does not fit goes to the next row, if it has a beginning.
            rest = row[cut:] if cut and cell[0] not in "\n " else []
            rows.append(row[:len(row) - len(rest)])
            row, cut = cells(" " * indent) + rest, 0
            used = width(row)
            if cell[0] in "\n ":
                continue
        row.append(cell)
        used += wide(cell[0])
        cut = len(row) if cell[0] == " " else cut
    return rows + [row]
# endregion


# region 2. The box  (lesson 21)
# What we take for one character can be more for Python: 🇫🇷 two, 👍🏽 two, 👩‍🚀 three. Here
# it is two letters of a flag; or one character, and what is put on it (accents, a
# colour of skin) or joined to it (by U+200D). BackSpace takes all of it away: half an
# emoji would be another one.
CLUSTER = re.compile("[\U0001f1e6-\U0001f1ff]{2}|.(?:[\u0300-\u036f\u20d0-\u20ff\ufe0f"
                     "\U0001f3fb-\U0001f3ff]|\u200d.)*", re.DOTALL)


class Box:
    """What is being typed, and where in it the cursor stands. It knows no screen."""

    def __init__(self):
        self.set("")

    def set(self, text, at=None):
        """Take a text in place of what is there, the cursor behind it or at `at`."""
        self.text, self.at = text, len(text) if at is None else at

    def cut(self, start, end, text=""):
        """Take away what stands from `start` to `end`; put a text there."""
        self.set(self.text[:start] + text + self.text[end:], start + len(text))

    def left(self):
        """Return where the character before the cursor begins."""
        return self.at - len((CLUSTER.findall(self.text[:self.at]) or [""])[-1])

    def right(self):
        """Return where the character behind the cursor ends."""
        return self.at + len((CLUSTER.findall(self.text[self.at:]) or [""])[0])

    def word(self):
        """Return where the word before the cursor begins."""
        return re.search(r"\S*\s*$", self.text[:self.at]).start()

    def row(self, columns):
        """Return (the cells that are seen, where among them the cursor stands).

        Always one row. Of a text that is too long for it: the part with the cursor.
        """
        # Of a pasted book only what can be in sight, or each key would take as long as
        # all of it: 0.5 s with 100,000 characters. Four times the columns, since signs
        # that stand above others take none.
        near = 4 * columns
        before, after = (cells(text.replace("\n", "↵")) for text in (
            self.text[max(0, self.at - near):self.at],
            self.text[self.at:self.at + near]))
        cursor = width(before)
        # How many cells are hidden at the left. As many as leave two thirds of the row
        # to what stands before the cursor: one sees where a correction belongs. But not
        # more than do not fit, or the end of the row would be empty. Below 0: none.
        hidden = min(cursor - columns * 2 // 3, cursor + width(after) - columns + 1)
        while hidden > 0:
            gone = wide(before.pop(0)[0])
            hidden, cursor = hidden - gone, cursor - gone
        return before + after, cursor
# endregion


# region 3. Lines  (lesson 21)
# How the kinds and states of a line look, and some things more. What is not named here
# looks like all text does: the user has chosen how, by the terminal's own settings.
LOOKS = {"title": curses.A_REVERSE, "link": curses.A_UNDERLINE,
         "loud": curses.A_BOLD | curses.A_REVERSE,
         **dict.fromkeys("system time waiting kept offline".split(), curses.A_DIM),
         **dict.fromkeys("notice mention day banner bold".split(), curses.A_BOLD)}
# The server's twelve colours. These of 256 can be read on black and on white, as nobody
# tells us which ground the terminal has. Of 8 there are too few: some share one.
COLOURS_256 = (1, 166, 136, 64, 28, 30, 31, 33, 62, 97, 162, 95)
COLOURS_8 = (1, 1, 5, 2, 2, 6, 6, 4, 4, 5, 5, 1)        # (yellow is nothing on white)


def make_looks() -> dict:
    """Return LOOKS with this terminal's colours in it: red, and name0 to name11.

    Colours can be used only now: curses has to know which terminal it is.
    """
    looks = collections.defaultdict(int, LOOKS)
    with contextlib.suppress(curses.error):     # there are terminals without colours
        curses.start_color()
        curses.use_default_colors()     # lets the ground be as it is
        colours = COLOURS_256 if curses.COLORS >= 256 else COLOURS_8
        for number, colour in enumerate(colours):
            # A pair is ink and ground; -1 is the ground that the terminal has anyway.
            curses.init_pair(number + 1, colour, -1)
            looks[f"name{number}"] = curses.color_pair(number + 1) | curses.A_BOLD
        looks.update(dict.fromkeys(("error", "failed", "unknown", "new"),
                                   curses.color_pair(1)))
        if curses.COLORS >= 256:
            # xterm takes “dim” for nothing, and so a line that waits for its receipt
            # would look like one that has it. This grey is between black and white.
            curses.init_pair(13, 244, -1)
            looks.update({name: curses.color_pair(13) for name in LOOKS
                          if LOOKS[name] == curses.A_DIM})
    return looks


class Lines:
    """The conversation that is shown, as rows; and where in it one is."""

    def rows_up(self, lines, at, hidden):
        """Yield (which line, how many of its rows are below, row) from the bottom up.

        A generator makes only what is asked for: a screenful, and not 5,000 lines.
        (Measured: when 2,000 lines were wrapped for each picture, and 1,000 messages
        came a second, only 55 % of them were shown in time.)
        """
        # Each row brings its address along, (number, below): by it scroll() can say
        # where the bottom of the screen shall be.
        for number in range(at, -1, -1):
            rows = self.rows_of(lines, number)
            for below in range(hidden if number == at else 0, len(rows)):
                yield number, below, rows[-1 - below]

    def rows_of(self, lines, at) -> list:
        """Return a line as rows; above it the day and “New messages”, if it is the
        first of those."""
        line, looks, rows = lines[at], self.looks, []
        columns = self.end - 1
        if at == 0 or lines[at - 1].time.date() != line.time.date():
            day = f" {line.time:%A} {line.time.day} {line.time:%B %Y} "
            rows.append(cells(day.center(columns, "─"), looks["day"]))
        if line is self.chat.current.first_new:
            rows.append(cells(" New messages ".center(columns, "─"), looks["new"]))
        who, look = line.author, looks[f"name{line.color}"]
        if line.kind in ("system", "error"):
            who, look = "*", looks[line.kind]
        elif line.kind == "notice":     # the operator, in brackets, as no name can be
            who, look = "[Server]", looks["notice"]
        # Who names us stands out also where there are no colours.
        look |= curses.A_REVERSE if line.mention else 0
        head = cells(f"{line.time:%H:%M} ", looks["time"]) + cells(who, look)
        # A column for names where there is room; a longer one moves its own text.
        indent = 19 if columns > 55 else 15 if columns > 35 else 2
        head += cells(" " * max(1, indent - width(head)))
        return rows + wrap(head, self.body(line), columns, indent)

    def body(self, line):
        """Return what was said. A line of ours is dim until its receipt is there."""
        look = self.looks["mention" if line.mention else line.state or line.kind]
        # Pairs (text, kind of look): spans() has cut the links out of the text.
        pieces = [(self.about(line), "")] if line.file else client.spans(line.text)
        # Red alone would tell nothing to who sees no red.
        pieces += {"failed": [(" (not sent)", "")],
                   "unknown": [(" (perhaps not sent)", "")]}.get(line.state, [])
        return [cell for piece, kind in pieces
                for cell in cells(piece, look | self.looks[kind])]

    def about(self, line) -> str:
        """Return what there is to say of a file: how it is, and what one can do."""
        shared, transfer, number = line.file, line.file.transfer, line.file.number
        more = "" if line.ref else f" — /save {number} saves it"
        if transfer is not None and not transfer.is_over():
            more = f" — on its way; /cancel {number} stops it"
        elif transfer is not None and transfer.state == "failed":
            more = f" — {transfer.trouble}"
        elif shared.path and not line.ref:
            more = f" — saved as {shared.path}"
        return f"{number}: {line.text}{more}"

    def bottom(self):
        """Return (the lines, which of them is at the bottom, rows of it below that).

        Where one has scrolled to is kept as a line, and not as a number of rows: so it
        stays where it is, whatever comes in below and however the window is pulled.
        """
        lines = list(self.chat.current.lines)
        if self.anchor is not None and self.anchor[0] in lines:
            at = lines.index(self.anchor[0])
            return lines, at, min(self.anchor[1], len(self.rows_of(lines, at)) - 1)
        self.anchor = None              # the newest line; or that one is forgotten
        return lines, len(lines) - 1, 0

    def scroll(self, pages):
        """PgUp (-1) and PgDn (1): a screen less one row, which one has read already."""
        page = max(1, self.height - 3 - len(self.banner()))
        lines, at, hidden = self.bottom()
        if not lines:
            return
        self.below = self.below if self.anchor else 0   # see line_added()
        if pages < 0:
            rows = list(itertools.islice(self.rows_up(lines, at, hidden), 2 * page))
            # The row a page further up becomes the one at the bottom. Only two pages
            # are made: that one, and what will then stand above it. Near the top that
            # is less than a page; then we go up by less, so that the screen is full.
            at, hidden, _ = rows[min(page - 1, max(0, len(rows) - page))]
        else:
            # `hidden` rows of this line are below the screen. A page down there are so
            # many less; below 0 the line has ended, and the next one gives its rows.
            hidden -= page - 1
            while hidden < 0 and at < len(lines) - 1:
                at += 1
                hidden += len(self.rows_of(lines, at))
        # No anchor at the end: it would stand still there while new lines come.
        at_end = at == len(lines) - 1 and hidden <= 0
        self.anchor = None if at_end else (lines[at], max(0, hidden))
# endregion


# region 4. The picture  (lesson 21)
LIST_COLUMNS = 20                       # of the list of people


class Picture(Lines):
    """What is drawn where. It only reads: what the chat knows, and where one has
    scrolled to.

        title          ChattyCat — # Everyone · Minou · connected 127.0.0.1:9999
        banner         what is wrong with the connection, if anything is
        messages       │ people, from 60 columns on
        rule           ↓ 3 new; or how far a file has come
        box            > where one types
    """

    def draw(self):
        """Draw all of it. Top to bottom and left to right: where a character turns out
        wider than we thought, what comes next is drawn over it."""
        self.screen.erase()             # only in memory: the user sees none of it yet
        # Asked anew each time: anybody may pull at the corner of the window.
        self.height, self.columns = self.screen.getmaxyx()
        # Where the messages end. In a narrow window the list would leave too little.
        self.end = self.columns - (LIST_COLUMNS if self.columns >= 60 else 0)
        if self.height < 5 or self.columns < 24:
            rows = wrap([], cells("Window too small"), self.columns - 1, 0)
            for y, row in enumerate(rows[:self.height]):
                self.put(y, 0, row)
        else:
            self.draw_room()
        # In two steps: put together what should be seen; send what is different from
        # what is seen now. One write, so nothing flickers.
        self.screen.noutrefresh()
        curses.doupdate()

    def draw_room(self):
        """Draw the five parts. What belongs where in them they say themselves."""
        looks, end, banner = self.looks, self.end, self.banner()
        self.put(0, 0, cells(self.title().ljust(self.columns), looks["title"]))
        for y, row in enumerate(banner, 1):
            self.put(y, 0, row)
        # The rows between banner and rule. (The bottom one of a screen that is 24 high
        # has the number 23; it is the box, and 22 is the rule.)
        first, last = 1 + len(banner), self.height - 3
        # As many rows as there is room for, from the newest up; drawn from the top.
        rows = list(itertools.islice(self.rows_up(*self.bottom()), last + 1 - first))
        # If they are few, they stand right above the box, where one looks.
        for y, (*_, row) in enumerate(reversed(rows), last + 1 - len(rows)):
            self.put(y, 0, row, end)
        if end < self.columns:
            # All rows, also those behind the last name: the stroke goes down to the
            # rule. next() with [] as its second value is an empty row for them.
            people = iter(self.people(last + 1 - first))
            for y in range(first, last + 1):
                self.put(y, end, cells("│ ", looks["time"]) + next(people, []))
        rule = self.rule()
        self.put(self.height - 2, 0, cells(rule.center(self.columns, "─"),
                                           looks["bold" if rule else "time"]))
        self.draw_box(self.height - 1)

    def draw_box(self, y):
        """Draw what is typed. It is the last, as the terminal's own cursor stays where
        the last character went."""
        prompt, name = "Your name: " if self.asking else "> ", self.chat.current.name
        row, cursor = self.box.row(self.columns - len(prompt) - 1)
        if not (row or self.asking):
            row = cells(f"Message {name}, privately…" if name else "Message everyone…",
                        self.looks["time"])
        self.put(y, 0, cells(prompt, self.looks["bold"]) + row)
        self.screen.move(y, len(prompt) + cursor)

    def put(self, y, x, row, end=None):
        """Write cells from (y, x) on, as far as column `end`. Row, then column: curses
        counts like this, from 0 and from the top left."""
        # Never into the last cell of the screen: some terminals scroll then. (Python
        # counts True as 1: in the last row there is room for one cell less.)
        room = min(end or self.columns, self.columns - (y == self.height - 1)) - x
        with contextlib.suppress(curses.error):     # a resize in this very moment
            self.screen.move(y, x)
            self.screen.clrtoeol()      # what a wide character has spilled here
            for character, look in row:
                room -= wide(character)
                if room < 0:
                    break
                # addstr() writes where the cursor is, and moves it on; by a newline
                # into the next row, and so none gets here.
                self.screen.addstr(character.replace("\n", " "), look)

    def title(self) -> str:
        """Return how much is unread, where one is, who one is, how the connection is.

        The unread ones first: a narrow terminal shows no list, and cuts this line off.
        """
        chat, state, here = self.chat, self.chat.status["state"], self.chat.connection
        unread = sum(talk.unread for talk in chat.conversations.values())
        state = {"online": "connected by TLS" if here and here.known else "connected",
                 "waiting": "reconnecting", "greeting": "connecting"}.get(state, state)
        words = (chat.current.name or "# Everyone", chat.me,
                 f"{state} {here.host}:{here.port}" if here else "not connected")
        return ((f" ({unread})" if unread else "") + " ChattyCat — "
                + " · ".join(filter(None, words)))

    def banner(self) -> list:
        """Return rows that say what is wrong or asked for, and what one can do. So much
        of them that something is left of all the rest."""
        chat, state = self.chat, self.chat.status["state"]
        text = chat.status["text"] + chat.countdown()
        if self.asking:
            text = f"{self.asking} Type your name, and Enter."
            if self.surprised:
                text = f"{self.asking} To choose another one, first press Enter."
        elif state == "waiting":
            text += " /connect tries at once, /quit ends."
        elif state == "offline":
            again = "/trust accepts it" if chat.can_trust() else "/connect tries again"
            text += f" {again}, /quit ends."
        rows = wrap([], cells(text, self.looks["banner"]), self.columns, 0)
        return rows[:self.height - 4] if self.asking or state != "online" else []

    def rule(self) -> str:
        """Return what stands in the line above the box, if anything does: there it is
        near to where one looks while typing."""
        if self.anchor:
            return f" ↓ {self.below} new · Esc " if self.below else " ↓ more · Esc "
        for transfer, (_, line) in self.chat.moving.items():    # the oldest of them
            return f" {line.file.name}: {self.chat.progress(transfer)} "
        return ""

    def people(self, height):
        """Return rows: everyone, who is here, and who is gone and has left something.

        In the order of chat.talks(), in which Ctrl+N goes through them.
        """
        chat, me = self.chat, client.name_key(self.chat.me or "")
        rows = [(chat.everyone, "# Everyone", ""),
                (None, f"PEOPLE ({chat.count})", "day")]
        # Sorted by a pair: False comes before True, so oneself is the first, and only
        # then the names are compared.
        for key in sorted(chat.people, key=lambda key: (key != me, key)):
            name, color = chat.people[key]
            # While we are cut off nobody knows who is there.
            look = f"name{color}" if chat.status["state"] == "online" else "offline"
            you = " (you)" if key == me else ""
            rows.append((chat.conversations.get(key), f"● {name}{you}", look))
        gone = [talk for talk in chat.talks() if talk is not chat.everyone
                and client.name_key(talk.name) not in chat.people]
        rows += [(None, f"OFFLINE ({len(gone)})", "day")] if gone else []
        rows += [(talk, "○ " + talk.name, "offline") for talk in gone]
        # Of a list that is too long: the part with the current conversation.
        at = next((at for at, row in enumerate(rows) if row[0] is chat.current), 0)
        return [self.person(*row) for row in rows[max(0, at - height + 1):][:height]]

    def person(self, talk, text, look):
        """Return a row of the list. Where one is, what is unread, and whether one was
        named in it are signs and not only colours: not everybody sees those."""
        if talk is self.chat.current:   # in the place of the "#", "●" or "○"
            return cells(">" + text[1:], self.looks[look] | curses.A_BOLD)
        row = cells(text, self.looks[look])
        if talk is not None and talk.unread:
            mark = f" ({min(talk.unread, 99)}{'!' if talk.mentions else ''})"
            while width(row) > LIST_COLUMNS - 2 - len(mark):
                row.pop()               # a long name must not hide the mark
            row += cells(mark, self.looks["loud" if talk.mentions else "bold"])
        return row
# endregion


# region 5. Keys  (lesson 21)
# A terminal sends bytes, and most keys are one: "a", or 1 for Ctrl+A. Keys that no
# character stands for are sent as several that begin with 27, which is Esc's own:
#     Up        27 "[" "A"            Alt+x     27 "x"
#     Delete    27 "[" "3" "~"        Esc       27
# curses knows the usual ones of this terminal and makes one key of them. The others we
# put together ourselves, in read_escape().
HELP = """\
Enter sends · Alt+Enter or Ctrl+J: a new line
Up, Down: what you sent before
Tab: the name or command that begins so
PgUp, PgDn: scroll · Esc: to the newest
Ctrl+N, Ctrl+P: next, previous conversation
Alt+1: everyone; to Alt+9: the next ones
Ctrl+L: draw anew · Ctrl+C: leave
A screen reader? Start with --plain."""


class Keys(Picture):
    """What each key does. A key is a character, or a name that curses gave it: "^A" is
    Ctrl+A, "KEY_UP", "kUP3" (Alt+Up); and "M-x" is an x behind an Esc: Alt+x."""

    def make_keys(self):
        """Return {key: what to call}: a table, and not twenty times `elif`.

        A lambda is a function without a name. It is called when the key is pressed, so
        box.at in it is where the cursor stands then. The last names of some are for
        terminals that send a key in another way.
        """
        box, chat, cut = self.box, self.chat, self.box.cut
        keys = {"KEY_LEFT": lambda: box.set(box.text, box.left()),
                "KEY_RIGHT": lambda: box.set(box.text, box.right()),
                "^A KEY_HOME": lambda: box.set(box.text, 0),
                "^E KEY_END": lambda: box.set(box.text),
                "^H ^? KEY_BACKSPACE": lambda: cut(box.left(), box.at),
                "KEY_DC": lambda: cut(box.at, box.right()),
                "^W": lambda: cut(box.word(), box.at),
                "^U": lambda: cut(0, box.at),
                "^K": lambda: cut(box.at, len(box.text)),
                "^J M-^M": lambda: cut(box.at, box.at, "\n"),
                "KEY_UP": lambda: self.recall(-1), "KEY_DOWN": lambda: self.recall(1),
                "^I": lambda: self.complete(1), "KEY_BTAB": lambda: self.complete(-1),
                "^M KEY_ENTER": self.enter,
                "KEY_PPAGE": lambda: self.scroll(-1),
                "KEY_NPAGE": lambda: self.scroll(1),
                "M- kEND5 M-[1;5F": self.to_the_end,
                "^N kDN3 M-[1;3B M-KEY_DOWN": lambda: chat.step(1),
                "^P kUP3 M-[1;3A M-KEY_UP": lambda: chat.step(-1),
                # (typed() returns True if it was no mistake: so both are called.)
                "KEY_F(1)": lambda: chat.typed("/help") and chat.note(HELP),
                # All is sent anew: another program may have written over it.
                "^L": self.screen.clear}
        for number in range(1, 10):
            keys[f"M-{number}"] = functools.partial(chat.show_nth, number)
        return {key: do for names, do in keys.items() for key in names.split()}

    def read_key(self, wait, escaped=False):
        """Return the next key, or None if none is pressed within so many ms; `escaped`:
        the one behind an Esc."""
        self.screen.timeout(wait)       # how long get_wch() may wait
        try:
            # A character; or a number for a key that is none, as KEY_UP is.
            key = self.screen.get_wch()
        except curses.error:            # that is how it says that there was no key
            return None
        # 27. M is for Meta, an old name of Alt. (Behind an Esc another one is nothing
        # new: who holds that key down would lead us deeper and deeper.)
        if key == "\x1b" and not escaped:
            return "M-" + self.read_escape()
        if isinstance(key, str) and unicodedata.category(key) != "Cc":
            return key
        # A name for all others: Ctrl+A is the character 1, and KEY_UP the number 259.
        return curses.keyname(key if isinstance(key, int) else ord(key)).decode()

    def read_escape(self) -> str:
        """Return what stands behind an Esc: "" if that key alone was pressed; or a key;
        or, from "[" or "O" to a letter or "~", a key that curses does not know. All of
        it, or its last characters would stand in the box."""
        # Of what has begun, the rest may be on its way yet, over a slow line; nobody
        # types that fast. Only a single Esc has no rest, and in a paste none is single.
        code = self.read_key(500 if self.pasting else 0, True) or ""
        while code in ("O", "[") or re.fullmatch(r"\[[0-9;]+", code):
            key = self.read_key(500, True)
            if key is None:
                break
            code += key
        return code

    def take_keys(self, wait):
        """Obey what was typed; wait for it `wait` ms.

        At most 1,000 keys at once: a long paste must not keep out what others say.
        """
        for _ in range(1000):
            key, wait = self.read_key(wait), 0
            if key is None:
                break
            self.dirty = True
            # A paste stands between these two (see open()). Else each line of it would
            # be sent as it comes, and nobody wants that.
            if key in ("M-[200~", "M-[201~"):
                self.pasting = key == "M-[200~"
            elif self.surprised:
                self.surprised = key not in ("^M", "^C")
            elif key in self.keys and not self.pasting:
                self.keys[key]()
            # A character is typed. A name, which is longer than one, is a key that does
            # nothing here (F7); only in a paste some of them are text.
            elif len(key) == 1 or self.pasting:
                text = {"^M": "\n", "^J": "\n", "^I": "\t"}.get(key, key)
                self.box.cut(self.box.at, self.box.at, text if len(text) == 1 else "")
            self.keep_draft()

    def keep_draft(self):
        """Keep what stands in the box with its conversation; not if it is a name."""
        if not self.asking:
            self.chat.current.draft = self.box.text

    def recall(self, by):
        """Up and Down: what was sent from here before."""
        # None: there is nothing older, or newer. Then what is typed stays.
        text = self.history.step(by, self.box.text)
        if text is not None:
            self.box.set(text)

    def complete(self, by):
        """Tab and Shift+Tab: the name that begins so; the next one; the one before."""
        # Only what stands before the cursor is completed; the rest moves along.
        before = self.completion.step(self.box.text[:self.box.at], by)
        if before is not None:
            self.box.cut(0, self.box.at, before)

    def enter(self):
        """Let the chat obey what stands in the box; put it back if it was wrong."""
        talk, text = self.chat.current, self.box.text
        # First of all empty: a command may show another conversation, with its draft.
        self.box.set("")
        self.keep_draft()
        self.to_the_end()
        if self.asking and not text.startswith("/"):
            self.connect(text)
        elif not self.chat.typed(text):     # it was wrong, and why has been said
            if not self.asking:
                talk.draft = text
                text = self.chat.current.draft
            self.box.set(text)

    def to_the_end(self):
        """Follow the newest line from now on. Who speaks wants to see the answer."""
        self.anchor, self.below = None, 0
# endregion


# region 6. The terminal  (lesson 21)
def why_not() -> str:
    """Return why one cannot draw on this terminal, as a sentence; or nothing."""
    able, name = None, os.environ.get("TERM", "")
    with contextlib.suppress(curses.error):
        # By the name in TERM it looks up what the terminal understands: "cup" is to put
        # the cursor anywhere. Without it initscr() would end the whole program.
        curses.setupterm(name)
        able = curses.tigetstr("cup")
    return "" if able else f"Nothing is known of a terminal called “{name}” (TERM)."


WARNING = ("By its settings (LC_ALL, LANG) this terminal has only ASCII. UTF-8 is used "
           "all the same; if letters look wrong, start with --plain.")


class Terminal(Keys):
    """The face itself: its loop, and what the chat tells it.

    One thread. Like Tk, curses belongs to one alone.
    """

    def __init__(self, options, chat_class=client.Chat):
        self.chat, self.name, self.box = chat_class(self, options), options.name, Box()
        self.history = client.History(self.chat)
        self.completion = client.Completion(self.chat)
        # Why a name is asked for, if it is; whether they were typing something else
        # then (see ask()); whether what comes is being pasted.
        self.asking, self.surprised, self.pasting = "", False, False
        # (the line at the bottom, rows of it below), if one has scrolled up; how many
        # lines have come since.
        self.anchor, self.below = None, 0
        # Whether the picture is not true any more; whether drain() has left something;
        # when to tick; whether Ctrl+Z was pressed.
        self.dirty, self.more, self.next_tick, self.stop_wanted = True, False, 0, False
        # The exit status. That it is not None any more ends run(). And what to say when
        # we are in, and at the end.
        self.over, self.warning, self.last_word = None, "", ""

    def run(self) -> int:
        """Chat until it ends. Then the terminal is as it was."""
        # What print() and mistakes write would stand across the picture. It is kept and
        # shown when the terminal is itself again.
        written = io.StringIO()
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            try:
                self.open()
                if self.name:
                    self.connect(self.name)
                else:
                    login = self.chat.login
                    self.ask(f"Hello. {login.trouble}".strip(), login.name)
                while self.over is None:
                    self.turn()
            except Exception:
                client.report_mistake()
                self.over = 1
            finally:
                self.close()
        # (A mistake may quote what somebody has sent.)
        self.last_word = client.clean(written.getvalue()) + self.last_word
        self.leave()
        return self.over

    def open(self):
        """Take the terminal over."""
        # Ctrl+C, `kill`, a terminal that is closed. A signal strikes between any two
        # lines; so its handler leaves a mark, and the loop sees it.
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, self.quit)
        # curses asks the locale which letters there are. It is "C" until this: ASCII,
        # and 猫 would vanish. It may be "C" after it too, where nobody has set another.
        why = self.warning              # (why it is no window, if that was wanted)
        for name in ("", "C.UTF-8", "UTF-8"):
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_CTYPE, name)
            if locale.nl_langinfo(locale.CODESET) == "UTF-8":
                break
            self.warning = f"{why} {WARNING}".strip()
        # Esc is a key, and the beginning of many others: so many ms decide which.
        os.environ.setdefault("ESCDELAY", "25")
        # From here on the terminal is ours, and print() would spoil the picture.
        self.screen = curses.initscr()
        curses.noecho()                 # what is typed is drawn by us
        curses.cbreak()                 # each key comes at once, and not each line
        curses.nonl()                   # Enter is "^M", so that it is not Ctrl+J
        self.screen.keypad(True)        # "KEY_UP", and not the three bytes it sends
        self.looks, self.keys = make_looks(), self.make_keys()
        self.ask_for_marks("h")
        # Ctrl+Z. (Where a shell has no `fg`, it is ignored, and must stay so.)
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self.want_to_stop)

    def ask_for_marks(self, switch):
        """Ask the terminal to mark what is pasted ("h"), or not any more ("l").

        And what is typed with Alt, by an Esc before it. xterm would send another letter
        in its place, ± for Alt+1. How it was there is kept (s), and given back (r).
        """
        keys = b"\x1b[?1036s\x1b[?1036h" if switch == "h" else b"\x1b[?1036r"
        with contextlib.suppress(OSError):      # it may be gone
            os.write(1, b"\x1b[?2004" + switch.encode() + keys)

    def close(self):
        """Give the terminal back: with the old picture, and its keyboard's old ways."""
        self.ask_for_marks("l")
        with contextlib.suppress(curses.error):     # never opened, or gone
            curses.endwin()

    def turn(self):
        """One turn of the loop: show what is true, then see what was typed and what has
        come from the network.

        This is the window's mainloop() and drain() in one. Its only rest is the wait
        for a key; that ends after 50 ms, as the network does not press any.
        """
        if self.dirty:
            self.dirty = False
            self.draw()
        self.take_keys(0 if self.more else 50)
        # At most 500 events or 20 ms of them, however much has come: or whoever types
        # would not see their own letters. If something is left, no rest follows.
        self.more = self.chat.drain(500, 0.02)
        # Once a second: whatever the chat has to do by the clock.
        if time.monotonic() >= self.next_tick:
            self.next_tick = time.monotonic() + 1
            self.chat.tick()
            self.dirty = self.dirty or self.chat.trying()       # the countdown
        if self.stop_wanted:
            self.stop()
        if not os.isatty(0):
            # It is gone, and no signal has told us (nohup). get_wch() does not wait any
            # more then, and this loop would take a whole processor.
            self.over = 0

    def connect(self, name):
        """Log in under this name, or ask for a better one."""
        login = self.chat.login
        try:
            # It does not wait: another thread connects, and status_changed() tells.
            self.chat.connect(login.host, login.port, name)
            login.name = name           # for a /connect
        except ValueError as problem:
            self.ask(str(problem), name)

    def ask(self, why, name):
        """Ask for a name, in the box, with this one to begin with.

        Nobody waits for it here: the loop goes on, and enter() sees that it was asked.
        """
        # Who was in may be in the middle of a sentence, with their eyes on the keys:
        # the rest of it must not become a name that all can read.
        self.surprised = bool(self.box.text and self.chat.me and not self.asking)
        self.asking, self.dirty = why, True
        self.box.set(name)

    def want_to_stop(self, *_):
        """The handler of Ctrl+Z, see open()."""
        self.stop_wanted = True

    def stop(self):
        """Ctrl+Z: give the terminal to the shell, until it says `fg`.

        curses would do that by itself. But it knows nothing of pastes, and would not
        tell us that there is something to draw when we are back.
        """
        self.stop_wanted = False
        self.close()
        # With the system's own handler it stops us, right here.
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.want_to_stop)
        # The shell has written here. The next draw() takes the terminal over again.
        self.ask_for_marks("h")
        self.screen.clear()
        self.dirty = True

    def leave(self):
        """Say the last words, and bye: at every end, or we were taken for lost."""
        # Those without a receipt. They may have arrived; nobody can tell any more.
        lost = len(self.chat.unconfirmed)
        if lost:
            self.last_word += (f"{lost} of your lines have not arrived, as far as is "
                               "known.\n")
        try:
            print(self.last_word, end="", flush=True)
        except OSError:                 # to nobody, if it is gone: see Printed.print()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self.chat.leave()

    # --- what the chat tells its face
    # The window has the same methods. The chat calls them and does not know which of
    # the two it has: that is all that a face needs to be one.

    def line_added(self, conversation, line):
        """Only take note: draw() finds it where it is."""
        self.dirty = True
        self.below += conversation is self.chat.current

    def people_changed(self, *_):
        """The same for whatever changes: there is nothing to do but to draw anew."""
        self.dirty = True

    line_changed = file_changed = people_changed

    def status_changed(self):
        """The connection has changed; perhaps another name is needed."""
        status, self.dirty = self.chat.status, True
        # The server wants a password. Typed here it could be read on the screen; the
        # option asks for it before curses has begun, where getpass() shows nothing.
        if status.get("password"):
            self.over = 1
            self.last_word = f"{status['text']} Start again with --password.\n"
        elif status["state"] == "choose_name":
            self.ask(status["text"], self.chat.connection.name)
        elif self.asking:               # the name was good: back to one's draft
            self.asking = ""
            self.shown(self.chat.current)
        if status["state"] == "online" and self.warning:
            self.chat.note(self.warning)
            self.warning = ""

    def shown(self, conversation):
        """Another conversation: its draft, and its newest lines."""
        self.dirty = True
        self.to_the_end()
        if not self.asking:
            self.box.set(conversation.draft)

    def quit(self, *_):
        """/quit, and the handler of signals: the loop ends with this turn."""
        self.over = 0


if __name__ == "__main__":
    # The client's main() reads the options, finds out whether this terminal will do,
    # and comes back here.
    sys.argv.insert(1, "--terminal")
    sys.exit(client.main())
# endregion
