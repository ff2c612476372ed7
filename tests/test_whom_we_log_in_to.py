"""The login card where the server has TLS, or wants a password."""
import json
import os

import pytest

from test_window import open_window     # noqa: F401 (a fixture)


@pytest.fixture
def guarded(start_server, certificate, monkeypatch):
    """A server with TLS that wants the password “whiskers”."""
    monkeypatch.setenv("CHATTYCAT_PASSWORD", "whiskers")
    server = start_server("--tls", "--cert", certificate)
    monkeypatch.delenv("CHATTYCAT_PASSWORD")
    return server


def halves(fingerprint):
    return f"{fingerprint[:39]}\n{fingerprint[40:]}"


def known_servers(tmp_path):
    return json.loads((tmp_path / "known_servers.json").read_text())


def test_from_an_unknown_server_to_the_room(open_window, guarded, tmp_path):
    desk = open_window("--port", guarded.port)
    desk.fill_in(name="Minou", password="whiskers")
    desk.card.tls.button.invoke()
    desk.press(desk.card.name, "<Return>")
    # The question stands alone: nothing else that could be pressed by mistake.
    desk.until(lambda: halves(guarded.fingerprint()) in desk.sentence())
    assert set(desk.buttons()) == {"Trust this server", "Back"}
    assert not desk.card.fields.winfo_ismapped()
    assert not (tmp_path / "known_servers.json").exists()
    assert not any("joined" in line for line in guarded.lines)
    desk.types_into(desk.card.back)         # an Enter too many trusts nobody
    desk.press(desk.card.trust, "<Return>")
    desk.until(desk.inside)
    assert desk.window.sidebar.state.cget("text") == " Connected by TLS"
    here = f"127.0.0.1:{guarded.port}"
    assert known_servers(tmp_path) == {here: guarded.fingerprint()}
    # Of all this the password is kept nowhere.
    kept = {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)}
    assert json.loads(kept["last_login.json"])["tls"] is True
    assert not any("whiskers" in text for text in kept.values())
    desk.close()
    # The next time nothing is asked, and the card has the switch as it was.
    again = open_window()
    assert again.card.tls.get() and again.card.password.get() == ""
    again.fill_in(password="whiskers")
    again.press(again.card.password, "<Return>")
    again.until(again.inside)


def test_back_from_the_question(open_window, guarded, tmp_path):            
    desk = open_window("--port", guarded.port, "--name", "Minou", "--tls")
    desk.until(lambda: "fingerprint" in desk.sentence())
    desk.press(desk.card.back, "<Return>")
    desk.until(lambda: desk.card.fields.winfo_ismapped())
    assert desk.sentence() == "" and set(desk.buttons()) == {"Connect"}
    assert desk.card.name.get() == "Minou" and desk.keyboard_is_seen()
    assert not (tmp_path / "known_servers.json").exists()
    # Nobody was trusted, so the same question comes again.
    desk.buttons()["Connect"].invoke()
    desk.until(lambda: "fingerprint" in desk.sentence())


def test_another_server_in_its_place(open_window, guarded, tmp_path):       
    other = "-".join(["0123", "4567", "89AB", "CDEF"] * 4)
    (tmp_path / "known_servers.json").write_text(
        json.dumps({f"127.0.0.1:{guarded.port}": other}))
    # Not even without --tls: who was known by TLS is never spoken to in clear.
    desk = open_window("--port", guarded.port, "--name", "Minou")
    desk.until(lambda: "Careful" in desk.sentence())
    assert halves(other) in desk.sentence()
    assert halves(guarded.fingerprint()) in desk.sentence()
    assert set(desk.buttons()) == {"Back"}          # no click goes past this
    desk.chat.typed("/trust")
    desk.press(desk.card.back, "<Return>")
    desk.chat.typed("/trust")
    assert known_servers(tmp_path) == {f"127.0.0.1:{guarded.port}": other}
    desk.close()
    # What the operator has read to us does.
    again = open_window("--port", guarded.port, "--name", "Minou",
                        "--fingerprint", guarded.fingerprint())
    again.until(lambda: "wants a password" in again.sentence())
    again.types_into(again.card.password)
    again.fill_in(password="whiskers")
    again.press(again.card.password, "<Return>")
    again.until(again.inside)
    assert known_servers(tmp_path) == {
        f"127.0.0.1:{guarded.port}": guarded.fingerprint()}


