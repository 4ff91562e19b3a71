//! What is in force, each value with where it came from: `run --print-config`.

use std::fmt;

use serde::Serialize;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from", content = "name")]
pub enum Origin {
    /// A flag, by its name.
    Flag(&'static str),
    /// A variable, by its name.
    Environment(String),
    /// The configuration file.
    File,
    /// One of Consul's own variables.
    ConsulVariable(&'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Environment(name) => f.write_str(name),
            Self::File => f.write_str("file"),
            Self::ConsulVariable(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    key: String,
    value: String,
    #[serde(flatten)]
    origin: Origin,
}

/// All values in force, in reading order.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Report(Vec<Line>);

impl Report {
    /// Notes a value.
    pub(super) fn note(&mut self, key: String, value: String, origin: Origin) {
        self.0.push(Line { key, value, origin });
    }

    /// The last one is not to be shown.
    pub(super) fn hide_last(&mut self) {
        if let Some(line) = self.0.last_mut() {
            line.value = "<secret>".to_owned();
        }
    }

    /// `limits.head: 10s   # default`, one a line.
    #[must_use]
    pub fn render(&self) -> String {
        let width =
            self.0.iter().map(|line| line.key.len() + line.value.len() + 2).filter(|w| *w < 70).max().unwrap_or(0);
        let line = |line: &Line| {
            let text = format!("{}: {}", line.key, line.value);
            format!("{text:width$}  # {}\n", line.origin)
        };
        self.0.iter().map(line).collect()
    }
}
