//! Every fenced block in README.md and docs/ is checked by what its info string says it is. To mark one:
//!
//! | info string | checked by |
//! |---|---|
//! | `yaml rules`, `yaml catalog`, `yaml config` | the parser of that kind of file, which must find nothing |
//! | `yaml tests` | tests/rules: the schema of a file of tests |
//! | `yaml rules lint W…`, `yaml rules mended W…`, `yaml rules previous` | tests/rules: the first has that finding, the second has not |
//! | `yaml rules wrong` | tests/rules: the `text` block that follows is exactly what `check` says of it |
//! | `json`, `json lines` | a JSON parser, as a whole or line by line |
//! | `sh` | its commands: `make` by the Makefile's targets, `cargo` and `curl` as they are, `pointsman` by its own flags |
//! | `console` | its `$ ` lines as `sh`; the rest was copied from a real run |
//! | `text`, `mermaid` | nothing: a drawing, or copied from a real run |
//!
//! Anything else, and a block without an info string, is an error.

use std::fs;
use std::path::{Path, PathBuf};

use pointsman::config::{self, Flags};
use pointsman::engine::diagnostic::{Diagnostic, Diagnostics, Source};
use pointsman::engine::yaml;

/// A fenced block of a page.
struct Block {
    /// Page and line, as `docs/RULES.md:12`.
    place: String,
    info: String,
    text: String,
}

impl Block {
    /// Everything that is wrong with it.
    fn problems(&self) -> Vec<String> {
        match self.info.as_str() {
            "yaml config" => self.config_problems(),
            "yaml rules" | "yaml catalog" | "yaml tests" => self.file_problems(),
            "json" => json_problem(&self.text).into_iter().collect(),
            "json lines" => self.text.lines().filter_map(json_problem).collect(),
            "sh" => commands(&self.text).iter().filter_map(|command| command_problem(command)).collect(),
            "console" => {
                let typed: Vec<&str> = self.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
                commands(&typed.join("\n")).iter().filter_map(|command| command_problem(command)).collect()
            }
            "text" | "mermaid" | "yaml rules wrong" => Vec::new(),
            lint if ["yaml rules lint ", "yaml rules mended "].iter().any(|kind| lint.starts_with(kind)) => {
                self.file_problems()
            }
            "yaml rules previous" => self.file_problems(),
            other => vec![format!("`{other}` is no info string that tests/docs.rs knows")],
        }
    }

    fn config_problems(&self) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), &self.text).expect("a file that can be written");
        let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
        let found = config::load(&flags, []).err().unwrap_or_default();
        found.0.iter().map(Diagnostic::render).collect()
    }

    fn file_problems(&self) -> Vec<String> {
        let source = Source::new(self.place.clone(), self.text.clone());
        let mut found = Diagnostics::default();
        yaml::parse(&source, &mut found);
        found.0.iter().map(Diagnostic::render).collect()
    }
}

fn json_problem(text: &str) -> Option<String> {
    serde_json::from_str::<serde_json::Value>(text).err().map(|error| format!("not JSON: {error}"))
}

/// The commands of a shell text as words: comments dropped, continued lines joined.
fn commands(text: &str) -> Vec<Vec<String>> {
    text.replace("\\\n", " ").lines().map(words).filter(|words| !words.is_empty()).collect()
}

/// The words of one line, quotes resolved, up to a comment, a pipe, a redirection or another command.
fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | ';' | '&' | '>') => break,
            (None, ' ' | '\t') => out.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

/// Why a command cannot be what a reader should type.
fn command_problem(words: &[String]) -> Option<String> {
    let mut words = words.iter().map(String::as_str).skip_while(|word| word.contains('=') && !word.starts_with('-'));
    match words.next()? {
        "make" => {
            let target = words.find(|word| !word.contains('='))?;
            let makefile = read(Path::new("Makefile"));
            let known = makefile.lines().any(|line| line.split(':').next() == Some(target) && line.contains(':'));
            (!known).then(|| format!("the Makefile has no target `{target}`"))
        }
        "pointsman" => pointsman_problem(&words.collect::<Vec<_>>()),
        "cargo" => {
            let rest: Vec<&str> = words.collect();
            let split = rest.iter().position(|word| *word == "--")?;
            (rest[0] == "run").then(|| pointsman_problem(&rest[split + 1..])).flatten()
        }
        "curl" | "git" | "kill" | "export" => None,
        other => Some(format!("`{other}` is no command that these pages use")),
    }
}

