"""States of one feed, made with python-tuf: what a vendor publishes, and what a thief would like to.

    vendor.py OUT NOW

Each state is a folder OUT/STATE with metadata/ and targets/, as a web server would serve it. OUT/root.json is the
first root, NOW the seconds since 1970. Two of two keys sign the root, two of two sign targets; ed25519, ECDSA and RSA are all in use.
"""

import copy
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from datetime import datetime, timedelta, timezone

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

OUT = sys.argv[1]
NOW = datetime.fromtimestamp(int(sys.argv[2]), timezone.utc)
LATER = NOW + timedelta(days=30)

root_keys = [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()]
targets_keys = [CryptoSigner.generate_ecdsa(), CryptoSigner.generate_rsa()]
online = CryptoSigner.generate_ed25519()
other_online = CryptoSigner.generate_ecdsa()
delegate = CryptoSigner.generate_ed25519()
thief = [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()]


def archive(build, program=None):
    """A tree with one program, as .tar.zst."""
    program = program or b"release %d\n" % build
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as into:
        entry = tarfile.TarInfo("bin/orders")
        entry.size, entry.mode = len(program), 0o755
        into.addfile(entry, io.BytesIO(program))
    return subprocess.run(["zstd", "-q", "-c"], input=tar.getvalue(), stdout=subprocess.PIPE, check=True).stdout


def description(build, packed, says=None, sha256=None):
    return (
        f'version = "{build}.0"\nbuild = {says or build}\nnotes = "News of {build}."\n'
        f'[[archive]]\nfile = "orders.tar.zst"\nsha256 = "{sha256 or hashlib.sha256(packed).hexdigest()}"\n'
        f"size_bytes = {len(packed)}\nunpacked_bytes = {len(f'release {build}') + 1}\n"
    ).encode()


def release(build, **how):
    packed = archive(build)
    return {f"{build}/release.toml": description(build, packed, **how), f"{build}/orders.tar.zst": packed}


class Feed:
    """All metadata at one moment."""

    def __init__(self):
        self.root = Root(version=1, expires=LATER, consistent_snapshot=True)
        for key in root_keys:
            self.root.add_key(key.public_key, "root")
        for key in targets_keys:
            self.root.add_key(key.public_key, "targets")
        for role in ("timestamp", "snapshot"):
            self.root.add_key(online.public_key, role)
        self.root.roles["root"].threshold = 2
        self.root.roles["targets"].threshold = 2
        self.timestamp = Timestamp(version=1, expires=LATER)
        self.snapshot = Snapshot(version=1, expires=LATER)
        self.targets = Targets(version=1, expires=LATER)
        self.delegated = None
        self.files, self.roots, self.published = {}, {}, False
        self.online, self.targets_keys = online, targets_keys
        self.sign_root(root_keys)

    def after(self):
        return copy.deepcopy(self)

    def __deepcopy__(self, memo):
        new = Feed.__new__(Feed)
        for name, value in self.__dict__.items():
            keys = name in ("online", "targets_keys")
            setattr(new, name, value if keys else copy.deepcopy(value, memo))
        return new

    def sign_root(self, keys):
        self.roots[self.root.version] = signed(self.root, keys)
        return self

    def add(self, files, role=None):
        for name, content in files.items():
            (role or self.targets).targets[name] = TargetFile.from_data(name, content, ["sha256"])
            self.files[name] = content
        return self

    def publish(self, state, targets_keys=None):
        """Signs anew what is below the root, one version on, and writes it all."""
        if self.published:
            for role in (self.timestamp, self.snapshot, self.targets):
                role.version += 1
        self.published = True
        self.snapshot.meta["targets.json"] = MetaFile(self.targets.version)
        written = {f"{version}.root.json": text for version, text in self.roots.items()}
        if self.delegated:
            self.snapshot.meta["beta.json"] = MetaFile(self.delegated.version)
            written[f"{self.delegated.version}.beta.json"] = signed(self.delegated, [delegate])
        written[f"{self.targets.version}.targets.json"] = signed(self.targets, targets_keys or self.targets_keys)
        snapshot = signed(self.snapshot, [self.online])
        written[f"{self.snapshot.version}.snapshot.json"] = snapshot
        self.timestamp.snapshot_meta = MetaFile.from_data(self.snapshot.version, snapshot, ["sha256"])
        written["timestamp.json"] = signed(self.timestamp, [self.online])
        folder = os.path.join(OUT, state)
        for name, text in written.items():
            write(os.path.join(folder, "metadata", name), text)
        for name, content in self.files.items():
            place, file = os.path.split(name)
            hashed = f"{hashlib.sha256(content).hexdigest()}.{file}"
            write(os.path.join(folder, "targets", place, hashed), content)
        return self


