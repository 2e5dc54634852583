//! What runs out: when a vendor's signatures are renewed, what an expired root stops, and the ways out of it. The clock is ours.

use std::path::PathBuf;
use std::sync::Arc;

use afterhours::domain::clock::ManualClock;
use afterhours::domain::name::AppName;
use afterhours::domain::release::ReleaseId;
use afterhours::feed::Feed;
use afterhours::feed::FeedError;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::signed::TrustError;
use afterhours::feed::vendor;
use afterhours::feed::vendor::Content;
use afterhours::feed::vendor::Hold;
use afterhours::feed::vendor::NewFeed;
use afterhours::feed::vendor::Passphrases;
use afterhours::feed::vendor::Place;
use afterhours::feed::vendor::Quorum;
use afterhours::feed::vendor::Replacement;
use afterhours::feed::vendor::Role;
use afterhours::feed::vendor::Scheme;
use afterhours::feed::vendor::Signed;
use afterhours::feed::vendor::VendorError;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rstest::rstest;
use secrecy::SecretString;

use crate::feed_signed::feed;
use crate::feed_signed::server::Server;
use crate::feed_signed::today;

/// A vendor whose root keys are on two sticks, with one release, and a site that has read it on the first day.
struct Years {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    _server: Server,
    site: Feed,
}

impl Years {
    async fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let orders = dir.path().join("orders");
        let app: AppName = "orders".parse().unwrap();
        let wish = NewFeed {
            updater: false,
            name: app.to_string(),
            scheme: Scheme::default(),
            root: Quorum { keys: 2, threshold: 2 },
            targets: Quorum::ONE,
            hold: Hold::default(),
            root_folder: Some(dir.path().join("both")),
            signers: Vec::new(),
        };
        vendor::create(&orders, &wish, &passphrases(), today()).unwrap();
        for (stick, key) in ["one", "two"].iter().zip(fs_err::read_dir(dir.path().join("both")).unwrap()) {
            let key = key.unwrap();
            fs_err::create_dir(dir.path().join(stick)).unwrap();
            fs_err::copy(key.path(), dir.path().join(stick).join(key.file_name())).unwrap();
        }
        fs_err::create_dir(dir.path().join("tree")).unwrap();
        fs_err::write(dir.path().join("tree/orders"), "orders").unwrap();
        let server = Server::start(&orders.join("published")).await;
        let clock = Arc::new(ManualClock::at(today()));
        let site = feed(dir.path(), &server, Some(orders.join("root.json")), clock.clone());
        let years = Self { dir, clock, _server: server, site };
        years.publish(1).unwrap();
        assert_eq!(years.site_sees().await.unwrap(), [1]);
        years
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn place(&self, sticks: &[&str]) -> Place {
        let keys = sticks.iter().map(|stick| self.path(stick)).collect();
        Place { dir: self.path("orders"), keys, passphrases: Some(passphrases()) }
    }

    fn day(&self, days: i64) -> DateTime<Utc> {
        let day = today() + TimeDelta::days(days);
        self.clock.set(day);
        day
    }

    fn now(&self) -> DateTime<Utc> {
        afterhours::domain::clock::Clock::now(self.clock.as_ref())
    }

    fn sign(&self, sticks: &[&str]) -> Result<Signed, VendorError> {
        vendor::sign(self.place(sticks), self.now())
    }

    fn publish(&self, build: u64) -> Result<(), VendorError> {
        let meta = PackMeta::new(ReleaseId { version: format!("{build}.0").parse().unwrap(), build });
        vendor::publish(self.place(&[]), &meta, &Content::Tree(self.path("tree")), 0, self.now()).map(drop)
    }

    async fn site_sees(&self) -> Result<Vec<u64>, FeedError> {
        Ok(self.site.releases().await?.iter().map(|release| release.id.build).collect())
    }

    /// The site refuses what it is shown because this role has run out.
    async fn site_refuses(&self, of: &str) -> String {
        match self.site_sees().await {
            Err(FeedError::Trust(error @ TrustError::Expired { .. })) => {
                assert!(
                    error.to_string().starts_with(&format!("accept the {of} metadata: it has expired on ")),
                    "{error}"
                );
                error.hint().unwrap()
            }
            seen => panic!("{seen:?}"),
        }
    }
}

fn passphrases() -> Passphrases {
    Passphrases::new(SecretString::from("correct horse battery"), None)
}

