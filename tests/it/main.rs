//! The proof from outside: every test here starts the real binary, or reads the real sources.
//!
//! `crash`, `order`, `power` and `damage` hold the promise of a 202 against kills, system calls, power
//! cuts and damaged files; `postfix` holds the mail against a real server; `arrows` holds the sources
//! against their architecture. A run that draws lots prints its seed.

mod arrows;
mod crash;
mod damage;
mod order;
mod postfix;
mod power;
mod support;
