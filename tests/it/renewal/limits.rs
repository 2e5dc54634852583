//! Where Afterhours must not or cannot replace itself: a finding with a remedy, and the run goes on.

use afterhours::domain::run::Outcome;

use super::updater::folder;
use super::updater::in_place;
use super::updater::publish_good;
use super::updater::said;
use super::updater::site;
use crate::night::releases::V2;
use crate::night::releases::V3;
use crate::night::site::PATIENCE;
use crate::night::site::Site;
use crate::night::truth::Left;

#[tokio::test]
async fn what_is_switched_off_is_not_done() {
    let mut site = site().await;
    site.reconfigure("[daemon]\n", "[daemon]\nself_update = false\n");
    publish_good(&site, "0.2.0", 2);
    V2.publish(&site.feed());
    site.open().await;
    let old = in_place(&site);
    let view = site.settled(site.update().await).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    assert_eq!(said(&site, view.id).await, ("Afterhours does not update itself here".to_owned(), Vec::new()));
    assert!(in_place(&site) == old && !folder(&site).exists());
}

/// Tells the real package manager, in a data base of its own, that the program belongs to a package.
fn packaged(site: &Site) {
    let info = site.path("dpkg/info");
    fs_err::create_dir_all(&info).unwrap();
    fs_err::create_dir_all(site.path("dpkg/updates")).unwrap();
    let status = "Package: afterhours\nStatus: install ok installed\nMaintainer: it <it@example.com>\n\
                  Architecture: all\nVersion: 0.1.0\nDescription: updates\n\n";
    fs_err::write(site.path("dpkg/status"), status).unwrap();
    let program = site.path("bin/afterhours");
    let folders = program.ancestors().skip(1).map(|dir| dir.display().to_string());
    let mut list: Vec<String> = folders.map(|dir| if dir == "/" { "/.".to_owned() } else { dir }).collect();
    list.reverse();
    list.push(program.display().to_string());
    fs_err::write(info.join("afterhours.list"), list.join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn what_a_package_owns_is_left_to_the_package_manager() {
    let site = site().await;
    publish_good(&site, "0.2.0", 2);
    V2.publish(&site.feed());
    packaged(&site);
    let old = in_place(&site);
    let mut command = site.command(&["update", "now", "orders", "--yes"]);
    command.env("DPKG_ADMINDIR", site.path("dpkg"));
    let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(talk.contains("belongs to a package (dpkg-query)"), "{talk}");
    assert!(in_place(&site) == old && !folder(&site).exists());
    let mut command = site.command(&["doctor", "orders"]);
    command.env("DPKG_ADMINDIR", site.path("dpkg"));
    let doctor = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("remedy: update the package"), "{doctor}");
}

#[tokio::test]
async fn what_cannot_be_put_in_its_place_was_not_tried() {
    let mut site = site().await;
    let (old, new) = (in_place(&site), publish_good(&site, "0.2.0", 2));
    V2.publish(&site.feed());
    // Where the new program would be written, so that it can be renamed.
    let obstacle = folder(&site).join("next");
    fs_err::create_dir_all(&obstacle).unwrap();
    site.open().await;
    let view = site.settled(site.update().await).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let (message, findings) = said(&site, view.id).await;
    assert!(
        message.starts_with("Afterhours 0.1.0 stays; 0.2.0 (build 2) was not tried: failed to remove "),
        "{message}"
    );
    assert!(message.contains("directory"), "why: {message}");
    assert_eq!(findings.len(), 1);
    assert!(in_place(&site) == old);
    site.reports(1).await;
    // That says nothing about the build: the next run takes it.
    fs_err::remove_dir(&obstacle).unwrap();
    V3.publish(&site.feed());
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    assert_eq!(said(&site, view.id).await.0, "Afterhours 0.2.0 (build 2) runs, before it was 0.1.0");
    assert!(in_place(&site) == new);
    site.stop().await;
}
