//! Looks for bytes that break what `breakglass_mailer::fuzz` holds, with libFuzzer.
//!
//! `BREAKGLASS_MAILER_FUZZ_TARGET` names the target; the arguments are libFuzzer's. `run` beside this
//! file builds and starts it.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzed {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::LazyLock;

    use breakglass_mailer::fuzz::{TARGETS, Target};

    /// The most that a record may ask for by its lengths. Nothing else comes near it.
    const ALLOCATION_BYTES_MAX: usize = 64 << 20;

    /// Ends the process when somebody asks for an absurd amount of memory, used or not.
    struct Bounded;

    #[global_allocator]
    static ALLOCATOR: Bounded = Bounded;

    fn check(bytes: usize) {
        if bytes > ALLOCATION_BYTES_MAX {
            eprintln!("{bytes} bytes of memory were asked for at once");
            std::process::abort();
        }
    }

    // SAFETY: all is handed on to the system's allocator as it is.
    unsafe impl GlobalAlloc for Bounded {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            check(layout.size());
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            check(layout.size());
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
            check(bytes);
            unsafe { System.realloc(pointer, layout, bytes) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    static TARGET: LazyLock<Target> = LazyLock::new(|| {
        let wanted = std::env::var("BREAKGLASS_MAILER_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(name, _)| *name == wanted);
        found.expect("BREAKGLASS_MAILER_FUZZ_TARGET names a target").1
    });

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
}

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("not built for fuzzing: see tests/fuzz/run");
}
