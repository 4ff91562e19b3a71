//! Diagnostics for people: the message, the place, the line, the carets.

use std::fmt::{self, Write as _};

use super::{Certainty, Diagnostic, Diagnostics, Severity, Witness};

impl Diagnostic {
    /// As RULES.md draws it. No colour.
    #[must_use]
    pub fn render(&self) -> String {
        self.draw(&PLAIN)
    }

    fn draw(&self, paint: &Paint) -> String {
        let (line, column) = self.source.position(self.span.start);
        let text = self.source.text.lines().nth(line - 1).unwrap_or("");
        let gutter = line.to_string().len();
        let rest = text.chars().count().saturating_sub(column - 1).max(1);
        let wide = self.source.text.get(self.span.start..self.span.end).map_or(1, |s| s.chars().count());
        let carets = "^".repeat(wide.clamp(1, rest));
        let label = self.label.as_deref().map_or(String::new(), |label| format!(" {label}"));
        // A tab stays a tab, so that the carets stand below what they mean however wide it is shown.
        let before = text.chars().chain(std::iter::repeat(' ')).take(column - 1);
        let pad: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let Paint { bold, faint, end, .. } = paint;
        let hue = paint.severity(self.severity);

        let mut out =
            format!("{hue}{}[{}]{end}{bold}: {}{end}\n", self.severity.word(), self.code, printable(&self.message));
        let _ = writeln!(out, "{:gutter$}{faint}┌─{end} {}:{line}:{column}", "", printable(&self.source.name));
        // A file that could not be read has no line to show.
        if !self.source.text.is_empty() {
            let _ = writeln!(out, "{faint}{line}│{end} {}", printable(text));
            let _ = writeln!(out, "{:gutter$}{faint}│{end} {pad}{hue}{carets}{}{end}", "", printable(&label));
        }
        for (source, span, word) in &self.related {
            let (line, column) = source.position(span.start);
            let _ = writeln!(out, "{:gutter$}{faint}={end} {word}: {}:{line}:{column}", "", printable(&source.name));
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{:gutter$}{faint}={end} help: {}", "", printable(help));
        }
        if let Some(certainty) = self.certainty {
            let _ = write!(out, "{:gutter$}{faint}={end} {}", "", certainty.word());
            if let Some(witness) = &self.witness {
                let _ = write!(out, ": {}", printable(&witness.to_string()));
                let _ = write!(out, "\n{:gutter$}{faint}={end} {}", "", printable(&witness.command));
            }
            out.push('\n');
        }
        out
    }
}

impl Diagnostics {
    /// All of them as RULES.md draws them, separated by empty lines. No colour.
    #[must_use]
    pub fn render(&self) -> String {
        self.drawn(&PLAIN)
    }

    /// The same in colour, for a terminal.
    #[must_use]
    pub fn render_in_colour(&self) -> String {
        self.drawn(&COLOUR)
    }

    fn drawn(&self, paint: &Paint) -> String {
        self.0.iter().map(|found| found.draw(paint)).collect::<Vec<_>>().join("\n")
    }
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl Certainty {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Suspected => "suspected",
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)?;
        for (name, value) in &self.headers {
            write!(f, ", {name}: {value}")?;
        }
        if let Some(client) = self.client {
            write!(f, ", from {client}")?;
        }
        write!(f, ", {}", self.outcome)
    }
}

/// ANSI sequences, or nothing.
struct Paint {
    error: &'static str,
    warning: &'static str,
    note: &'static str,
    bold: &'static str,
    faint: &'static str,
    end: &'static str,
}

const PLAIN: Paint = Paint { error: "", warning: "", note: "", bold: "", faint: "", end: "" };
const COLOUR: Paint = Paint {
    error: "\x1b[1;31m",
    warning: "\x1b[1;33m",
    note: "\x1b[1;36m",
    bold: "\x1b[1m",
    faint: "\x1b[34m",
    end: "\x1b[0m",
};

impl Paint {
    fn severity(&self, severity: Severity) -> &'static str {
        match severity {
            Severity::Error => self.error,
            Severity::Warning => self.warning,
            Severity::Note => self.note,
        }
    }
}

/// A file's text is shown on a terminal, so what would steer it is not.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}
