"""The order desk of the tests: a page, orders that survive, and data of exactly one version.

Beside it in its tree: `version`, and `schema`, the version of the data it can work with. Its data: `schema`,
`orders` (each taken durably before it is acknowledged) and `starts` (who has worked on them). On data of
another version it answers 500 and touches nothing. Two at once are a fault that is written down.
"""

import fcntl
import os
import socket
import sys

port, site = int(sys.argv[1]), os.environ["NIGHT_SITE"]
data = os.path.join(site, "data")


def read(path):
    with open(path) as file:
        return file.read().strip()


def append(path, line):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (line + "\n").encode())
    os.fsync(file)
    os.close(file)


alone = open(os.path.join(site, "alone"), "w")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    append(os.path.join(site, "faults"), "two order desks at once")
    sys.exit(3)

with open(os.path.join(site, "pid"), "w") as file:
    file.write(str(os.getpid()))
version, schema = read("version"), read("schema")
if os.path.exists("dies"):
    sys.exit("the order desk cannot start")
fits = read(os.path.join(data, "schema")) == schema
if fits:
    append(os.path.join(data, "starts"), version)


def answer(request):
    if not fits or os.path.exists("sick"):
        return "500 Internal Server Error", '{"error": "wrong data, or sick"}'
    if request.startswith("POST "):
        append(os.path.join(data, "orders"), request.split("\r\n\r\n", 1)[1])
    return "200 OK", '{"version": "%s"}' % version


door = socket.socket()
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
door.bind(("127.0.0.1", port))
door.listen(64)
while True:
    visitor, _ = door.accept()
    try:
        visitor.settimeout(5)
        status, body = answer(visitor.recv(65536).decode())
        head = "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        visitor.sendall((head % (status, len(body)) + body).encode())
    except OSError:
        pass
    finally:
        visitor.close()
