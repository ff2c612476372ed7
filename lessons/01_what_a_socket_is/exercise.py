"""What check.py looks at in lesson 01. Read check.py first: it is the theatre."""
import socket

FILES = ["server.py"]


def talk(stage, texts, way="whole"):
    """One client after another: connect, hear the cat, hear the end."""
    for _ in texts:
        with stage.guest() as guest:
            guest.hears("Hello from the cat.", *NOT_THE_GREETING)


NOT_THE_GREETING = [
    (lambda got: "Hello" in got, "The first line is the greeting, to the letter, and "
     "the address comes in a line of its own."),
    (True, "The first line must still be the greeting, to the letter.")]


def several_clients(stage, talk):
    """several clients, one after another, are served"""
    talk(stage, [stage.text()])
    talk(stage, [stage.text()])
    talk(stage, [stage.text()])


def after_a_reset(stage, talk):
    """a client whose connection is reset ends nobody else's"""
    # So many, because it is a race: the server may have said all before it notices.
    for _ in range(5):
        talk(stage, [stage.text()])
        for _ in range(4):
            stage.guest().resets()
    talk(stage, [stage.text()])


WORKS = [several_clients, after_a_reset]


def tell_the_address(stage):
    """each client is told its own address"""
    for _ in range(3):
        hear_the_address(stage.guest())


def after_a_reset_still(stage):
    """…also after a client whose connection was reset"""
    stage.guest().resets()
    hear_the_address(stage.guest())


def from_elsewhere(stage):
    """…also when its ip is another one"""
    # A computer has many addresses that mean itself; macOS is asked before it has more
    # than one of them.
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.3", 0))
    except OSError:
        return
    hear_the_address(stage.guest(source=("127.0.0.3", 0)))


def hear_the_address(guest):
    with guest:
        ip, port = guest.sock.getsockname()
        server_ip, server_port = guest.sock.getpeername()
        guest.hears("Hello from the cat.", *NOT_THE_GREETING)
        guest.hears(
            f"You are {ip}:{port}",
            (None, "The greeting came, and no second line. That is the exercise."),
            (f"You are {server_ip}:{server_port}",
             "That is the server's own end. The client's address is what accept() "
             "returns beside the connection (or connection.getpeername())."),
            (lambda got: got in [f"You are {ip}:{port}" for ip, port in guest.earlier],
             "That was the address of an earlier client: each accept() brings a new "
             "one."),
            (f"You are {(ip, port)}",
             "An address is a pair (ip, port), and Python prints it as a pair. Take "
             "its two parts, and write the colon yourself."),
            (f"You are {ip}", "The port is missing: two programs on one computer have "
             "the same ip, and only the port tells them apart."),
            (lambda got: got.split() == f"You are {ip} : {port}".split() or
             got.replace(" ", "") == f"Youare{ip}:{port}",
             "Nearly: look at the spaces. It is You are IP:PORT."),
            (lambda got: f"{ip}:{port}" in got,
             "The address is right; the words around it must be those of the exercise, "
             "to the letter."),
            (lambda got: got.startswith("You are "),
             "That is nobody's address here. Is it written into the program? It must "
             "come from the connection."))
        guest.hears_end("After these two lines the server hangs up, as it did before.")


EXERCISE = [tell_the_address, after_a_reset_still, from_elsewhere]
STILL = []