#[tokio::test]
async fn each_signature_is_renewed_when_a_third_of_its_time_is_left() {
    use Role::Root;
    use Role::Snapshot;
    use Role::Targets;
    use Role::Timestamp;
    let years = Years::begin().await;
    let mut held_until = today();
    for (day, expected) in [
        (1, &[Timestamp][..]),
        (19, &[Timestamp]),
        // Of thirty days ten are left, then of ninety thirty.
        (20, &[Snapshot, Timestamp]),
        (39, &[Timestamp]),
        (40, &[Snapshot, Timestamp]),
        (59, &[Timestamp]),
        (60, &[Targets, Snapshot, Timestamp]),
        (79, &[Timestamp]),
        (80, &[Snapshot, Timestamp]),
    ] {
        years.day(day);
        let signed = years.sign(&[]).unwrap();
        assert_eq!((signed.roles.as_slice(), signed.root_expires_at), (expected, None), "day {day}");
        assert!(signed.holds_until > held_until, "day {day}");
        held_until = signed.holds_until;
        assert_eq!(years.site_sees().await.unwrap(), [1], "day {day}");
    }
    // Of a year 122 days: it is said where no key of the root is here, and done where they are.
    years.day(243);
    assert_eq!(years.sign(&[]).unwrap().root_expires_at, None);
    years.day(244);
    assert_eq!(years.sign(&[]).unwrap().root_expires_at, Some(today() + TimeDelta::days(365)));
    assert_eq!(years.sign(&["both"]).unwrap().roles[0], Root);
    assert_eq!(years.site_sees().await.unwrap(), [1]);
}

#[tokio::test]
async fn a_vendor_that_forgot_to_sign_goes_on_by_signing() {
    let years = Years::begin().await;
    years.day(4);
    assert!(years.site_refuses("timestamp").await.contains("has to sign anew"));
    years.day(100);
    years.site_refuses("timestamp").await;
    let signed = years.sign(&[]).unwrap();
    assert_eq!(signed.roles, [Role::Targets, Role::Snapshot, Role::Timestamp]);
    assert_eq!(years.site_sees().await.unwrap(), [1]);
}

/// How a vendor gets out of an expired root.
#[derive(Debug, Clone, Copy)]
enum Way {
    Sign,
    RotateRoot,
    RotateTimestamp,
}

#[rstest]
#[case::sign(Way::Sign)]
#[case::another_root(Way::RotateRoot)]
#[case::another_timestamp(Way::RotateTimestamp)]
#[tokio::test]
async fn an_expired_root_stops_everything_until_it_is_renewed(#[case] way: Way) {
    let years = Years::begin().await;
    let now = years.day(366);
    let hint = years.site_refuses("root").await;
    assert!(hint.contains("the vendor has to sign a new root"), "{hint}");
    for refused in [years.sign(&[]).map(drop), years.publish(2)] {
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("2027-11-20T12:00:00"), "{error}");
        assert!(error.hint().unwrap().contains("afterhours feed sign DIR --keys KEYS"), "{error}");
    }
    let standing = vendor::standing(years.place(&[])).unwrap();
    assert_eq!((standing.roles[0].role, standing.roles[0].expires_at), (Role::Root, today() + TimeDelta::days(365)));
    match way {
        Way::Sign => {
            let signed = years.sign(&["both"]).unwrap();
            assert_eq!(signed.roles, [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp]);
        }
        Way::RotateRoot | Way::RotateTimestamp => {
            let role = if matches!(way, Way::RotateRoot) { Role::Root } else { Role::Timestamp };
            let rotated = vendor::rotate(years.place(&["both"]), role, Replacement::default(), now).unwrap();
            assert_eq!((rotated.root, rotated.pending), (2, None));
        }
    }
    // Sites that trusted the old one follow by themselves.
    assert_eq!(years.site_sees().await.unwrap(), [1]);
    years.day(367);
    years.publish(2).unwrap();
    assert_eq!(years.site_sees().await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_root_that_waits_for_its_second_signature_for_too_long_is_signed_from_the_start() {
    let years = Years::begin().await;
    years.day(300);
    let waiting = years.sign(&["one"]).unwrap().pending.unwrap();
    assert_eq!((waiting.version, waiting.missing_old), (2, 1));
    // The second one comes after more than a year, when the root that waits has expired itself.
    years.day(700);
    years.site_refuses("root").await;
    assert!(matches!(years.sign(&["two"]), Err(VendorError::RootExpired { .. })));
    let standing = vendor::standing(years.place(&[])).unwrap();
    assert_eq!(standing.pending.unwrap().missing_old, 1, "the first signature was for a time that is over");
    let signed = years.sign(&["one"]).unwrap();
    assert_eq!((signed.roles[0], signed.pending), (Role::Root, None));
    assert_eq!(years.site_sees().await.unwrap(), [1]);
}
