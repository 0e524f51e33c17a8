//! breakglass-mailer.

pub mod clock;
pub mod core;
pub mod delivery {
    //! Delivery.
    pub mod transport;
}
pub mod http;
pub mod metrics;
pub mod queue;
pub mod registry;
