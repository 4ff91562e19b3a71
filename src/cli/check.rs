//! `pointsman check PATH… [--catalog FILE] [--previous PATH] [--deny warnings] [--format text|json|sarif]`,
//! `pointsman check --schema [rules|tests]`, `pointsman check --fmt [--write] PATH…`.

mod layout;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::dry_run::check::{Named, Verdict, check_against};
use crate::dry_run::inputs;
use crate::dry_run::load::{self, Unreadable};
use crate::engine::diagnostic::{Diagnostics, Severity};
use crate::engine::rules::RuleSet;
use crate::engine::rules::lint::{Against, Catalog, LINTS};
use crate::engine::rules::schema::{self, SCHEMA};

/// Nothing to say against the rules.
const CLEAN: u8 = 0;
/// Errors, or warnings that are denied.
const WRONG: u8 = 1;
/// Something could not be read.
const UNREADABLE: u8 = 2;

/// How the findings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object.
    Json,
    /// SARIF 2.1.0.
    Sarif,
}

/// What a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A rule file.
    Rules,
    /// A file of tests.
    Tests,
}

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rule files, or folders of them; `-` is standard input
    #[arg(required_unless_present = "schema", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// A catalog file, for the lints that look at labels
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
    /// The rules before: a file or a folder, for the lints that look at what a change moves
    #[arg(long, value_name = "PATH")]
    pub previous: Option<PathBuf>,
    /// Show notes too; programs always get them
    #[arg(long)]
    pub notes: bool,
    /// `warnings`: they count as errors
    #[arg(long, value_name = "WHAT", value_parser = ["warnings"])]
    pub deny: Option<String>,
    /// Print the JSON Schema of a rule file, or of a file of tests, for editors, and nothing else
    #[arg(long, value_enum, value_name = "FILE", num_args = 0..=1, default_missing_value = "rules", conflicts_with_all = ["paths", "fmt"])]
    pub schema: Option<Kind>,
    /// Name the files that are not in the one layout; of standard input, print the text in it
    #[arg(long, conflicts_with_all = ["catalog", "previous", "deny"])]
    pub fmt: bool,
    /// Write those files anew
    #[arg(long, requires = "fmt")]
    pub write: bool,
    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Checks as the command line says.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn run(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    match args.schema {
        Some(Kind::Rules) => return write!(out, "{SCHEMA}").map(|()| CLEAN),
        Some(Kind::Tests) => return write!(out, "{}", schema::of_tests()).map(|()| CLEAN),
        None => {}
    }
    if args.fmt {
        return layout::run(&args.paths, args.write, out, err);
    }
    let previous = match args.previous.as_deref().map(before).transpose() {
        Ok(previous) => previous,
        Err(problems) => {
            writeln!(err, "{}", problems.trim_end())?;
            return Ok(UNREADABLE);
        }
    };
    let catalog = match args.catalog.as_deref().map(inputs::catalog).transpose() {
        Ok(catalog) => catalog.map(|file| file.services.into_iter().collect()),
        Err(error) => {
            writeln!(err, "{}", error)?;
            return Ok(UNREADABLE);
        }
    };
    let asked = Asked {
        paths: &args.paths,
        catalog: catalog.as_ref(),
        catalog_at: args.catalog.as_ref().map(|path| path.display().to_string()),
        previous: previous.as_ref(),
        notes: args.notes,
        deny_warnings: args.deny.is_some(),
        format: args.format,
        colour: super::colour(),
    };
    check(&asked, out)
}

/// The rules before, or what is wrong with them.
fn before(path: &Path) -> Result<RuleSet, String> {
    let loaded = load::rules(&[path.to_owned()]);
    let mut problems: Vec<String> = loaded.unreadable.iter().map(ToString::to_string).collect();
    if loaded.diagnostics.has_errors() {
        problems.push(loaded.diagnostics.render());
    }
    if problems.is_empty() { Ok(loaded.rules) } else { Err(problems.join("\n")) }
}

/// What is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Rule files and folders of them; `-` is standard input.
    pub paths: &'a [PathBuf],
    /// The instances, for the lints that look at labels.
    pub catalog: Option<&'a Catalog>,
    /// The catalog's path, for the commands that findings offer.
    pub catalog_at: Option<String>,
    /// The rules before.
    pub previous: Option<&'a RuleSet>,
    /// Whether text shows notes.
    pub notes: bool,
    /// Warnings count as errors.
    pub deny_warnings: bool,
    /// How to write.
    pub format: Format,
    /// Whether text is coloured.
    pub colour: bool,
}