/// Checks a command and its flags against the program's own help.
fn pointsman_problem(words: &[&str]) -> Option<String> {
    let (command, rest) = words.split_first()?;
    let flags = rest.iter().filter(|word| word.starts_with('-') && **word != "-");
    let program = env!("CARGO_BIN_EXE_pointsman");
    let help = std::process::Command::new(program).args([command, "--help"]).output().expect("the program runs");
    let text = String::from_utf8_lossy(&help.stdout);
    if !help.status.success() || !text.contains("Usage:") {
        return Some(format!("`pointsman {command}` is no command"));
    }
    flags
        .map(|flag| flag.split('=').next().unwrap_or(flag))
        .find(|flag| !names(&text, flag))
        .map(|flag| format!("`pointsman {command}` has no flag `{flag}`"))
}

/// Whether a help text lists a flag, as a word of its own.
fn names(help: &str, flag: &str) -> bool {
    help.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_'))).any(|word| word == flag)
}

/// The blocks of a page.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut out: Vec<Block> = Vec::new();
    let mut open = None;
    for (index, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(info), None) => {
                open = Some(line.len() - line.trim_start().len());
                out.push(Block {
                    place: format!("{page}:{}", index + 1),
                    info: info.trim().into(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => open = None,
            (None, Some(indent)) => {
                let block = out.last_mut().expect("one was opened");
                block.text.push_str(line.get(indent..).unwrap_or(""));
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    if let (Some(_), Some(block)) = (open, out.last_mut()) {
        block.info = "never closed".into();
    }
    out
}

fn read(path: &Path) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file that can be read")
}

fn pages() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").read_dir().expect("the docs");
    let names = docs.map(|entry| Path::new("docs").join(entry.expect("a file that can be listed").file_name()));
    let mut out: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect();
    out.push("README.md".into());
    out.sort();
    out
}

#[test]
fn every_block_in_the_docs_is_what_it_says_it_is() {
    let mut checked = 0;
    let mut found = Vec::new();
    for page in pages() {
        for block in blocks(&page.display().to_string(), &read(&page)) {
            checked += 1;
            found.extend(block.problems().into_iter().map(|problem| format!("{}: {problem}", block.place)));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    assert!(checked > 5, "the pages have blocks, and they were found");
}

#[test]
fn every_path_that_the_docs_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<String> = pages()
        .iter()
        .flat_map(|page| {
            let text = read(page);
            let named: Vec<String> = text.split('`').filter(|code| is_path(code)).map(str::to_owned).collect();
            named.into_iter().map(|path| format!("{}: `{path}` does not exist", page.display()))
        })
        .filter(|line| line.split('`').nth(1).is_some_and(|path| !root.join(path).exists()))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Whether this is a file or folder of the project, not a pattern for several, a command, or a place on somebody's disk.
fn is_path(code: &str) -> bool {
    const FOLDERS: [&str; 7] = ["src/", "tests/", "benches/", "scripts/", "fuzz/", "docs/", "deploy/"];
    FOLDERS.iter().any(|folder| code.starts_with(folder))
        && code.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
}

#[test]
fn a_wrong_block_is_seen() {
    let check = |page: &str, expected: &[&str]| {
        let found: Vec<String> = blocks("t.md", page).iter().flat_map(Block::problems).collect();
        assert_eq!(found.len(), expected.len(), "{page}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{page}: {found}");
        }
    };
    check("```yaml rules\nservice: web\nservice: api\n```\n", &["repeated"]);
    check("```yaml rules\nservice: web\n```\n", &[]);
    check("```yaml config\nregion: eu\nlisen: []\n```\n", &["`listen`"]);
    check("```yaml config\nregion: eu\n```\n", &[]);
    check("```yaml\na: 1\n```\n", &["`yaml` is no info string"]);
    check("```\na\n```\n", &["`` is no info string"]);
    check("```text\nanything\n", &["never closed"]);
    check("```json lines\n{}\n{\n```\n", &["not JSON"]);
    check("```sh\nmake nothing\n```\n", &["no target `nothing`"]);
    check("```sh\nmake test # all of it\nCOMPARE=x make compare COMPARE=\"--help\"\n```\n", &[]);
    check("```sh\nfrobnicate --all\n```\n", &["`frobnicate` is no command"]);
    check("```sh\npointsman frobnicate\n```\n", &["`pointsman frobnicate` is no command"]);
    check("```console\n$ make help\nmade up output\n```\n", &[]);
}

#[test]
fn words_are_split_as_a_shell_does() {
    assert_eq!(words("run -H 'x-user-group: test' \"a b\"c # no | more"), ["run", "-H", "x-user-group: test", "a bc"]);
    assert_eq!(commands("a \\\n  b\n\n# c\nd | e\n"), [vec!["a", "b"], vec!["d"]]);
    assert!(names("  -H, --header <NAME: VALUE>  x", "--header") && names("-H, --header", "-H"));
    assert!(!names("--headers", "--header"));
}
