"""Ten people talk through ten bad networks, while the server is killed now and then.

The clients are the real ones, without a screen. In the end every one of them must
show every public line exactly once, in the order of the ids, and of the private
lines only its own.
"""
import random
import sqlite3
import time

import pytest

import ChattyCat_Client
from bad_network import BadNetwork
from people import ServerProcess

NAMES = ("Minou", "Tigrou", "Félix", "Garfield", "Duchesse", "Salem", "Simba", "Luna",
         "Moustache", "小猫")


class NoFace:
    """A face that shows nothing: the conversations themselves are looked at."""

    def nothing(self, *_):
        pass

    line_added = line_changed = people_changed = status_changed = shown = quit = nothing


class Options:
    host = port = name = log_chat = password = tls = fingerprint = None


class Cat(ChattyCat_Client.Chat):
    """A client that notes down which ids the server has given to which texts."""

    def __init__(self, name, network, plan):
        super().__init__(NoFace(), Options)
        self.network, self.plan = network, plan
        self.ids, self.sent = {}, []
        self.remember = False
        self.connect(network.host, network.port, name)

    def on_chat(self, message):
        super().on_chat(message)
        assert self.ids.setdefault(message["id"], message["text"]) == message["text"]

    def talk(self):
        """Say the next thing, to everybody or to one, whether connected or not."""
        if self.plan:
            to, text = self.plan.pop()
            conversation = self.everyone if to is None else self.conversation_with(to)
            assert self.say(text, conversation)
            self.sent.append((to, text))

    def texts(self):
        """{name or None: the texts that this window shows}"""
        return {conversation.name: [line.text for line in conversation.lines
                                    if line.kind == "chat" and not line.state]
                for conversation in self.conversations.values()}

    def how_many(self):
        return sum(len(texts) for texts in self.texts().values())


def make_plan(name, chance, messages):
    """What somebody is going to say: four of five times to everybody."""
    others = [other for other in NAMES if other != name]
    return [(chance.choice([None] * 8 + [chance.choice(others)] * 2),
             f"{name} says {number}") for number in range(messages)]


def expected_by(name, plans):
    """How many lines somebody must see: all public ones, and their own private ones."""
    return sum(to is None or name in (to, author)
               for author, plan in plans.items() for to, _ in plan)


class World:
    """One server, ten networks, ten people."""

    def __init__(self, seed, messages, history=None, **trouble):
        self.chance = random.Random(seed)
        self.options = ["--rate", "0"] + (["--history", history] if history else [])
        self.server = ServerProcess(*self.options).__enter__()
        self.plans = {name: make_plan(name, self.chance, messages) for name in NAMES}
        self.networks = [
            BadNetwork((self.server.host, self.server.port), seed=seed * 100 + number,
                       **trouble).__enter__() for number in range(len(NAMES))]
        self.cats = [Cat(name, network, list(self.plans[name]))
                     for name, network in zip(NAMES, self.networks)]

    def turn(self):
        """Let everybody take in what came, and one of them say something."""
        for cat in self.cats:
            cat.drain(1000, 1)
        if self.all_are_in():           # before that, nobody could write to everybody
            self.chance.choice(self.cats).talk()
        time.sleep(0.001)               # the threads want their turn as well

    def turn_until(self, done, limit):
        deadline = time.monotonic() + limit
        while not done():
            assert time.monotonic() < deadline, self.report()
            self.turn()

    def kill_the_server(self):
        """As a power cut does it; then there is a new one, on another port."""
        self.server.kill()
        self.server.process.returncode = 0      # it is not to blame for that
        self.server.close()
        self.server = ServerProcess(*self.options).__enter__()
        for network in self.networks:
            network.target = (self.server.host, self.server.port)

    def all_are_in(self):
        return all(cat.me for cat in self.cats)

    def to_say(self):
        return sum(len(cat.plan) for cat in self.cats)

    def all_is_said(self):
        return self.to_say() == 0

    def all_has_arrived(self):
        return self.all_is_said() and all(
            not cat.unconfirmed and cat.how_many() >= expected_by(cat.me, self.plans)
            for cat in self.cats)

    def report(self):
        return "\n".join(
            f"{cat.me}: {cat.status['state']}, {len(cat.plan)} to say, "
            f"{len(cat.unconfirmed)} without receipt, sees {cat.how_many()} of "
            f"{expected_by(cat.me or '', self.plans)}; errors: " + "; ".join(
                line.text for talk in cat.conversations.values() for line in talk.lines
                if line.kind == "error" or line.state) for cat in self.cats)

    def check(self):
        """The promise of PROTOCOL.md, "Coming back", word for word."""
        ids = {}
        for cat in self.cats:
            for number, text in cat.ids.items():
                assert ids.setdefault(number, text) == text     # no id given twice
        assert len(set(ids.values())) == len(ids)               # no text had two ids
        in_order = [ids[number] for number in sorted(ids)]
        to = {text: to for plan in self.plans.values() for to, text in plan}
        assert sorted(in_order) == sorted(to)                   # nothing is missing
        for cat in self.cats:
            mine = [text for text in in_order if text.startswith(cat.me + " ")]
            assert mine == [text for _, text in cat.sent]       # as it was typed
            shown = cat.texts()
            assert shown.pop(None) == [text for text in in_order if to[text] is None]
            for other, texts in shown.items():
                between = [text for text in in_order if to[text] in (cat.me, other)
                           and text.split()[0] in (cat.me, other)]
                assert texts == between
        return ids

    def close(self):
        for cat in self.cats:
            cat.hang_up()
        for network in self.networks:
            network.__exit__()
        self.server.close()


