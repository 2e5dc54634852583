//! The vendor's side: a signed feed is created, published into, kept fresh, and given other keys.
//!
//! ```text
//! create ──► publish ──► sign, sign, sign … ──► rotate
//!  keys       a tree       by a timer            another key for a role
//!               └──► withdraw
//!                     a release that turned out bad
//! ```
//!
//! What comes out is a folder of plain files for any web server: The Update Framework 1.0 with consistent snapshots.
//! [`state`] says what lies where and how it changes; [`keys`], [`signer`] and [`role`] make signatures; [`renew`] decides what has
//! to be signed; [`site`] asks the client that sites use before anything is written.
//!
//! *Invariant:* whatever moment we die in, a site can use the folder as it is then: everything new comes first, and the
//! file that makes it count last.
//!
//! Deliberately absent: uploading, and delegations.

mod carry;
mod create;
mod deltas;
mod disk;
mod error;
mod folder;
mod keys;
mod passphrases;
mod public;
mod publish;
mod refuse;
mod renew;
mod role;
mod rotate;
mod sealed;
mod sign;
mod signer;
mod site;
mod standing;
mod state;
mod withdraw;

pub use crate::feed::vendor::carry::CarriedFeed;
pub use crate::feed::vendor::carry::carry;
pub use crate::feed::vendor::create::NewFeed;
pub use crate::feed::vendor::create::Quorum;
pub use crate::feed::vendor::create::create;
pub use crate::feed::vendor::error::VendorError;
pub use crate::feed::vendor::error::VendorFailure;
pub use crate::feed::vendor::folder::pack_into;
pub use crate::feed::vendor::keys::Scheme;
pub use crate::feed::vendor::keys::are_keys_sealed;
pub use crate::feed::vendor::passphrases::Passphrases;
pub use crate::feed::vendor::passphrases::make_passphrase;
pub use crate::feed::vendor::publish::Content;
pub use crate::feed::vendor::publish::Published;
pub use crate::feed::vendor::publish::publish;
pub use crate::feed::vendor::publish::publish_watched;
pub use crate::feed::vendor::role::Role;
pub use crate::feed::vendor::rotate::Replacement;
pub use crate::feed::vendor::rotate::Rotated;
pub use crate::feed::vendor::rotate::rotate;
pub use crate::feed::vendor::sign::ClosedKey;
pub use crate::feed::vendor::sign::Signed;
pub use crate::feed::vendor::sign::sign;
pub use crate::feed::vendor::signer::SignerError;
pub use crate::feed::vendor::standing::FeedStanding;
pub use crate::feed::vendor::standing::KeyStanding;
pub use crate::feed::vendor::standing::PendingRoot;
pub use crate::feed::vendor::standing::RoleStanding;
pub use crate::feed::vendor::standing::UnreadableRelease;
pub use crate::feed::vendor::standing::standing;
pub use crate::feed::vendor::state::Hold;
pub use crate::feed::vendor::state::Place;
pub use crate::feed::vendor::withdraw::Withdrawn;
pub use crate::feed::vendor::withdraw::withdraw;
