//! Attacks by real users of the machine: the application's own, and a stranger. Each is refused or has no effect.

mod commands;
mod door;
mod facts;
mod gate;
mod history;
mod links;
mod people;
mod places;
mod settings;
mod trees;
mod updater;
