"""A user who wants nobody else to get in. MODE COUNT SOCKET; ends with its standard input.

silent    keeps COUNT connections open that say nothing, and opens one that is closed again
register  registers COUNT workstations and keeps what it gets
flap      registers and leaves COUNT times, and tells one session's state COUNT times
"""

import json
import resource
import selectors
import socket
import sys

mode, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def connect():
    door = socket.socket(socket.AF_UNIX)
    door.connect(path)
    return door


def say(what):
    print(json.dumps(what), flush=True)


def request(door, method, where, body=None):
    """The status and what comes with it at first; 0 where there is no answer."""
    body = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {where} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        door.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer or (b" 200 " in answer[:16] and b"\n" not in answer.split(b"\r\n\r\n", 1)[1]):
            piece = door.recv(65536)
            if not piece:
                break
            answer += piece
        return int(answer.split(b" ", 2)[1]), answer.split(b"\r\n\r\n", 1)[1]
    except (OSError, IndexError, ValueError):
        return 0, b""


def registration():
    return {
        "user": "anna",
        "workstation": "pc-3",
        "program_name": "orders",
        "client": {"pid": 1, "start_ticks": 0},
        "session": None,
        "state": {"program": "not_started", "unsaved": None, "last_activity": None},
        "answered": None,
    }


def register(door):
    return request(door, "POST", "/v1/apps/orders/workstations", registration())


def session_of(rest):
    for line in rest.splitlines():
        if b"welcome" in line:
            return json.loads(line)["session"]
    return None


if mode == "silent":
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    opened = 0
    wanted = count
    while True:
        while wanted:
            try:
                door = connect()
            except OSError:
                break
            selector.register(door, selectors.EVENT_READ)
            wanted -= 1
            opened += 1
            if opened == count:
                say({"opened": opened})
        for key, _ in selector.select(0.1):
            if key.fileobj is sys.stdin:
                sys.exit()
            selector.unregister(key.fileobj)
            key.fileobj.close()
            wanted += 1

kept, statuses = [], {}
told = None
for number in range(count):
    try:
        door = connect()
    except OSError:
        statuses["unreachable"] = statuses.get("unreachable", 0) + 1
        continue
    status, rest = register(door)
    session = session_of(rest) if status == 200 else None
    outcome = "admitted" if session else str(status)
    statuses[outcome] = statuses.get(outcome, 0) + 1
    if mode == "flap":
        speaks = connect()
        if session and told is None:
            told = session
            kept.append(door)
            continue
        if session:
            request(speaks, "DELETE", f"/v1/workstations/{session}")
        if told:
            unsaved = {"program": "not_started", "unsaved": number % 2 == 0, "last_activity": None}
            request(speaks, "POST", f"/v1/workstations/{told}/state", unsaved)
        speaks.close()
        door.close()
    elif session:
        kept.append(door)
    else:
        door.close()
say(statuses)
sys.stdin.read()
