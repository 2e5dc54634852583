//! The vendor of Order desk: a signed feed, made and published as `afterhours feed` does it, and a web server for it.
//!
//! The server is nobody's friend: [`Vendor::breaks_in`] puts on it what somebody would who has taken it over.

use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::SubsecRound;
use chrono::Utc;
use fs_err as fs;
use secrecy::SecretString;

use crate::cli::exit::CliError;
use crate::domain::release::ReleaseId;
use crate::feed::pack::PackMeta;
use crate::feed::vendor;
use crate::feed::vendor::Content;
use crate::feed::vendor::Hold;
use crate::feed::vendor::NewFeed;
use crate::feed::vendor::Passphrases;
use crate::feed::vendor::Place;
use crate::feed::vendor::Quorum;
use crate::feed::vendor::Scheme;
use crate::sample::tree;
use crate::sample::tree::App;
use crate::sample::tree::PROGRAM;
use crate::sample::website::Website;

/// What the vendor says of a version.
#[derive(Debug)]
pub(super) struct Edition {
    pub(super) version: &'static str,
    pub(super) schema: u32,
    pub(super) build: u64,
    pub(super) notes: &'static str,
    pub(super) broken: bool,
}

/// The vendor.
#[derive(Debug)]
pub(super) struct Vendor {
    dir: PathBuf,
    binary: PathBuf,
    passphrases: Passphrases,
    website: Website,
}

impl Vendor {
    /// Makes keys and an empty feed in `dir`, and opens the web server.
    pub(super) fn found(dir: PathBuf, binary: &Path, now: DateTime<Utc>) -> Result<Self, CliError> {
        // Nobody needs it after tonight.
        let passphrases = Passphrases::new(SecretString::from(uuid::Uuid::new_v4().to_string()), None);
        let feed = NewFeed {
            updater: false,
            name: "order-desk".to_owned(),
            scheme: Scheme::default(),
            root: Quorum::ONE,
            targets: Quorum::ONE,
            hold: Hold::default(),
            root_folder: None,
            signers: Vec::new(),
        };
        vendor::create(&dir, &feed, &passphrases, now.trunc_subsecs(0))?;
        let website = Website::open(&dir.join("published"));
        let website = website.map_err(|error| CliError::failed("open the vendor's web server", &error))?;
        Ok(Self { dir, binary: binary.to_owned(), passphrases, website })
    }

    /// Where its releases are.
    pub(super) fn url(&self) -> String {
        self.website.url()
    }

    /// What it gives to its customers by hand.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.join("root.json")
    }

    /// Publishes a version.
    pub(super) fn publish(&self, edition: &Edition, now: DateTime<Utc>) -> Result<(), CliError> {
        let what = format!("publish Order desk {}", edition.version);
        let failed = |error: &dyn std::error::Error| CliError::failed(&what, error);
        let version = edition.version.parse().map_err(|error| failed(&error))?;
        let tree = self.dir.with_file_name(format!("order-desk-{}", edition.version));
        let app = App { version: edition.version.to_owned(), schema: edition.schema, broken: edition.broken };
        tree::plant(&tree, &app, &self.binary).map_err(|error| failed(&error))?;
        let mut meta = PackMeta::new(ReleaseId { version, build: edition.build });
        meta.notes = edition.notes.to_owned();
        meta.migrate = Some(vec![PROGRAM.to_owned(), "migrate".to_owned()]);
        let place = Place { dir: self.dir.clone(), keys: Vec::new(), passphrases: Some(self.passphrases.clone()) };
        vendor::publish(place, &meta, &Content::Tree(tree.clone()), 0, now.trunc_subsecs(0))?;
        fs::remove_dir_all(&tree).map_err(|error| failed(&error))
    }

    /// The list that all others hang on, as the web server gives it now.
    pub(super) fn list(&self) -> Result<Vec<u8>, CliError> {
        fs::read(self.list_file()).map_err(|error| CliError::failed("read the vendor's list", &error))
    }

    /// Puts another list on the web server, without a key.
    pub(super) fn breaks_in(&self, list: &[u8]) -> Result<(), CliError> {
        fs::write(self.list_file(), list).map_err(|error| CliError::failed("write the vendor's list", &error))
    }

    fn list_file(&self) -> PathBuf {
        self.dir.join("published/metadata/timestamp.json")
    }
}