def test_a_broken_list_of_known_servers(open_window, guarded, tmp_path):    
    (tmp_path / "known_servers.json").write_text('{"a": 1')
    # Who was known by TLS is not known any more: nothing leaves before that is read.
    desk = open_window("--port", guarded.port, "--name", "Minou")
    desk.until(lambda: "known servers could not be read" in desk.sentence())
    assert desk.chat.connection is None
    desk.fill_in(name="Minou")
    desk.card.tls.button.invoke()
    desk.press(desk.card.name, "<Return>")
    desk.until(lambda: "fingerprint" in desk.sentence())
    assert (tmp_path / "known_servers.json.broken").read_text() == '{"a": 1'


def test_passwords_on_one_connection(open_window, guarded):                 
    desk = open_window("--port", guarded.port, "--name", "Minou",
                       "--fingerprint", guarded.fingerprint())
    desk.until(lambda: "wants a password" in desk.sentence())
    connection = desk.chat.connection
    for wrong in "tuna", "mouse":
        desk.fill_in(password=wrong)
        desk.press(desk.card.password, "<Return>")
        desk.until(lambda: desk.sentence() == "That is not the password.")
        desk.until(lambda: desk.chat.status["state"] == "choose_name")
        assert desk.chat.connection is connection
        assert desk.card.password.cget("show") == "•"
        desk.chat.status["text"] = ""               # so that the next one is seen
        desk.card.say("", "muted")
    desk.fill_in(password="whiskers")
    desk.press(desk.card.password, "<Return>")
    desk.until(desk.inside)
    assert desk.chat.connection is connection


def test_the_third_wrong_password_and_one_more(open_window, guarded):
    """It ends the connection. The next one must not be typed into the name."""
    desk = open_window("--port", guarded.port, "--name", "Minou",
                       "--fingerprint", guarded.fingerprint())
    for wrong in "tuna", "mouse", "sofa":
        desk.until(lambda: desk.chat.status["state"] == "choose_name")
        desk.fill_in(password=wrong)
        desk.press(desk.card.password, "<Return>")
    desk.until(lambda: desk.chat.status["state"] == "offline")
    desk.types_into(desk.card.password)
    desk.fill_in(password="whiskers")
    desk.press(desk.card.tls.button, "<Return>")    # Enter connects from anywhere
    desk.until(desk.inside)


@pytest.mark.parametrize("size", [(560, 400), (1040, 720)], ids=str)
@pytest.mark.parametrize("state", ["entries", "question", "refused"])
def test_nothing_of_the_card_is_cut_off(open_window, guarded, tmp_path, size, state):
    if state == "refused":
        (tmp_path / "known_servers.json").write_text(
            json.dumps({f"127.0.0.1:{guarded.port}": "0" * 64}))
    desk = open_window(*["--port", guarded.port, "--name", "Minou", "--tls"]
                       if state != "entries" else ["--name", "no name!"])
    width, height = (desk.window.look.px(length) for length in size)
    desk.root.geometry(f"{width}x{height}")
    desk.until(lambda: desk.sentence() and desk.root.winfo_height() == height)
    for widget in (desk.card.sentence, *desk.buttons().values()):
        top = widget.winfo_rooty() - desk.root.winfo_rooty()
        assert 0 <= top and top + widget.winfo_height() <= height, widget


def test_another_server_by_command_asks_in_the_card(open_window, server, guarded):
    """Its password must not go to the server that one comes from."""
    desk = open_window("--port", server.port, "--name", "Minou",
                       "--fingerprint", "0" * 64)
    desk.until(lambda: desk.chat.status["state"] == "waiting" or desk.sentence())
    desk.chat.known.give("127.0.0.1", guarded.port, guarded.fingerprint())
    desk.chat.login.tls = True
    desk.chat.typed(f"/connect 127.0.0.1 {guarded.port}")
    desk.until(lambda: "wants a password" in desk.sentence())
    assert desk.card.port.get() == str(guarded.port)
    desk.fill_in(password="whiskers")
    desk.press(desk.card.password, "<Return>")
    desk.until(desk.inside)
    assert desk.chat.server == ("127.0.0.1", guarded.port)
