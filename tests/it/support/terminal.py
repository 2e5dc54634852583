"""Runs a program at a terminal of its own and types what it asks for.

    terminal.py ANSWERS PROGRAM [ARG...]

ANSWERS is a JSON list of [QUESTION, ANSWER]. An answer is typed when its question stands there and the terminal shows no
more what is typed. Says as JSON how the program ended, what stood on the terminal, and which answers nobody asked for.
"""

import json
import os
import pty
import select
import sys
import termios
import time

PATIENCE = 60  # seconds
answers = json.loads(sys.argv[1])

child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])

shown, answered = b"", 0
until = time.monotonic() + PATIENCE
while time.monotonic() < until:
    is_asked = answers and answers[0][0].encode() in shown[answered:]
    if is_asked and not termios.tcgetattr(terminal)[3] & termios.ECHO:
        answered = len(shown)
        os.write(terminal, answers.pop(0)[1].encode() + b"\n")
    # Whether it is echoed has to be looked at, nobody tells.
    if not select.select([terminal], [], [], 0.01 if is_asked else PATIENCE)[0]:
        continue
    try:
        shown += os.read(terminal, 65536)
    except OSError:  # the program has ended, and so has its side of the terminal
        break
else:
    os.kill(child, 9)

_, status = os.waitpid(child, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps({"code": code, "shown": shown.decode(errors="replace"), "left": answers}))
