//! Applications that nobody here wrote, put under the product by configuration alone.
//!
//! The configurations are those of `config/examples/`, with other paths, ports and times; whatever
//! is said there is true here. Each application is updated by a job at its time, then a bad release
//! comes, and everything has to be as it was.
//!
//! - `radicale.rs`: calendars in files. Three releases as PyPI has them, fetched by `.ci/foreign`;
//!   supervised, and under systemd in a box.
//! - `postgres.rs`: an order desk whose data are in PostgreSQL, with users who are logged in.
//! - `site.rs`: a temporary directory that stands for a machine, and the daemon in it.

mod postgres;
mod radicale;
mod site;
