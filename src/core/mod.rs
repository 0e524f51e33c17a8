//! The domain: values in, values out.
//!
//! Nothing here is asynchronous, reads a clock or touches a disk or a socket, and nothing here
//! knows HTTP, Kubernetes, sled or lettre. Time comes in as an argument.

pub mod access;
pub mod conditions;
pub mod decide;
pub mod health;
pub mod job;
pub mod login;
pub mod notification;
pub mod outcome;
pub mod outlook;
pub mod pace;
pub mod provider;
pub mod quota;
pub mod route;
pub mod time;
pub mod trace;
