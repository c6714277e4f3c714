//! `xene-agent`: the agent alone, for fleets where size counts. `xene agent` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    xene_agent::command::main()
}
