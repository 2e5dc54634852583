"""Takes the data from one schema to the next, slowly and in place: who interrupts it leaves half of each.

A second time, or upon other data than it was made for, it fails: data that were migrated twice are spoilt.
"""

import os
import sys
import time

before, after = sys.argv[1], sys.argv[2]
site = os.environ["NIGHT_SITE"]
orders, schema = (os.path.join(site, "data", name) for name in ("orders", "schema"))


def fault(text):
    with open(os.path.join(site, "faults"), "a") as file:
        file.write(text + "\n")
    sys.exit(text)


with open(schema) as file:
    found = file.read().strip()
if found != before:
    fault("migrate %s to %s: the data are at %s" % (before, after, found))
with open(orders) as file:
    lines = file.read().split("\n")[:-1]
for at in range(len(lines)):
    with open(orders, "w") as file:
        done = [line + "|" + after for line in lines[: at + 1]]
        file.write("".join(line + "\n" for line in done + lines[at + 1 :]))
    time.sleep(0.02)
with open(schema, "w") as file:
    file.write(after + "\n")
print("migrated %d orders to %s" % (len(lines), after))
