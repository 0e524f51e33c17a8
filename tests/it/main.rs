//! The proof from outside: every test here starts the real binary, or reads the real sources.

mod arrows;
