//! breakglass-mailer.

pub mod clock;
pub mod core;
pub mod delivery {
    //! Delivery.
    pub mod transport;
}
pub mod queue {
    //! The queue.
    pub mod store;
}
pub mod registry;
pub mod smtp;
