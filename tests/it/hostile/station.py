"""A client that tells the daemon what it likes, and does nothing that the daemon tells it.

Usage: station.py SOCKET APP WAY [USER [SESSION]]; each answer of the daemon is a line here.
"""

import json
import os
import socket
import subprocess
import sys
import time

SOCKET, APP, WAY, *MORE = sys.argv[1:]
USER = MORE[0] if MORE else "anna"
SESSION = MORE[1] if len(MORE) > 1 else None


def process(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return {"pid": pid, "start_ticks": int(stat.read().rsplit(")", 1)[1].split()[19])}


def program():
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sleep", "1000"])


def register(state):
    """Registers; the open link. What is answered is told."""
    body = json.dumps({
        "user": USER, "workstation": "pc-3", "program_name": "desk", "session": SESSION,
        "client": process(os.getpid()), "state": state,
    }).encode()
    link = socket.socket(socket.AF_UNIX)
    link.connect(SOCKET)
    head = f"POST /v1/apps/{APP}/workstations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    link.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = b""
    while b"}" not in answer:
        more = link.recv(65536)
        if not more:
            break
        answer += more
    print(json.dumps(answer.decode()), flush=True)
    return link


def running(pid):
    return {"program": "running", **process(pid)}


def hold(link):
    while link.recv(65536):
        pass
    while True:
        time.sleep(1000)


if WAY == "asks":
    register({"program": "not_started"})
elif WAY == "asks-often":
    for _ in range(200):
        register({"program": "not_started"}).close()
elif WAY == "has-no-program":
    hold(register({"program": "not_started"}))
elif WAY == "claims-the-first-process":
    hold(register(running(1)))
elif WAY == "has-a-program":
    hold(register(running(program().pid)))
elif WAY == "has-a-new-program-each-time":
    while True:
        child = program()
        link = register(running(child.pid))
        child.wait()
        link.close()
elif WAY == "speaks-for":
    link = socket.socket(socket.AF_UNIX)
    link.connect(SOCKET)
    link.sendall(f"DELETE /v1/workstations/{SESSION} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    print(json.dumps(link.recv(65536).decode()), flush=True)
elif WAY == "flaps":
    while True:
        register(running(1)).close()
        time.sleep(0.1)
