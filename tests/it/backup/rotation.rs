//! Which dumps are removed, and which never are.

use super::files::Dumps;
use super::*;

fn names(dumps: &Dumps) -> Vec<String> {
    let mut names: Vec<_> = fs_err::read_dir(dumps.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn three_days(dumps: &Dumps) {
    for (name, age) in [("orders-1", 3), ("orders-2", 2), ("orders-3", 1)] {
        dumps.dump(name, 1000, Span::days(age));
        fs_err::write(dumps.path(&format!("{name}.md5")), "whatever").unwrap();
    }
}

#[tokio::test]
async fn the_oldest_go_with_their_side_files() {
    let dumps = Dumps::new();
    three_days(&dumps);
    dumps.dump("orders-0.part", 1000, Span::days(9));
    dumps.dump("invoices-0", 1000, Span::days(9));
    let gate = gate_of(dumps.evidence(), None, Some(2));
    let removed = gate.rotate(now()).await.unwrap();
    assert_eq!(removed, [dumps.path("orders-1").display().to_string()]);
    let kept = ["invoices-0", "orders-0.part", "orders-2", "orders-2.md5", "orders-3", "orders-3.md5"];
    assert_eq!(names(&dumps), kept);
    assert!(gate.rotate(now()).await.unwrap().is_empty(), "a second time there is nothing to do");
}

#[tokio::test]
async fn the_newest_stays_even_if_none_is_to_be_kept() {
    let dumps = Dumps::new();
    three_days(&dumps);
    assert_eq!(gate_of(dumps.evidence(), None, Some(0)).rotate(now()).await.unwrap().len(), 2);
    assert_eq!(names(&dumps), ["orders-3", "orders-3.md5"]);
    assert!(gate_of(dumps.evidence(), None, None).rotate(now()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_only_good_one_stays() {
    let dumps = Dumps::new();
    three_days(&dumps);
    let good = command(&["sh", "-c", "case $1 in *-1) ;; *) exit 1; esac", "sh", "{}"]);
    assert_eq!(gate_of(dumps.settings(Some(good)), None, Some(1)).rotate(now()).await.unwrap().len(), 1);
    assert_eq!(names(&dumps), ["orders-1", "orders-1.md5", "orders-3", "orders-3.md5"]);
    let error = gate_of(dumps.settings(Some(command(&["false"]))), None, Some(1)).rotate(now()).await.unwrap_err();
    assert!(matches!(error, BackupError::TestFailed { .. }), "{error}");
    assert_eq!(names(&dumps).len(), 4, "where none is good, nothing is removed");
}

#[tokio::test]
async fn directories_go_whole_and_links_stay() {
    let dumps = Dumps::new();
    for (name, age) in [("orders-1", 3), ("orders-2", 2)] {
        let dir = dumps.path(name);
        fs_err::create_dir(&dir).unwrap();
        write(&dir.join("toc.dat"), &noise(1000), ago(Span::days(age)));
        std::fs::File::open(&dir).unwrap().set_modified(ago(Span::days(age)).into()).unwrap();
    }
    // A rotation that was interrupted left this behind.
    fs_err::create_dir_all(dumps.path(".afterhours-removing-orders-0/half")).unwrap();
    std::os::unix::fs::symlink("orders-2", dumps.path("orders-latest")).unwrap();
    gate_of(dumps.evidence(), None, Some(1)).rotate(now()).await.unwrap();
    assert_eq!(names(&dumps), ["orders-2", "orders-latest"]);
}

#[tokio::test]
async fn making_one_rotates() {
    let dumps = Dumps::new();
    three_days(&dumps);
    dumps.dump("orders-3", 5, Span::hours(1));
    let (_, made) = satisfy(&gate_of(dumps.evidence(), Some(dumps.make()), Some(2))).await.unwrap();
    let Made::Yes { removed, not_rotated: None } = made else { panic!("{made:?}") };
    assert_eq!(removed.len(), 2);
    assert_eq!(names(&dumps), ["orders-3", "orders-3.md5", "orders-made.dump", "orders-made.dump.sha256"]);
}
