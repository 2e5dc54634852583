//! Looking for newer releases: what is noted of it, also while the vendor's server is away.

use std::sync::Arc;

use afterhours::config;
use afterhours::control::apps::updates;
use afterhours::db::store::Store;
use afterhours::domain::clock::Clock;
use afterhours::domain::failure::FailureCode;
use afterhours::domain::name::AppName;
use afterhours::jobs::kit::Kit;
use afterhours::jobs::update_check::Looked;
use afterhours::jobs::update_check::look;
use afterhours::renewal::Origin;
use afterhours::renewal::Renewal;
use afterhours::sessions::hub::Hub;
use afterhours::wire::app::NotReachedView;
use chrono::TimeDelta;

use crate::feed_signed::Site;
use crate::feed_signed::today;

#[tokio::test]
async fn a_server_that_is_away_is_news_although_what_was_verified_before_holds() {
    let mut site = Site::new("two").await;
    let text = format!(
        "[app.orders]\ninstall_dir = {install:?}\ninstalled_version = \"1.0\"\nservice = {{ none = true }}\n\
         feed = {{ url = \"{url}\", root = {root:?}, proxy = \"none\" }}\n",
        install = site.path("opt/orders"),
        url = site.server.url(),
        root = site.path("vendor/root.json"),
    );
    fs_err::create_dir_all(site.path("opt/orders")).unwrap();
    let (settings, app) = (config::parse(&text, "test.toml").unwrap(), "orders".parse::<AppName>().unwrap());
    let clock: Arc<dyn Clock> = site.clock.clone();
    let hub = Hub::new(Vec::new(), Arc::clone(&clock), None);
    let renewal = Arc::new(Renewal::new(&settings.daemon, Origin::of_this_process(None).unwrap()));
    let kit = Kit::new(&settings.apps[&app], site.dir.path(), None, &hub, Arc::clone(&clock), &renewal).unwrap();
    let store = Store::open(&site.path("store.db")).unwrap();
    let looked = async || {
        let Looked { selection, check } = look(&kit, &store, &*clock).await;
        store.note_update_check(&app, check).await.unwrap();
        let noted = store.update_check(&app).await.unwrap().unwrap();
        let offer = noted.offer.map(|offer| (offer.at, offer.pending.iter().map(|it| it.build).collect::<Vec<_>>()));
        (selection.map(|selection| selection.path.len()), noted.at, offer, noted.failure)
    };
    assert_eq!(looked().await, (Ok(1), today(), Some((today(), vec![2])), None));
    assert_eq!(updates(&kit, &store, &*clock).await.unwrap().not_reached, None);

    site.server.stop().await;
    let later = today() + TimeDelta::seconds(5);
    site.clock.set(later);
    let (selection, at, offer, failure) = looked().await;
    assert_eq!((selection, at, offer), (Ok(1), later, Some((today(), vec![2]))), "a run would still go on");
    let failure = failure.unwrap();
    assert!(failure.message.starts_with("ask the feed http://127.0.0.1:"), "{failure}");
    assert_eq!(failure.code, Some(FailureCode::ServerUnreachable), "scripts know it, also from the store");
    assert!(failure.hint.as_ref().unwrap().contains("network"));
    let view = updates(&kit, &store, &*clock).await.unwrap();
    assert_eq!(view.pending.len(), 1);
    assert_eq!(view.not_reached, Some(NotReachedView { failure, seen_at: Some(today()) }));

    // When the signatures have run out, a run would not go on either.
    site.clock.set(today() + TimeDelta::days(31));
    let (selection, _, offer, failure) = looked().await;
    assert_eq!((selection.unwrap_err(), offer), (failure.unwrap(), Some((today(), vec![2]))));
}
