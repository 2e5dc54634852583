//! What operators are told after a run: the report and how it is mailed.
//!
//! ```text
//! RunReport ── template (pure, by language) ── subject + text ── mail (SMTP) ── the site's mail server
//! ```
//!
//! [`mail`] hands over one mail and says whether trying again can help; the outbox that tries again
//! belongs to the floor above. [`template`] knows no mail and does no I/O.
//!
//! Deliberately absent: what users are told (`sessions/`), HTML mails, attachments.

pub mod mail;
pub mod template;
