"""A site as others would write it: python-tuf reads a published feed over HTTP on loopback.

    site.py PUBLISHED STATE ROOT [TARGET...]

PUBLISHED is served, STATE is what the site remembers, ROOT what it was given at first. Before that, every role is
verified with the Metadata API, and every key's ID is made anew. Writes one line for each target: its name and its size.
"""

import functools
import http.server
import pathlib
import sys
import threading

from securesystemslib.signer import SSlibKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater

published, state, first = map(pathlib.Path, sys.argv[1:4])
metadata = published / "metadata"


def newest(role):
    return max(int(path.name.split(".")[0]) for path in metadata.glob(f"*.{role}.json"))


def verify_everything():
    roots = [Metadata[Root].from_file(str(metadata / f"{n}.root.json")) for n in range(1, newest("root") + 1)]
    for old, new in zip(roots, roots[1:]):
        assert new.signed.version == old.signed.version + 1
        old.signed.verify_delegate("root", new.signed_bytes, new.signatures)
    for root in roots:
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    root = roots[-1].signed
    assert root.consistent_snapshot
    timestamp = Metadata[Timestamp].from_file(str(metadata / "timestamp.json"))
    version = timestamp.signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_file(str(metadata / f"{version}.snapshot.json"))
    timestamp.signed.snapshot_meta.verify_length_and_hashes((metadata / f"{version}.snapshot.json").read_bytes())
    version = snapshot.signed.meta["targets.json"].version
    targets = Metadata[Targets].from_file(str(metadata / f"{version}.targets.json"))
    snapshot.signed.meta["targets.json"].verify_length_and_hashes((metadata / f"{version}.targets.json").read_bytes())
    for role, file in [("timestamp", timestamp), ("snapshot", snapshot), ("targets", targets)]:
        root.verify_delegate(role, file.signed_bytes, file.signatures)
    for keyid, key in root.keys.items():
        public = key.keyval["public"]
        if key.keytype == "ed25519":
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        else:
            public = load_pem_public_key(public.encode())
        made = SSlibKey.from_crypto(public)
        assert (made.keyid, made.scheme, made.keyval) == (keyid, key.scheme, key.keyval), (made, key)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


verify_everything()
server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), functools.partial(Quiet, directory=str(published))
)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
(state / "metadata").mkdir(parents=True, exist_ok=True)
(state / "targets").mkdir(exist_ok=True)
site = Updater(
    str(state / "metadata"),
    f"{base}/metadata/",
    target_dir=str(state / "targets"),
    target_base_url=f"{base}/targets/",
    bootstrap=first.read_bytes(),
)
site.refresh()
for name in sys.argv[4:]:
    info = site.get_targetinfo(name)
    assert info is not None, f"{name} is not in the feed"
    print(name, pathlib.Path(site.download_target(info)).stat().st_size)
