//! What the subcommands need beside the server.

pub mod catch_all;
pub mod client;
pub mod crds;
pub mod man;
pub mod migrate_config;
pub mod store;
