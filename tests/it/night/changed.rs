//! The configuration changes while a run is in the middle: the run goes to its end with what it began with.

use rstest::rstest;

use super::away::WAITS;
use super::away::WAITS_AND_FAILS;
use super::releases::Edition;
use super::site::Site;
use super::truth::Left;

/// Everything about the application, under another name.
const RENAMED: (&str, &str) = ("[app.orders]", "[app.shop]");
/// It is said to stand elsewhere now.
const MOVED: (&str, &str) = ("/opt/orders\"", "/opt/moved\"");

/// Takes the application out of the configuration.
fn take_out(site: &Site) {
    let text = site.read("afterhours.toml");
    fs_err::write(site.path("afterhours.toml"), text.split("[app.orders]").next().unwrap()).unwrap();
}

async fn ends_with_what_it_began_with(edition: Edition, change: impl FnOnce(&Site), left: Left) -> Site {
    let mut site = Site::new().await;
    edition.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    site.is_migrating().await;
    site.kill().await;
    change(&site);
    fs_err::remove_file(site.path("migrating")).unwrap();
    site.serve().await;
    // The migration that was left in the middle is ended, and begun anew upon the data as they were.
    site.is_migrating().await;
    site.go_on();
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[edition], &["first", "second"]).await, left);
    site.reports(1).await;
    site
}

#[rstest]
#[case::it_goes_on(WAITS, Left::New)]
#[case::it_goes_back(WAITS_AND_FAILS, Left::Old)]
#[tokio::test]
async fn an_application_that_is_taken_out_in_the_middle(#[case] edition: Edition, #[case] left: Left) {
    ends_with_what_it_began_with(edition, take_out, left).await;
}

#[rstest]
#[case::renamed(RENAMED)]
#[case::moved(MOVED)]
#[tokio::test]
async fn an_application_that_changes_in_the_middle(#[case] (from, to): (&str, &str)) {
    ends_with_what_it_began_with(WAITS_AND_FAILS, |site| site.reconfigure(from, to), Left::Old).await;
}
