//! The one integration binary: the product from outside, against real components.

mod settings;
mod support;
