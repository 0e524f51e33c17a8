//! A wall clock that a test sets, for a server of its own; the monotonic clock goes on as it is.

use std::path::PathBuf;

use super::app::Home;

#[cfg(target_arch = "x86_64")]
pub const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
#[cfg(target_arch = "aarch64")]
pub const LIBRARY: &str = "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The wall clock of the servers of one home.
pub struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// Gives the servers of this home a wall clock that is `offset` from the true one.
    pub fn of(home: Home, offset: &str) -> (Self, Home) {
        let clock = Self { file: home.path("wall-clock") };
        clock.set(offset);
        let file = clock.file.to_str().expect("UTF-8").to_owned();
        let home = home
            .env("LD_PRELOAD", LIBRARY)
            .env("FAKETIME_TIMESTAMP_FILE", &file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        (clock, home)
    }

    /// Sets it, also under a server that runs: `-1h`, `+1d`, `-10y`, `+0`.
    ///
    /// # Panics
    /// When the disk is at fault.
    pub fn set(&self, offset: &str) {
        let draft = self.file.with_extension("new");
        std::fs::write(&draft, format!("{offset}\n")).expect("write the time");
        std::fs::rename(&draft, &self.file).expect("rename");
    }
}