@pytest.fixture
def make_world(monkeypatch):
    """A function that makes a world; its people come back sooner than real ones."""
    monkeypatch.setattr(ChattyCat_Client, "FIRST_PAUSE", 0.03)
    worlds = []

    def make(*args, **more):
        worlds.append(World(*args, **more))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def live(world, kills, limit):
    """All that is to happen in a world, with the kills spread over it."""
    world.turn_until(world.all_are_in, limit)
    total = world.to_say()
    for kill in range(kills):
        rest = total * (kills - kill) // (kills + 1)
        world.turn_until(lambda: world.to_say() <= rest, limit)
        world.kill_the_server()
    world.turn_until(world.all_has_arrived, limit)


@pytest.mark.parametrize("seed", [*range(5), *(
    pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 10))])
def test_killed_servers_and_bad_networks(make_world, tmp_path, seed):
    path = tmp_path / "history"
    world = make_world(seed, 12, path, split=True, reset_every=40)
    live(world, 2, 30)
    ids = world.check()
    assert sum(network.resets for network in world.networks) > 5
    world.server.stop()
    with sqlite3.connect(path) as database:
        stored = database.execute("SELECT id, line FROM lines").fetchall()
    assert {number for number, _ in stored} == set(ids)


def test_bad_networks_without_history(make_world):
    world = make_world(11, 12, split=True, delay=5, jitter=5, reset_every=40)
    live(world, 0, 30)
    world.check()
    assert sum(network.resets for network in world.networks) > 5


def test_a_killed_server_without_history(make_world):
    """What was under way may be lost, but nobody is told a lie, or anything twice."""
    world = make_world(12, 30)
    world.turn_until(world.all_are_in, 30)
    half = world.to_say() // 2
    world.turn_until(lambda: world.to_say() <= half, 30)
    for cat in world.cats:              # on its way when the server dies
        cat.say(f"{cat.me} says a last word", cat.everyone)
    world.kill_the_server()
    world.turn_until(lambda: world.all_is_said() and not any(
        cat.unconfirmed for cat in world.cats), 30)
    for cat in world.cats:
        texts = cat.texts()[None]
        assert len(texts) == len(set(texts))
        notes = [line.text for line in cat.everyone.lines if line.kind == "system"]
        assert len([text for text in notes if "remembers nothing of you" in text]) == 1
        # Every line of ours has arrived, or it says that nobody knows. (Or was refused:
        # to somebody who was not back yet, since this server keeps no names.)
        states = {line.text: (talk.name, line.state)
                  for talk in cat.conversations.values()
                  for line in talk.lines if line.author == cat.me}
        assert {text for _, text in cat.sent} <= set(states)
        for to, state in states.values():
            assert state in ("", "unknown") or (state == "failed" and to)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [30, 0])
def test_five_thousand_messages(make_world, monkeypatch, tmp_path, kills):
    monkeypatch.setattr(ChattyCat_Client, "KEPT_LINES", 1_000_000)
    world = make_world(kills, 500, tmp_path / "history" if kills else None, split=True,
                       delay=2, jitter=2, reset_every=40)
    live(world, kills, 1000)
    world.check()