/// Checks and writes the findings. Gives the exit status: 0 clean, 1 errors (or denied warnings), 2 unreadable input.
pub fn check(asked: &Asked<'_>, out: &mut impl Write) -> io::Result<u8> {
    let loaded = load::rules(asked.paths);
    let files = loaded.sources.len();
    let against = Against { catalog: asked.catalog, previous: asked.previous };
    let paths: Vec<String> = asked.paths.iter().map(|path| path.display().to_string()).collect();
    let named = Named { rules: &paths, catalog: asked.catalog_at.as_deref() };
    let found = check_against(&loaded.rules, loaded.diagnostics, against, named);
    match asked.format {
        Format::Text => text(&found, &loaded.unreadable, files, asked, out)?,
        Format::Json => json(&found, &loaded.unreadable, files, out)?,
        Format::Sarif => {
            let about = |code: &str| LINTS.iter().find(|lint| lint.code == code).map(|lint| lint.looks_for);
            let mut log = found.diagnostics.to_sarif(about);
            let notes = loaded.unreadable.iter().map(|u| json!({"level": "error", "message": {"text": u.to_string()}}));
            log["runs"][0]["invocations"] = json!([{
                "executionSuccessful": loaded.unreadable.is_empty(),
                "toolExecutionNotifications": notes.collect::<Vec<_>>(),
            }]);
            writeln!(out, "{log:#}")?;
        }
    }
    Ok(match () {
        () if !loaded.unreadable.is_empty() => UNREADABLE,
        () if found.passes(asked.deny_warnings) => CLEAN,
        () => WRONG,
    })
}

fn text(
    found: &Verdict,
    unreadable: &[Unreadable],
    files: usize,
    asked: &Asked<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let shown = found.diagnostics.0.iter().filter(|d| asked.notes || d.severity != Severity::Note);
    let shown = Diagnostics(shown.cloned().collect());
    let drawn = if asked.colour { shown.render_in_colour() } else { shown.render() };
    if !drawn.is_empty() {
        writeln!(out, "{drawn}")?;
    }
    for path in unreadable {
        writeln!(out, "error: {path}")?;
    }
    let notes = match (found.notes, asked.notes) {
        (0, _) => String::new(),
        (some, true) => format!(", {}", counted(some, "note")),
        (some, false) => format!(", {} (--notes shows them)", counted(some, "note")),
    };
    writeln!(
        out,
        "{}: {}, {}{notes}",
        counted(files, "file"),
        counted(found.errors + unreadable.len(), "error"),
        counted(found.warnings, "warning")
    )
}

fn json(found: &Verdict, unreadable: &[Unreadable], files: usize, out: &mut impl Write) -> io::Result<()> {
    let unreadable: Vec<_> = unreadable
        .iter()
        .map(|u| json!({"file": u.path.display().to_string(), "message": u.source.to_string()}))
        .collect();
    let report = json!({
        "files": files,
        "errors": found.errors,
        "warnings": found.warnings,
        "notes": found.notes,
        "diagnostics": found.diagnostics.to_json(),
        "unreadable": unreadable,
    });
    writeln!(out, "{report:#}")
}

fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, deny_warnings: bool, format: Format) -> (u8, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yaml");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        let paths = [path];
        let asked = Asked { deny_warnings, format, ..plain(&paths) };
        let status = check(&asked, &mut out).unwrap();
        (status, String::from_utf8(out).unwrap())
    }

    fn plain(paths: &[PathBuf]) -> Asked<'_> {
        Asked {
            paths,
            catalog: None,
            catalog_at: None,
            previous: None,
            notes: false,
            deny_warnings: false,
            format: Format::Text,
            colour: false,
        }
    }

    const ODD: &str = "service: web\npools: {a: id exists}\n";

    #[test]
    fn the_status_says_clean_wrong_or_unreadable() {
        assert_eq!(run("service: web\n", true, Format::Text), (0, "1 file: 0 errors, 0 warnings\n".to_owned()));
        assert_eq!(run(ODD, false, Format::Text).0, 0);
        assert_eq!(run(ODD, true, Format::Text).0, 1);
        assert_eq!(run("servce: web\n", false, Format::Text).0, 1);
        let paths = [PathBuf::from("no/such/file.yaml")];
        let asked = plain(&paths);
        assert_eq!(check(&asked, &mut Vec::new()).unwrap(), 2);
    }

    #[test]
    fn programs_get_the_same_findings() {
        let json: serde_json::Value = serde_json::from_str(&run(ODD, false, Format::Json).1).unwrap();
        assert_eq!((&json["warnings"], &json["diagnostics"][0]["code"]), (&1.into(), &"W005".into()));
        let sarif: serde_json::Value = serde_json::from_str(&run(ODD, false, Format::Sarif).1).unwrap();
        assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "W005");
        assert_eq!(sarif["runs"][0]["invocations"][0]["executionSuccessful"], true);
    }
}
