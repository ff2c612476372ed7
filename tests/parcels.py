"""Files by hand: what a client does to send one and to fetch one, for the tests.

    line = send_file(minou, data, "photo.png")      # the `file` line, her receipt
    assert fetch(tigrou, tigrou.expect("file")) == data

`Person` (people.py) has the socket; here are the lines that go through it. The longer
functions are made of the shorter ones, so that a test can stop half way.
"""
import base64
import contextlib
import hashlib
import itertools
import random

from people import COMINGS

CHUNK = 32_768              # bytes of a file in one `chunk`, before base64
TURN = 8                    # after so many comes an `upload_ready`; and in a download
AHEAD = 16                  # so many may be on their way without one
REFS = itertools.count(1)


def some_bytes(size, seed=1):
    """Bytes without a pattern: no piece of them can be taken for another one."""
    return random.Random(seed).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------ sending

def offer_line(data, name="photo.png", to=None, ref=None, **fields):
    """The `upload` message for these bytes; `fields` replace what is in it."""
    message = {"type": "upload", "ref": ref or f"file {next(REFS)}", "name": name,
               "size": len(data), "sha256": digest(data), **fields}
    return message if to is None else {**message, "to": to}


def offer(person, data, name="photo.png", to=None, ref=None, skip=COMINGS, **fields):
    """Offer a file; return the `upload_ready` with its `file` and `offset`."""
    message = offer_line(data, name, to, ref, **fields)
    person.send(message)
    return person.expect("upload_ready", skip=skip, ref=message["ref"])


def chunk(file, offset, piece):
    """One `chunk` message. (`piece` may be what no good client would send.)"""
    return {"type": "chunk", "file": file, "offset": offset,
            "data": base64.b64encode(piece).decode()}


def send_chunks(person, data, ready, until=None, skip=COMINGS, limit=5):
    """Go on with the upload that this `upload_ready` is about, up to the byte `until`.

    Sixteen chunks ahead at most. With `until` it returns when all of them have arrived
    there, and nothing that the server has said about them is left unread.
    """
    place, known = ready["offset"], ready["offset"]
    until, half = (len(data), False) if until is None else (until, True)
    while place < until:
        if place - known < AHEAD * CHUNK:
            piece = data[place:min(place + CHUNK, until)]
            person.send(chunk(ready["file"], place, piece))
            place += len(piece)
        else:
            known = person.expect("upload_ready", skip=skip, limit=limit,
                                  ref=ready["ref"], file=ready["file"])["offset"]
    if half:                # the answer to a `list` stands behind all that came before
        person.send({"type": "list"})
        person.expect("people", skip=(*skip, "upload_ready"), limit=limit)


def send_rest(person, data, ready, skip=COMINGS, limit=5):
    """Send what is missing of an upload, and return its `file` line.

    (With "file" in `skip`, files of others may come before it.)
    """
    send_chunks(person, data, ready, skip=skip, limit=limit)
    others = [kind for kind in (*skip, "upload_ready") if kind != "file"]
    line = person.expect("file", skip=others, limit=limit)
    while "file" in skip and line["file"] != ready["file"]:
        line = person.expect("file", skip=others, limit=limit)
    assert (line["file"], line["ref"]) == (ready["file"], ready["ref"])
    return line


def send_file(person, data, name="photo.png", to=None, ref=None, skip=COMINGS,
              limit=5, **fields):
    """Send a file; return the `file` line that its sender gets."""
    ready = offer(person, data, name, to, ref, skip, **fields)
    return send_rest(person, data, ready, skip, limit)


# ----------------------------------------------------------------------------- fetching

def ask(person, file, offset=0):
    person.send({"type": "download", "file": file, "offset": offset})


def take(person, file, offset, skip=COMINGS, limit=5):
    """Read one chunk, which must be the one at this offset; return its bytes."""
    message = person.expect("chunk", skip=skip, limit=limit, file=file, offset=offset)
    return base64.b64decode(message["data"], validate=True)


def fetch(person, line, start=0, skip=COMINGS, limit=5):
    """Fetch the file of this `file` line from a byte on; return the bytes.

    Asks for the next chunks when those it has asked for have come.
    """
    data, place = b"", start
    while place < line["size"]:
        ask(person, line["file"], place)
        for _ in range(TURN):
            piece = take(person, line["file"], place, skip, limit)
            assert len(piece) == min(CHUNK, line["size"] - place)
            data += piece
            place += len(piece)
            if place == line["size"]:
                break
    return data


def refused(person, message, code, skip=COMINGS, **fields):
    """Send what is wrong; return the `error` that must be the answer to it."""
    person.send(message)
    error = person.expect("error", skip=skip, code=code, **fields)
    assert error["text"]
    return error


# ------------------------------------------------------------------------- and the rest

def come_back(join, person, server=None, **fields):
    """Let somebody come back on a new connection, as a client does; return who it is.

    Without `since`: with nothing of what was said before the connection broke.
    """
    again = join(to=server)
    fields = {"since": 10**9, "session": person.welcome["session"], **fields}
    again.hello(person.name, **fields)
    again.expect("welcome", name=person.name, resumed=True)
    again.name = person.name
    return again


def tree(folder):
    """{path: size} of all files in a folder and the folders in it."""
    sizes = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):    # gone while we look
            if path.is_file():
                sizes[str(path.relative_to(folder))] = path.stat().st_size
    return sizes
