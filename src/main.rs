//! `xene`: controller, agent, client and local runner in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    xene::cli::main()
}
