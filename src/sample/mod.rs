//! Order desk: a small application of our own, for the demo and for trying things out.
//!
//! It is what Afterhours is made for: people log in at workstations and enter orders, the server
//! keeps them in data with a schema version, and each new version migrates them.
//!
//! ```text
//! program tree   app.toml (version, schema) · config/desk.toml (the administrator's) · bin/order-desk
//! data           people.json (names, password hashes) · orders.jsonl (schema, then one order a line)
//! server         /health · /version · /login · /logout · /orders
//! workstation    logs in, enters orders, notes in a ledger of its own which ones were confirmed
//! ```
//!
//! - [`tree`]: a version's program on disk, written and read.
//! - [`data`]: orders and people on disk; [`migrate`]: from one schema to the next.
//! - [`server`]: the pages; [`desk`]: the workstation program; [`care`]: backup and fingerprint.
//! - [`website`]: the vendor's web server.
//!
//! An order is confirmed only when it is on the disk; a version refuses data of a newer schema, and
//! answers 500 on data of an older one. The rest of the product knows nothing of all this.

pub mod care;
pub mod data;
pub mod desk;
pub mod error;
pub mod migrate;
pub mod server;
pub mod tree;
pub mod website;

use serde::Deserialize;
use serde::Serialize;

/// What somebody ordered: the same in every schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by the workstation and one of a kind: entering it twice is the same as once.
    pub reference: String,
    /// Who entered it.
    pub by: String,
    /// How many.
    pub quantity: u32,
    /// Of what.
    pub item: String,
}

/// What `/version` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version that runs.
    pub version: String,
    /// The schema of the data it works with.
    pub schema: u32,
    /// The administrator's word to the users.
    pub greeting: String,
}

/// A login, as it is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    /// Who.
    pub name: String,
    /// The password.
    pub password: String,
}

/// What a login is answered with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// Stands for the login in later requests.
    pub token: String,
}
