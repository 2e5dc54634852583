//! The configuration changes while a run is in the middle: the run goes to its end with what it began with.

use afterhours::domain::run::Outcome;
use rstest::rstest;

use super::away::WAITS;
use super::away::WAITS_AND_FAILS;
use super::releases::Edition;
use super::releases::V1;
use super::site::Site;
use super::site::eventually;
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
    let unfit = site.client().status().await.unwrap().unfit;
    assert!(unfit.iter().all(|unfit| unfit.why.contains(&format!("run {run}"))), "{unfit:#?}");
    site.go_on();
    let view = site.settled(run).await;
    assert_eq!(view.outcome == Some(Outcome::Succeeded), left == Left::New, "{view:#?}");
    let now = if left == Left::New { edition } else { V1 };
    site.desk_answers(now.version).await;
    assert_eq!((site.read("opt/orders/version"), site.read("faults")), (now.version.to_owned(), String::new()));
    assert_eq!(site.read("data/schema"), now.schema.to_string());
    assert!(!site.path("opt/.orders.afterhours/hold").exists());
    site.reports(1).await;
    // What waited for the directories of the run is taken up now.
    eventually("nothing is left out any more", async || {
        site.client().status().await.is_ok_and(|status| status.unfit.is_empty())
    })
    .await;
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
