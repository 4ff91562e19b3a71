//! The commands, a file each, and the command line that chooses one.

pub mod catalog;
pub mod check;
pub mod demo;
pub mod diff;
pub mod dry;
pub mod explain;
pub mod replay;
pub mod run;
pub mod test;

use std::io::{self, IsTerminal as _};

use clap::{CommandFactory, Parser, Subcommand};

/// A reverse proxy that routes by what instances are: catalog labels, weights, regions, health.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    ///
    /// Rule files are followed. A change that moves too many of the recent requests by surprise is told, or refused
    /// (`guard` in the configuration); `POST /v1/rules/apply` on the admin listener applies what is on disk again, with
    /// `{"force": true}` whatever the guard finds. SIGHUP reads rules, certificates, token files and log files again.
    Run(Box<run::Args>),
    /// Run sample instances, a catalog and the proxy in one process, and print what to try
    Demo(demo::Args),
    /// Parse and lint rule files
    Check(check::Args),
    /// Say where one request would go, and why
    Explain(Box<explain::Args>),
    /// Run the tests beside the rules, and say what they cover
    Test(test::Args),
    /// Decide captured requests again, and say where they go
    Replay(Box<replay::Args>),
    /// Run captured requests through two rule sets, or two catalogs, and say what moves
    Diff(Box<diff::Args>),
    /// Write the live catalog as a catalog file
    Catalog(catalog::Args),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// The exit status for what cannot be read or written.
const UNUSABLE: u8 = 2;

impl Cli {
    /// Runs the command; the process's exit status.
    #[must_use]
    pub fn run(self) -> u8 {
        let done = match self.command {
            Command::Run(args) => return run::run(&args),
            Command::Demo(args) => return demo::run(&args),
            Command::Check(args) => check::run(&args, &mut io::stdout().lock(), &mut io::stderr().lock()),
            Command::Explain(args) => explain::run(&args, &mut io::stdout().lock(), &mut io::stderr().lock()),
            Command::Test(args) => return test::run(&args),
            Command::Replay(args) => return replay::run(&args),
            Command::Diff(args) => return diff::run(&args),
            Command::Catalog(args) => catalog::run(&args, &mut io::stdout().lock(), &mut io::stderr().lock()),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "pointsman", &mut io::stdout().lock());
                Ok(0)
            }
            Command::Man => clap_mangen::Man::new(Self::command()).render(&mut io::stdout().lock()).map(|()| 0),
        };
        match done {
            Ok(status) => status,
            // The reader has what it wanted (`pointsman man | head`).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Err(error) => {
                eprintln!("pointsman: {error}");
                UNUSABLE
            }
        }
    }
}

/// Whether text on standard output may be coloured.
fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
