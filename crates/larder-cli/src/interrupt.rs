//! Ctrl-C (and SIGTERM, SIGHUP) as a flag that loops look at.
//!
//! The first signal asks to stop cleanly; a second one ends the process at once, which loses no more than any kill
//! does: what was accepted and not yet handed to the kernel.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Whether the program has the terminal's alternate screen, which has to be given back before it ends.
static SCREEN: AtomicBool = AtomicBool::new(false);

/// Notes that the alternate screen was taken or given back.
pub fn note_screen(taken: bool) {
    SCREEN.store(taken, Ordering::SeqCst);
}

/// Installs the handler. Once, at the start.
pub fn install() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            if SCREEN.load(Ordering::SeqCst) {
                ratatui::restore();
            }
            std::process::exit(130);
        }
    })
    .map_err(|error| Failure::Other(format!("install the Ctrl-C handler: {error}")))
}

/// Whether a signal has asked the program to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// An error if a signal has asked the program to stop.
pub fn check() -> Result<(), Failure> {
    if requested() { Err(Failure::Interrupted) } else { Ok(()) }
}
