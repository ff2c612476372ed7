"""The screen of a terminal, for tests: what is seen after all that was sent to it.

    screen = TtyScreen(24, 80)
    screen.feed(b"\\x1b[2;5HHello")
    screen.row(1)                       "    Hello"

It understands what curses sends to an xterm, a Linux console and a vt100, and nothing
more: what it does not know it raises. So nothing that was not meant to be sent can go
unseen. (It was compared with tmux, which got the same 50 KB from three kinds of
terminal: row by row the same.)
"""
import re
import unicodedata

SEQUENCE = re.compile(
    r"\x1b(?:\[(?P<mark>\??)(?P<numbers>[\d;:]*)(?P<letter>[@A-Za-z`])"
    r"|(?P<short>[78=>MDEc]|[()][AB0]|\]104\x07))")  # (104: the colours as they were)
HALF = re.compile(r"\x1b(?:\[\??[\d;:]*|[()]|\][\d]*)?\Z")      # the rest is on its way
# Modes that change no cell: keys, cursor, pastes, the second screen with its title.
MODES = {"1", "7", "12", "25", "1036", "1049", "2004", "4", "34", "1034"}


def wide(character):
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class TtyScreen:
    """`cells[y][x]` is (character, look); behind a wide one stands ("", look).

    A look is a frozenset: 1 bold, 2 dim, 4 underlined, 7 reverse; "38;5;166" an ink.
    """

    def __init__(self, rows, columns):
        self.on, self.rest, self.last = {"25"}, b"", " "    # modes: the cursor is seen
        self.resize(rows, columns)

    def resize(self, rows, columns):
        """As a window that is pulled: the program draws all anew."""
        self.rows, self.columns = rows, columns
        self.y = self.x = 0
        self.saved, self.look = (0, 0), frozenset()
        self.top, self.bottom = 0, rows - 1
        self.cells = [self.blank() for _ in range(rows)]

    def blank(self):
        return [(" ", frozenset())] * self.columns

    def row(self, y):
        return "".join(character for character, _ in self.cells[y]).rstrip()

    @property
    def text(self):
        return "\n".join(self.row(y) for y in range(self.rows))

    def looks_of(self, words):
        """The looks of these words, where they stand first; each cell's, as one set."""
        for cells in self.cells:
            line = "".join(character or "\0" for character, _ in cells)
            if words in line:
                at = line.index(words)
                return set().union(*(look for _, look in cells[at:at + len(words)]))
        raise AssertionError(f"{words!r} is not on the screen:\n{self.text}")

    def feed(self, data):
        data, self.rest = self.rest + data, b""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:     # half a character, or none at all
            assert len(data) - error.start < 4, data[error.start:][:20]
            text, self.rest = data[:error.start].decode(), data[error.start:]
        half = HALF.search(text)
        if half:
            text, self.rest = text[:half.start()], half[0].encode() + self.rest
        while text:
            if text[0] == "\x1b":
                found = SEQUENCE.match(text)
                assert found, f"an escape sequence of nobody's: {text[:20]!r}"
                self.obey(found)
                text = text[found.end():]
            else:
                plain = re.match("[^\x1b]+", text)[0]
                for character in plain:
                    self.show(character)
                text = text[len(plain):]

    def show(self, character):
        """One character, or one of the few control characters that move the cursor."""
        if character == "\n":
            self.x = min(self.x, self.columns - 1)
            self.go_down()
        elif character in "\r\b\t":
            self.x = {"\r": 0, "\b": max(0, min(self.x, self.columns - 1) - 1),
                      "\t": min(self.x // 8 * 8 + 8, self.columns - 1)}[character]
        elif character not in "\x07\x0f\x00":
            assert unicodedata.category(character) not in ("Cc", "Cs"), ascii(character)
            size = wide(character)
            if not size:
                old, look = self.cells[self.y][max(0, self.x - 1)]
                self.cells[self.y][max(0, self.x - 1)] = (old + character, look)
                return
            if self.x + size > self.columns:    # the next row, as terminals do it
                self.x = 0
                self.go_down()
            row = self.cells[self.y]
            if row[self.x][0] == "":            # half of a wide one: the other goes too
                row[self.x - 1] = (" ", self.look)
            row[self.x:self.x + size] = (
                [(character, self.look)] + [("", self.look)] * (size - 1))
            self.x += size
            if self.x < self.columns and row[self.x][0] == "":
                row[self.x] = (" ", self.look)
            self.last = character

    def go_down(self):
        if self.y == self.bottom:
            self.scroll(1)
        else:
            self.y = min(self.y + 1, self.rows - 1)

    def scroll(self, count, top=None):
        """Move the rows of the region up; down if `count` is negative."""
        top = self.top if top is None else top
        for _ in range(abs(count)):
            del self.cells[top if count > 0 else self.bottom]
            self.cells.insert(self.bottom if count > 0 else top, self.blank())

    def obey(self, found):
        if found["short"]:
            self.obey_short(found["short"])
            return
        letter = found["letter"]
        numbers = [int(word or 0) for word in re.split("[;:]", found["numbers"])]
        if found["mark"] or letter in "hl":
            for mode in found["numbers"].split(";"):
                assert mode in MODES, found[0]
                (self.on.add if letter == "h" else self.on.discard)(mode)
        elif letter == "m":
            self.paint(found["numbers"])
        elif letter == "r":
            bottom = numbers[1] if len(numbers) > 1 else self.rows
            self.top, self.bottom, self.y, self.x = (
                max(1, numbers[0]) - 1, bottom - 1, 0, 0)
        elif letter != "t":                     # the window's title, saved, restored
            self.move_or_erase(letter, numbers, max(1, numbers[0]))

    def obey_short(self, short):
        if short == "M":
            if self.y == self.top:
                self.scroll(-1)
            else:
                self.y -= 1
        elif short == "7":
            self.saved = self.y, self.x
        elif short == "8":
            self.y, self.x = self.saved
        elif short == "D":
            self.go_down()
        elif short == "E":
            self.x = 0
            self.go_down()
        else:
            assert short in ("=", ">", "c", "(A", "(B", "(0", ")A", ")B", ")0",
                             "]104\x07"), short

    def move_or_erase(self, letter, numbers, count):
        row, x = self.cells[self.y], min(self.x, self.columns - 1)
        empty = (" ", self.look - {1, 2, 4, 7})
        if letter in "Hf":
            self.y = min(count, self.rows) - 1
            self.x = min(max(1, (numbers + [1])[1]), self.columns) - 1
        elif letter in "ABCDEGd`":
            self.y, self.x = {
                "A": (self.y - count, x), "B": (self.y + count, x),
                "C": (self.y, x + count), "D": (self.y, x - count),
                "E": (self.y + count, 0), "G": (self.y, count - 1),
                "`": (self.y, count - 1), "d": (count - 1, x)}[letter]
            self.y = max(0, min(self.y, self.rows - 1))
            self.x = max(0, min(self.x, self.columns - 1))
        elif letter == "K":
            start, end = {0: (x, self.columns), 1: (0, x + 1),
                          2: (0, self.columns)}[numbers[0]]
            row[start:end] = [empty] * (end - start)
        elif letter == "J":
            self.move_or_erase("K", numbers, 1)
            for y in {0: range(self.y + 1, self.rows), 1: range(self.y),
                      2: range(self.rows), 3: ()}[numbers[0]]:
                self.cells[y] = [empty] * self.columns
        elif letter == "X":
            row[x:x + count] = [empty] * len(row[x:x + count])
        elif letter == "P":
            row[x:] = (row[x + count:] + [empty] * count)[:len(row) - x]
        elif letter == "@":
            row[x:] = ([empty] * count + row[x:])[:len(row) - x]
        elif letter in "LM":
            self.scroll(-count if letter == "L" else count, top=self.y)
        elif letter in "ST":
            self.scroll(count if letter == "S" else -count)
        elif letter == "b":
            for _ in range(count):
                self.show(self.last)
        else:
            raise AssertionError(f"CSI {numbers} {letter}: not known here")

    def paint(self, words):
        """SGR: how the next characters look."""
        numbers, look = words.split(";"), set(self.look)
        while numbers:
            number = int(numbers.pop(0) or 0)
            if number == 0:
                look = set()
            elif number in (38, 48):
                numbers, ink = numbers[2:], ";".join([str(number), *numbers[:2]])
                look = {old for old in look if not str(old).startswith(ink[:3])} | {ink}
            elif 30 <= number <= 37 or 90 <= number <= 97:
                look = {old for old in look if not isinstance(old, str)}
                look.add(f"38;5;{number % 10}")
            elif number == 39:
                look = {old for old in look if not str(old).startswith("38")}
            elif number in (22, 24, 27):
                look -= {22: {1, 2}, 24: {4}, 27: {7}}[number]
            elif number in (1, 2, 4, 7):
                look.add(number)
            else:
                assert number in (10, 11, 49, 23, 25), words    # fonts, the ground
        self.look = frozenset(look)
