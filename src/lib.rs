//! breakglass-mailer.

pub mod clock;
pub mod core;
pub mod delivery {
    //! Delivery.
    pub mod transport;
}
#[path = "../migrations/mod.rs"]
mod migrations;
pub mod queue;
pub mod registry;
pub mod store;
