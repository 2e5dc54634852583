//! A gate's file in a directory of the application's.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::fs::lchown;
use std::os::unix::fs::symlink;

use afterhours::config::settings::GateSettings;
use afterhours::gate::GateDrivers;

use crate::settings::app_settings;
use crate::support::users::APP;
use crate::support::users::account;

#[tokio::test]
async fn a_link_on_the_way_to_a_gates_file_leads_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let (home, victim) = (temp.path().join("home"), temp.path().join("victim"));
    for dir in [&home, &victim] {
        fs_err::create_dir(dir).unwrap();
        fs_err::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(&home, Some(account(APP).uid), None).unwrap();
    let flags = home.join("flags");
    symlink(&victim, &flags).unwrap();
    lchown(&flags, Some(account(APP).uid), None).unwrap();
    fs_err::write(victim.join("closed"), "root's").unwrap();

    let mut app = app_settings();
    app.gate = vec![GateSettings::File(flags.join("closed"))];
    let gate = GateDrivers::new(&app);
    assert!(gate.close("moving", None).await.is_err());
    assert!(gate.open().await.is_err());
    assert_eq!(fs_err::read_to_string(victim.join("closed")).unwrap(), "root's");

    // In a directory of the application's that is where it seems to be, the file comes and goes.
    fs_err::remove_file(&flags).unwrap();
    fs_err::create_dir(&flags).unwrap();
    chown(&flags, Some(account(APP).uid), None).unwrap();
    gate.close("moving", None).await.unwrap();
    assert_eq!(fs_err::read_to_string(flags.join("closed")).unwrap(), "moving\n");
    gate.open().await.unwrap();
    assert!(!flags.join("closed").exists());
}
