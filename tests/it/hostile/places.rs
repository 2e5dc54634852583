//! A directory of root's in a place that is not root's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use afterhours::files::trusted::Untrusted;
use afterhours::files::trusted::trusted_dir;

use crate::support::users::APP;
use crate::support::users::STRANGER;
use crate::support::users::account;
use crate::support::users::as_user;

fn is_moved_away(by: &str, dir: &Path) -> bool {
    let away = dir.with_extension("away");
    as_user(by, "mv").arg(dir).arg(away).output().unwrap().status.success()
}

/// What the check says is what users can do.
#[test]
fn only_a_trusted_directory_stays_where_it_is() {
    let temp = tempfile::tempdir().unwrap();
    fs_err::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let place = temp.path().join("place");
    let ours = place.join("ours");
    fs_err::create_dir_all(&ours).unwrap();

    fs_err::set_permissions(&place, std::fs::Permissions::from_mode(0o1777)).unwrap();
    trusted_dir(&ours).unwrap();
    assert!(!is_moved_away(STRANGER, &ours));

    fs_err::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&place, Some(account(APP).uid), None).unwrap();
    let refused = trusted_dir(&ours).unwrap_err();
    assert!(matches!(&refused, Untrusted::Owner { path, owner } if *path == place && owner == APP), "{refused}");
    assert!(is_moved_away(APP, &ours));
}
