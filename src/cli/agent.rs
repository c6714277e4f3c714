//! `xene agent`: dials a controller, hosts the triggers of its pipelines, runs them.

use std::{num::NonZeroU32, path::PathBuf};

use xene_schemas::meta::{AgentName, Labels};

use super::{
    Error, Global,
    dirs::{self, DataDir},
    settings,
};

/// Arguments of `xene agent`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Each flag can also be set as XENE_<FLAG>, or in the file that --config names, a YAML map \
                        from flags to values. The command line comes first, then the environment, then the file.")]
pub struct Args {
    /// The controller's --quic address as seen from here.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub controller: String,

    /// Join token of `xene agents token create`; needed once, afterwards the stored identity serves.
    #[arg(long, value_name = "JOIN")]
    pub token: Option<String>,

    /// The agent's name [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<AgentName>,

    /// A label, beside os, arch and hostname; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = settings::key_value)]
    pub label: Vec<(String, String)>,

    /// How many tasks may run at once [default: one for each CPU].
    #[arg(long, value_name = "N")]
    pub slots: Option<NonZeroU32>,

    /// Where state is kept [default: ~/.local/share/xene/agent].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// A file with values for flags that are not given.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Args {
    /// Where state is kept.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| dirs::default_data_dir(DataDir::Agent))
    }

    /// The labels asked for; of a repeated key the last counts.
    pub fn labels(&self) -> Labels {
        self.label.iter().cloned().collect()
    }

    /// How many tasks may run at once.
    pub fn slots(&self) -> u32 {
        let cpus = || std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        self.slots.map_or_else(cpus, NonZeroU32::get)
    }
}

/// `HOST:PORT`; names are looked up at each dial, not here.
fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT, such as controller.example:7421".into()),
    }
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// If it can't start, or fails.
pub fn run(_args: Args, _global: &Global) -> Result<(), Error> {
    Err(Error::Failed { message: "the agent is not wired yet".into(), hint: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["c:7421", "[::1]:7421", "c.example:1"] {
            assert!(host_and_port(good).is_ok(), "{good}");
        }
        for bad in ["c", "c:", ":1", "c:0", "c:70000", "quic://c"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
