//! Somebody who is no maker of Afterhours offers a new one, and a new one that looks around while it rehearses.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::feed_signed::vendor::create_named;
use crate::night::releases::V2;
use crate::night::site::Site;
use crate::renewal::signed::Vendor;
use crate::renewal::updater::folder;
use crate::renewal::updater::good_program;
use crate::renewal::updater::in_place;
use crate::renewal::updater::publish;
use crate::renewal::updater::publish_by;
use crate::renewal::updater::said;
use crate::renewal::updater::site;

/// Runs an update that goes well and takes no new Afterhours; what was said of that.
async fn not_taken(site: &mut Site, old: &[u8]) -> String {
    site.open().await;
    let run = site.update().await;
    site.settled(run).await;
    site.desk_answers("2.0").await;
    assert!(in_place(site) == old && !folder(site).exists());
    let said = said(site, run).await.0;
    site.stop().await;
    said
}

/// Signs a file as Afterhours with the keys of an application, as somebody does who writes their own tools.
fn sign_with_the_applications_keys(vendor: &Vendor, program: &[u8]) {
    let settings = vendor.path("orders/feed.toml");
    let own = fs_err::read_to_string(&settings).unwrap();
    fs_err::write(&settings, format!("updater = true\n{own}")).unwrap();
    let feed = vendor.path("orders");
    let as_makers = tempfile::tempdir().unwrap();
    for name in ["pw", "timer-pw"] {
        fs_err::copy(vendor.path(name), as_makers.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(&feed, as_makers.path().join("afterhours")).unwrap();
    publish_by(as_makers.path(), "0.2.0", 2, program);
    fs_err::write(&settings, own).unwrap();
}

#[tokio::test]
async fn the_keys_of_an_application_do_not_vouch_for_an_afterhours() {
    let vendor = Vendor::new().await;
    let mut site = vendor.site(&[]).await;
    let (old, new) = (in_place(&site), good_program(&site, "0.2.0", 2));
    sign_with_the_applications_keys(&vendor, &new);
    vendor.release(V2, &[]);
    let said = not_taken(&mut site, &old).await;
    assert!(said.contains("only the vendor of the application vouches for"), "{said}");
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    assert!(doctor.contains("only the vendor of the application vouches for"), "{doctor}");
}

#[tokio::test]
async fn a_feed_of_afterhours_by_other_makers_is_refused() {
    let vendor = Vendor::new().await;
    let mut site = vendor.site(&[]).await;
    let (old, new) = (in_place(&site), good_program(&site, "0.2.0", 2));
    let others = tempfile::tempdir().unwrap();
    create_named(others.path(), "afterhours", &["--updater"]);
    publish_by(others.path(), "0.2.0", 2, &new);
    vendor.carry(&others.path().join("afterhours/published"));
    vendor.release(V2, &[]);
    let said = not_taken(&mut site, &old).await;
    assert!(said.contains("only its makers can vouch for it"), "{said}");
}

#[tokio::test]
async fn a_directory_does_not_vouch_for_an_afterhours() {
    let mut site = site().await;
    let old = in_place(&site);
    V2.publish(&site.feed());
    fs_err::create_dir_all(site.path("feed/updater/2")).unwrap();
    fs_err::write(site.path("feed/updater/2/release.toml"), "version = \"0.2.0\"\nbuild = 2\n").unwrap();
    let said = not_taken(&mut site, &old).await;
    assert!(said.contains("only the vendor of the application vouches for"), "{said}");
}

/// What a new program can see while it rehearses: who it is, whether it sees the store, and what is in its environment.
fn curious(site: &Site, seen: &Path) -> Vec<u8> {
    let (own, version) = (site.path("bin/afterhours"), env!("CARGO_PKG_VERSION"));
    let (seen, own, store) = (seen.display(), own.display(), site.path("state/afterhours.db"));
    let look = format!("id -u; cat {} >/dev/null 2>&1 && echo store; env | grep -c SECRET", store.display());
    format!(
        "#!/bin/sh\ncase \"$*\" in *--rehearse*) ({look}) >{seen}; {own} \"$@\" | sed s/{version}/0.2.0/; exit 1;; esac\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn a_new_afterhours_rehearses_as_nobody() {
    let mut site = site().await;
    let old = in_place(&site);
    let seen = site.path("seen");
    fs_err::write(&seen, "").unwrap();
    fs_err::set_permissions(&seen, PermissionsExt::from_mode(0o666)).unwrap();
    publish(&site, "0.2.0", 2, &curious(&site, &seen));
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    site.settled(run).await;
    assert!(said(&site, run).await.0.contains("0.2.0 (build 2) on a copy of the store"));
    assert_eq!(site.read("seen"), "65534\n0");
    assert!(in_place(&site) == old);
    assert!(!site.path(".afterhours.rehearsal").exists(), "no copy of the store is left");
    site.stop().await;
}
