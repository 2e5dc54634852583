//! The one integration binary: the product from outside, against real components.

mod backup;
mod calendar;
mod cli;
mod client;
mod demo;
mod documents;
mod feed;
mod feed_signed;
mod foreign;
mod gate;
mod hostile;
mod install;
mod jobs;
mod night;
mod notify;
mod people;
mod pinned;
mod probe;
mod renewal;
mod service;
mod settings;
mod support;
mod tidy;
mod untrusted;
