//! Ctrl-C of client commands: leave the terminal as it was, exit with 130.

use std::thread;

use super::exit;

/// Ends this process with [`exit::INTERRUPTED`] when Ctrl-C comes, from now on.
///
/// Nothing a client does needs an orderly end: runs and logs live at the controller.
pub fn exit_on_ctrl_c() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    // Without a handler Ctrl-C still ends the process, by its signal.
    let Ok(runtime) = runtime else { return };
    let wait = move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            super::follow::show_cursor();
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
    };
    // A failed spawn is the same case.
    let _ = thread::Builder::new().name("ctrl-c".into()).spawn(wait);
}