def signed(role, keys):
    metadata = Metadata(role)
    for key in keys:
        metadata.sign(key, append=True)
    return metadata.to_bytes()


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as into:
        into.write(content)


def path_of(state, *parts):
    return os.path.join(OUT, state, *parts)


def copied(state, other):
    shutil.copytree(path_of(state), path_of(other))


def change(state, build, file):
    """Other bytes of the same length, under the same name."""
    folder = path_of(state, "targets", str(build))
    for name in os.listdir(folder):
        if name.endswith("." + file):
            with open(os.path.join(folder, name), "r+b") as into:
                into.seek(8)
                into.write(b"XXXX")


one = Feed().add(release(1)).publish("one")
write(os.path.join(OUT, "root.json"), one.roots[1])
two = one.after().add(release(2)).publish("two")

# What the vendor publishes after all of it, with higher versions than any thief had.
mended = two.after()
for _ in range(3):
    mended.publish("mended")

# Good by its signatures, but its timestamp ends before the sites' today.
frozen = one.after()
frozen.timestamp.expires = NOW - timedelta(days=1)
frozen.publish("frozen")

# The timestamp of two, with a snapshot of one where that of two should be.
copied("two", "mixed")
shutil.copy(path_of("one", "metadata", "1.snapshot.json"), path_of("mixed", "metadata", "2.snapshot.json"))

copied("two", "changed_archive")
change("changed_archive", 2, "orders.tar.zst")
copied("two", "changed_description")
change("changed_description", 2, "release.toml")

# A thief with the web server, the online key and one of two keys for targets.
two.after().add(release(3)).publish("one_key_stolen", targets_keys=targets_keys[:1])
# The same key twice is still one key.
copied("one_key_stolen", "one_key_twice")
twice = path_of("one_key_twice", "metadata", "3.targets.json")
with open(twice, "rb") as file:
    metadata = json.load(file)
metadata["signatures"] *= 2
write(twice, json.dumps(metadata).encode())

# One root key and the key for the timestamp change hands; both the old keys and the new ones sign the root.
rotated = two.after()
new_root_key = CryptoSigner.generate_ecdsa()
rotated.root.version = 2
rotated.root.revoke_key(root_keys[1].public_key.keyid, "root")
rotated.root.add_key(new_root_key.public_key, "root")
for name in ("timestamp", "snapshot"):
    rotated.root.revoke_key(online.public_key.keyid, name)
    rotated.root.add_key(other_online.public_key, name)
rotated.sign_root([*root_keys, new_root_key])
rotated.online = other_online
rotated.publish("rotated")

# After the rotation, whoever stole the old online key signs on with it.
stale = rotated.after().add(release(3))
stale.online = online
stale.publish("old_key")

# A root that only its new owner has signed.
usurped = two.after()
usurped.root = Root(version=2, expires=LATER, consistent_snapshot=True)
for role in ("root", "targets", "timestamp", "snapshot"):
    usurped.root.add_key(thief[0].public_key, role)
usurped.sign_root([thief[0]])
usurped.online, usurped.targets_keys = thief[0], [thief[0]]
usurped.publish("usurped")

# A root that is not signed by as many of its own keys as it demands.
write(os.path.join(OUT, "weak.root.json"), signed(one.root, root_keys[:1]))
# A good root of somebody else's.
write(os.path.join(OUT, "other.root.json"), usurped.roots[2])

# The vendor's own mistakes.
one.after().add(release(2, sha256="0" * 64)).publish("disagreeing")
one.after().add(release(2, says=7)).publish("misplaced")
half = release(2)
del half["2/orders.tar.zst"]
one.after().add(half).publish("half_signed")

# Descriptions of which no site can make a release.
for name, text in {
    "too_large": b'version = "2.0"\nnotes = "%s"\n' % (b"y" * 1_048_576),
    "no_toml": b'version = "2.0"\nnotes = "\n',
    "no_text": b'version = "2.0"\nnotes = "\xff"\n',
    "other_format": b'version = "2.0"\nbuild = { number = 2 }\n',
}.items():
    bad = release(2)
    bad["2/release.toml"] = text
    one.after().add(bad).add(release(3)).publish(name)

# Another team signs beta releases.
beta = one.after()
beta.delegated = Targets(version=1, expires=LATER)
beta.add(release(2), beta.delegated)
key = delegate.public_key
beta.targets.delegations = Delegations(
    keys={key.keyid: key},
    roles={"beta": DelegatedRole("beta", [key.keyid], 1, False, paths=["2/*"])},
)
# It may not speak for this one.
beta.add(release(9), beta.delegated)
beta.publish("delegated")
