//! The proof from outside: every test here starts the real binary, or reads the real sources.
//!
//! `crash`, `order`, `power` and `damage` hold the promise of a 202 against kills, system calls, power
//! cuts and damaged files; `arrows` holds the sources against their architecture. A run that draws lots
//! prints its seed.

mod arrows;
mod crash;
mod damage;
mod order;
mod power;
mod support;
