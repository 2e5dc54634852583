//! A history that somebody rewrites, and attempts that were refused and must stand in it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::night::alone::ALONE;
use crate::night::releases::V2;
use crate::night::site::Site;
use crate::support::users::STRANGER;
use crate::support::users::as_user;
use crate::support::users::within_reach;

/// Changes the store as its owner can, and computes the chain anew behind what was changed.
const REWRITE: &str = r"
import datetime, hashlib, sqlite3, sys
store, what, number = sqlite3.connect(sys.argv[1]), sys.argv[2], int(sys.argv[3])
tables = ('run_events', 'audit')
def all_of(sql, *args):
    return [row for table in tables for row in store.execute(sql.format(table), args)]
if what == 'change':
    for table in tables:
        store.execute(f'UPDATE {table} SET body = ? WHERE link = ?', ('{}', number))
elif what == 'remove':
    for table in tables:
        store.execute(f'DELETE FROM {table} WHERE link = ?', (number,))
elif what == 'cut off':
    for table in tables:
        store.execute(f'DELETE FROM {table} WHERE link >= ?', (number,))
    store.execute('UPDATE chain SET link = ?, hash = ?', (number - 1, all_of('SELECT hash FROM {} WHERE link = ?', number - 1)[0][0]))
elif what == 'write anew':
    store.execute('UPDATE run_events SET body = replace(body, ?, ?)', ('2.0', '9.9'))
    rows = store.execute('''SELECT 0, link, at, CAST(run AS TEXT), name, body, CAST(seq AS TEXT), '' FROM run_events
        UNION ALL SELECT 1, link, at, who, action, body, object, via FROM audit ORDER BY link''').fetchall()
    head = ''
    for table, link, at, *parts in rows:
        at = datetime.datetime.fromisoformat(at) - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        digest = hashlib.sha256(head.encode() + link.to_bytes(8, 'big') + (at // datetime.timedelta(microseconds=1)).to_bytes(8, 'big'))
        for part in parts:
            digest.update(len(part.encode()).to_bytes(8, 'big') + part.encode())
        head = digest.hexdigest()
        store.execute(f'UPDATE {tables[table]} SET hash = ? WHERE link = ?', (head, link))
    store.execute('UPDATE chain SET hash = ?', (head,))
store.commit()
store.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()
";

fn rewrite(store: &Path, what: &str, number: i64) {
    let mut python = Command::new("python3");
    let output = python.args(["-I", "-c", REWRITE]).arg(store).args([what, &number.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Puts a store back as it was, without what SQLite left beside the changed one.
fn put_back(store: &Path, whole: &[u8]) {
    for beside in ["-wal", "-shm"] {
        // Only where somebody has read it meanwhile.
        let _ = fs_err::remove_file(format!("{}{beside}", store.display()));
    }
    fs_err::remove_file(store).unwrap();
    fs_err::write(store, whole).unwrap();
}

async fn verify(site: &Site, anchor: &[&str]) -> (i32, Value) {
    let (code, said, talk) = site.run(&[&["audit", "verify", "--json"], anchor].concat()).await;
    (code, serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{talk}")))
}

#[tokio::test]
async fn a_history_that_was_rewritten_is_found_by_the_head_in_a_mail() {
    let site = Site::with(ALONE).await;
    V2.publish(&site.feed());
    assert_eq!(site.run(&["update", "now", "orders", "--yes"]).await.0, 0);
    site.reports(1).await;
    let mail = site.mail.taken().remove(0).content;
    let told = mail.lines().find_map(|line| line.trim().strip_prefix("afterhours audit verify ")).expect(&mail);
    let anchor: Vec<&str> = told.split(' ').collect();
    let number: i64 = anchor[1].parse().unwrap();
    let short = &anchor[3][..16];
    assert!(mail.contains(&format!("entry {number}, {short}")), "{mail}");

    let (code, proof) = verify(&site, &anchor).await;
    assert_eq!((code, &proof["whole"], &proof["anchor"]["state"]), (0, &true.into(), &"held".into()), "{proof}");
    assert_eq!(verify(&site, &["--number", anchor[1], "--head", short]).await.0, 0);
    assert_eq!(site.run(&["audit", "verify", "--number", anchor[1], "--head", &short[1..]]).await.0, 2);

    let store = site.path("state/afterhours.db");
    // All of it is in the one file then.
    rewrite(&store, "leave", 0);
    let whole = fs_err::read(&store).unwrap();
    for (what, at, broken_at, state) in [
        ("change", 3, Some(3), "held"),
        ("remove", 3, Some(3), "held"),
        ("change", number, Some(number), "held"),
        ("remove", number, Some(number), "missing"),
        ("cut off", number, None, "missing"),
        ("write anew", 0, None, "differs"),
    ] {
        rewrite(&store, what, at);
        let (code, proof) = verify(&site, &anchor).await;
        assert_eq!(code, 1, "{what} {at}: {proof}");
        assert_eq!((proof["broken_at"].as_i64(), &proof["anchor"]["state"]), (broken_at, &state.into()), "{what} {at}");
        let alone = verify(&site, &[]).await.0;
        assert_eq!(alone, i32::from(broken_at.is_some()), "{what}: without an anchor a clean cut cannot be seen");
        put_back(&store, &whole);
    }
    let (_, status, _) = site.run(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["history"]["hash"], verify(&site, &[]).await.1["head"]["hash"]);
}

/// What stands in the history of attempts that were refused.
async fn refusals(site: &Site) -> Vec<Value> {
    let (code, said, talk) = site.run(&["audit", "export"]).await;
    assert_eq!(code, 0, "{talk}");
    let entries = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries.filter(|entry| entry["action"] == "refused").collect()
}

/// A site with a daemon whose socket everybody finds.
async fn open_site() -> Site {
    let mut site = Site::new().await;
    fs_err::set_permissions(site.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    site.serve().await;
    site
}

#[tokio::test]
async fn a_stranger_who_is_refused_stands_in_the_history() {
    let mut site = open_site().await;
    let door = site.path("workstations.sock");
    let command = site.command(&["gate", "open", "orders", "--socket", door.to_str().unwrap()]);
    let program = within_reach(command.as_std().get_program(), &site.path(""));
    let mut command = (as_user(STRANGER, program), command.as_std().get_args());
    assert_eq!(command.0.args(command.1).output().unwrap().status.code(), Some(8));
    let found = refusals(&site).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["who"], &found[0]["kind"]), (&STRANGER.into(), &"audit".into()));
    assert_eq!(found[0]["object"], "POST /v1/apps/orders/gate/open");
    assert_eq!(found[0]["body"]["kind"], "not_permitted");
    // An operator whom the state of things forbids it, too.
    site.job("nightly", serde_json::json!({"enabled": false})).await;
    assert_eq!(site.run(&["job", "run", "nightly", "--yes"]).await.0, 4);
    let found = refusals(&site).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        (&found[1]["body"]["kind"], &found[1]["object"]),
        (&"refused".into(), &"POST /v1/jobs/nightly/run".into())
    );
    site.stop().await;
    assert_eq!(refusals(&site).await.len(), 2, "what was written at once is not written twice");
    assert_eq!(verify(&site, &[]).await.0, 0);
}

/// Asks the daemon's socket for the status again and again; says how often it was refused.
const FLOOD: &str = r"
import http.client, socket, sys
class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
door, refused = Door('localhost'), 0
for number in range(1000):
    door.request('GET', f'/v1/runs/{number}')
    answer = door.getresponse()
    answer.read()
    refused += answer.status == 403
print(refused)
";

#[tokio::test]
async fn a_flood_of_refused_attempts_does_not_fill_the_store() {
    let mut site = open_site().await;
    let flood = as_user(STRANGER, "/usr/bin/python3")
        .args(["-I", "-c", FLOOD])
        .arg(site.path("workstations.sock"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&flood.stdout).trim(), "1000", "{}", String::from_utf8_lossy(&flood.stderr));
    site.stop().await;
    let found = refusals(&site).await;
    // The first, and one more for each minute in which it went on.
    assert!((2..20).contains(&found.len()), "{}", found.len());
    let times: u64 = found.iter().map(|entry| entry["body"]["times"].as_u64().unwrap()).sum();
    assert_eq!(times, 1000, "all of them are counted");
    assert_eq!(verify(&site, &[]).await.0, 0);
}
